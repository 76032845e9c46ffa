//! The relay: a program in a container of its own that passes what comes over a sandbox's network on to the platform's
//! socket for that sandbox. It looks at nothing that passes, and listens to nobody but the sandbox.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Semaphore;

/// The name by which the `hypercode` binary knows that it is to be a relay.
pub const RELAY: &str = "hypercode-relay";

/// Connections that are passed on at once: more than a gateway takes of one sandbox.
const CONNECTIONS_MAX: usize = 64;
/// Bytes on their way in each direction of a connection.
const BUFFER_BYTES: usize = 16 << 10;
/// How long it waits after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// What a relay is told: `--socket PATH --listen ADDRESS:PORT --from ADDRESS`.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    socket: PathBuf,
    listen: SocketAddr,
    from: IpAddr,
}

impl Told {
    fn read(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let args: Vec<OsString> = args.into_iter().collect();
        let value = |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1);
        Some(Self {
            socket: value("--socket")?.into(),
            listen: value("--listen")?.to_str()?.parse().ok()?,
            from: value("--from")?.to_str()?.parse().ok()?,
        })
    }
}

/// The relay's whole life: it ends only when it is killed, or cannot listen.
pub fn relay_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(told) = Told::read(args) else {
        eprintln!(
            "{RELAY}: failed to read its arguments: --socket PATH --listen ADDRESS:PORT --from ADDRESS"
        );
        return ExitCode::from(2);
    };
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(told)));
    if let Err(error) = served {
        eprintln!("{RELAY}: failed to listen: {error}");
    }
    ExitCode::FAILURE
}

async fn serve(told: Told) -> io::Result<()> {
    let listener = TcpListener::bind(told.listen).await?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let mut stream = match listener.accept().await {
            Ok((stream, peer)) if peer.ip() == told.from => stream,
            // Whoever else came to be on the network is not answered.
            Ok(_) => continue,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let socket = told.socket.clone();
        tokio::spawn(async move {
            // Frames are small, and each is waited for.
            let _ = stream.set_nodelay(true);
            // Without a platform there is nobody to pass it to: the runner comes again.
            if let Ok(mut platform) = UnixStream::connect(socket).await {
                let _ = copy_bidirectional_with_sizes(&mut stream, &mut platform, BUFFER_BYTES, BUFFER_BYTES)
                    .await;
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream, UnixListener};

    use super::*;

    #[test]
    fn it_reads_what_it_is_told() {
        let read = |line: &str| Told::read(line.split_whitespace().map(OsString::from));
        let told = read("--socket /s --listen 10.0.0.2:7400 --from 10.0.0.3").unwrap();
        assert_eq!((told.listen.port(), told.from), (7400, "10.0.0.3".parse().unwrap()));
        for bad in ["", "--socket /s", "--socket /s --listen 10.0.0.2 --from 10.0.0.3"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_the_sandbox_says_passes_and_nobody_else_is_heard() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("s");
        let platform = UnixListener::bind(&socket).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = free.local_addr().unwrap();
        drop(free);
        tokio::spawn(serve(Told { socket, listen, from: "127.0.0.3".parse().unwrap() }));
        let connect = async |from: &str| -> TcpStream {
            loop {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
                if let Ok(stream) = socket.connect(listen).await {
                    return stream;
                }
                tokio::task::yield_now().await;
            }
        };
        let mut other = connect("127.0.0.4").await;
        assert!(!matches!(other.read(&mut [0; 1]).await, Ok(1..)), "it is shown out");
        let mut sandbox = connect("127.0.0.3").await;
        sandbox.write_all(b"hello").await.unwrap();
        let (mut heard, _) = platform.accept().await.unwrap();
        let mut text = [0; 5];
        heard.read_exact(&mut text).await.unwrap();
        heard.write_all(b"again").await.unwrap();
        sandbox.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"again");
    }
}
