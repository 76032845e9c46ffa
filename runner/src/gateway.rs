//! Where the gateway is: at a Unix socket, or behind a relay on the sandbox's own network.

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use link::{Secret, bootstrap};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// The gateway's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gateway {
    /// Its socket for this sandbox.
    Socket(PathBuf),
    /// A relay to that socket.
    Relay(SocketAddr),
}

/// A connection to it.
pub(crate) type Stream = Either<UnixStream, TcpStream>;

impl Gateway {
    /// Reads an address: a path, or `tcp:ADDRESS:PORT`.
    pub(crate) fn read(text: OsString) -> Self {
        let relay = text.to_str().and_then(|text| text.strip_prefix(bootstrap::TCP)?.parse().ok());
        relay.map_or_else(|| Self::Socket(text.into()), Self::Relay)
    }

    pub(crate) async fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Socket(path) => UnixStream::connect(path).await.map(Either::Left),
            Self::Relay(address) => {
                let stream = TcpStream::connect(address).await?;
                // Frames are small, and each is waited for.
                stream.set_nodelay(true)?;
                Ok(Either::Right(stream))
            }
        }
    }

    /// What is to be shown there before anything was assigned; on the socket, nothing. A token is good for one link:
    /// after `used` another one has to be there.
    pub(crate) fn bootstrap(&self, used: Option<&Secret>) -> io::Result<Option<Secret>> {
        match self {
            Self::Socket(_) => Ok(None),
            Self::Relay(_) => fresh(&Path::new(bootstrap::SEEN).join(bootstrap::TOKEN), used).map(Some),
        }
    }
}

fn fresh(file: &Path, used: Option<&Secret>) -> io::Result<Secret> {
    let token = Secret::new(std::fs::read_to_string(file)?);
    match used == Some(&token) {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "there is no other token yet")),
        false => Ok(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_a_relay() {
        let read = |text: &str| Gateway::read(text.into());
        assert_eq!(read("/run/s"), Gateway::Socket("/run/s".into()));
        assert_eq!(read("tcp:10.81.0.2:7400"), Gateway::Relay("10.81.0.2:7400".parse().unwrap()));
        assert_eq!(read("tcp:"), Gateway::Socket("tcp:".into()));
    }

    #[test]
    fn no_token_is_shown_twice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let first = fresh(file.path(), None).unwrap();
        assert!(fresh(file.path(), Some(&first)).is_err());
        std::fs::write(file.path(), "two").unwrap();
        assert_eq!(fresh(file.path(), Some(&first)).unwrap().expose(), "two");
    }
}
