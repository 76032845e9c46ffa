//! Sandboxes: the plainest start of each kind, up to the first byte of a program in it, with no platform around it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};

use super::docker::Daemon;
use crate::Result;
use crate::sandboxes::Sandbox;

/// Processes that a sandbox consists of: keeper, runner and handler.
const PROCESSES: usize = 3;
/// How long a program may take to say its first byte.
const PATIENCE: Duration = Duration::from_secs(60);
const SOCKET: &str = "hello";

/// In a bare sandbox: says one byte, and answers every byte with one, until nobody listens.
pub(crate) fn hello(socket: &Path) -> Result<()> {
    let mut stream = Blocking::connect(socket)?;
    let mut byte = [b'!'];
    loop {
        stream.write_all(&byte)?;
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
    }
}

/// Starts bare sandboxes of one kind.
pub(crate) struct Bare {
    kind: Sandbox,
    daemon: Option<Daemon>,
    /// A socket's path is short.
    root: TempDir,
    started: AtomicUsize,
}

/// A bare sandbox whose program has said its first byte.
pub(crate) struct Up<'a> {
    bare: &'a Bare,
    listener: UnixListener,
    /// While they are open, the programs stay.
    streams: Vec<UnixStream>,
    container: Option<String>,
    /// Killed when they are dropped.
    _processes: Vec<Child>,
    pub(crate) took: Duration,
}

impl Bare {
    pub(crate) async fn open(kind: Sandbox) -> Result<Self> {
        let daemon = if kind == Sandbox::Docker { Some(Daemon::connect().await?) } else { None };
        let root = tempfile::Builder::new().prefix("hc-bare-").tempdir_in("/tmp")?;
        Ok(Self { kind, daemon, root, started: AtomicUsize::new(0) })
    }

    /// What it does, in words.
    pub(crate) fn what(&self) -> &'static str {
        match self.kind {
            Sandbox::Process => "bare start of 3 processes",
            Sandbox::Native => "bare start with bubblewrap",
            Sandbox::Docker => "bare Docker create and start",
        }
    }

    /// Starts one.
    pub(crate) async fn start(&self) -> Result<Up<'_>> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let directory = self.root.path().join(number.to_string());
        fs::create_dir(&directory)?;
        let socket = directory.join(SOCKET);
        let listener = UnixListener::bind(&socket)?;
        let (mut processes, mut streams, mut container) = (Vec::new(), Vec::new(), None);
        let start = Instant::now();
        match (self.kind, &self.daemon) {
            (Sandbox::Docker, None) => return Err("there is no daemon".into()),
            (Sandbox::Docker, Some(daemon)) => container = Some(daemon.start(&socket).await?),
            (Sandbox::Native, _) => processes.push(spawn(&mut confined(&directory)?)?),
            (Sandbox::Process, _) => {
                for _ in 1..PROCESSES {
                    processes.push(spawn(&mut plain(&socket)?)?);
                    streams.push(heard(&listener).await?);
                }
                processes.push(spawn(&mut plain(&socket)?)?);
            }
        }
        streams.push(heard(&listener).await?);
        Ok(Up { bare: self, listener, streams, container, _processes: processes, took: start.elapsed() })
    }

    /// Starts one, ends it, and says how long it took to start.
    pub(crate) async fn once(&self) -> Result<Duration> {
        let up = self.start().await?;
        let took = up.took;
        up.end().await?;
        Ok(took)
    }
}

impl Up<'_> {
    fn of_daemon(&self) -> Result<(&Daemon, &str)> {
        Ok(self.bare.daemon.as_ref().zip(self.container.as_deref()).ok_or("it is no container")?)
    }

    /// How long it takes a container that stands still to go on and answer.
    pub(crate) async fn unpause(&mut self) -> Result<Duration> {
        let (daemon, container) = self.of_daemon()?;
        daemon.pause(container).await?;
        let start = Instant::now();
        daemon.unpause(container).await?;
        let stream = self.streams.last_mut().ok_or("nothing runs in it")?;
        stream.write_all(b"?").await?;
        stream.read_exact(&mut [0]).await?;
        Ok(start.elapsed())
    }

    /// How long it takes a container from being killed until its program says its first byte again.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        let (daemon, container) = self.of_daemon()?;
        let start = Instant::now();
        daemon.restart(container).await?;
        self.streams = vec![heard(&self.listener).await?];
        Ok(start.elapsed())
    }

    pub(crate) async fn end(self) -> Result<()> {
        match self.of_daemon() {
            Ok((daemon, container)) => daemon.remove(container).await,
            Err(_) => Ok(()),
        }
    }
}

/// Waits until a program says its first byte.
async fn heard(listener: &UnixListener) -> Result<UnixStream> {
    let first = async {
        let (mut stream, _) = listener.accept().await?;
        stream.read_exact(&mut [0]).await?;
        std::io::Result::Ok(stream)
    };
    Ok(tokio::time::timeout(PATIENCE, first).await.map_err(|_| "a bare sandbox says nothing")??)
}

fn spawn(command: &mut Command) -> Result<Child> {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(quiet.kill_on_drop(true).spawn()?)
}

fn plain(socket: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("hello").arg(socket);
    Ok(command)
}

/// The namespaces and the view that a native sandbox has.
fn confined(directory: &Path) -> Result<Command> {
    let program = std::env::current_exe()?;
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]);
    command.args(["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"]);
    command.args(["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    command.arg("--ro-bind").arg(program).arg("/hypercode/bench");
    command.arg("--ro-bind").arg(directory).arg("/run/hypercode");
    command.arg("/hypercode/bench").arg("hello").arg(PathBuf::from("/run/hypercode").join(SOCKET));
    Ok(command)
}
