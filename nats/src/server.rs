//! A `nats-server` of a test's own: on a spare loopback port, with JetStream in a directory that goes with it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::{Address, Options};

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// A running server. When it is dropped, nothing of it is left.
pub struct Server {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts a server that lets everybody in.
    ///
    /// # Panics
    /// When it cannot be started: a test that needs it cannot pass without.
    pub fn start() -> Self {
        Self::with(|_| String::new())
    }

    /// Starts a server with these lines in its configuration; they may name files that are made in its directory.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn with(lines: impl FnOnce(&Path) -> String) -> Self {
        Self::configured(|dir, port| {
            let store = dir.join("store");
            let listen =
                format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}", store.display());
            format!("{listen}\n{}\n", lines(dir))
        })
    }

    /// Starts a server with this configuration, which must have it listen on the port and keep its data in `store` in
    /// the directory.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn configured(config: impl FnOnce(&Path, u16) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("hc-nats-").tempdir().expect("a temporary directory");
        let port = spare_port();
        std::fs::write(dir.path().join("server.conf"), config(dir.path(), port)).expect("a configuration");
        let mut server = Self { dir, port, child: None };
        server.resume();
        server
    }

    /// Starts the server that `deploy/nats` describes, whose passwords are the users' names.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn deployed() -> Self {
        let deployed = include_str!("../../deploy/nats/server.conf");
        Self::configured(|dir, port| {
            deployed
                .replace("0.0.0.0:4222", &format!("127.0.0.1:{port}"))
                .replace("http: \"127.0.0.1:8222\"", "")
                .replace("\"/data\"", &format!("\"{}\"", dir.join("store").display()))
                .replace("$NATS_PLATFORM_PASSWORD", "platform")
                .replace("$NATS_CLIENT_PASSWORD", "client")
                .replace("$NATS_OBSERVER_PASSWORD", "observer")
        })
    }

    /// Its address, with a user whose password is its name.
    pub fn url_of(&self, user: &str) -> String {
        format!("nats://{user}:{user}@127.0.0.1:{}", self.port)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// How to connect to it.
    pub fn options(&self) -> Options {
        let address: Address = self.url().parse().expect("a server has an address");
        Options { retry_ms: 50, ..Options::new(address) }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // That it has ended by itself is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Holds it: it neither answers nor closes what is open.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn unpause(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Forgets everything that it kept; it must not be running.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "a server that runs cannot be wiped");
        std::fs::remove_dir_all(self.dir.path().join("store")).expect("what it kept goes");
    }

    /// Starts it again, where it was.
    pub fn resume(&mut self) {
        let log = self.dir.path().join("server.log");
        let open = || File::options().append(true).create(true).open(&log).expect("a log");
        let program = program();
        let child = Command::new(&program)
            .arg("-c")
            .arg(self.dir.path().join("server.conf"))
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn();
        let mut child = child.unwrap_or_else(|error| {
            panic!("start `{}`: {error}; `cargo xtask tools` installs it", program.display())
        });
        let until = Instant::now() + PATIENCE;
        while !answers(self.port) {
            let ended = child.try_wait().expect("the server is our child");
            if ended.is_some() || Instant::now() > until {
                let _ = child.kill();
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the server does not come up ({ended:?}); its log:\n{said}");
            }
            std::thread::sleep(LOOK);
        }
        self.child = Some(child);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("the server is our child");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on at the moment.
fn spare_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Whether a server says who it is on this port.
fn answers(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let mut line = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && BufReader::new(stream).read_line(&mut line).is_ok()
        && line.starts_with("INFO ")
}

/// Where `cargo xtask tools` puts the server; else the one that the machine has.
fn program() -> PathBuf {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    let own = target.join("tools/bin/nats-server");
    if own.exists() { own } else { PathBuf::from("nats-server") }
}
