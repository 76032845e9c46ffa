//! The configuration: one struct, read from defaults, a file, the environment and flags, each over the one before.
//!
//! [`SETTINGS`] is the one table of what can be set. The file's keys, the variables' names, the flags and
//! `docs/configuration.md` all follow from it.

mod docker;
mod load;
mod nats;
mod secrets;
mod setting;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use events::store::postgres::Database;

use crate::tls::Files;

pub use docker::{Docker, Link};
pub use load::{Fault, Sources};
pub use nats::Nats;
pub use secrets::Secrets;
pub use setting::{SETTINGS, Setting, table};

/// The kinds of sandboxes that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxKind {
    /// Namespaces where the kernel lets us have them, else plain processes.
    #[default]
    Auto,
    /// Plain processes: supervised and bounded, but not isolated from the host.
    Process,
    /// Processes in namespaces of their own.
    Native,
    /// Docker containers.
    Docker,
}

/// How the platform writes its own log to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How the platform is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the log, the views, the artifacts and the admin token are kept. With less than 1 MiB free there, `/readyz` is 503 and `doctor` says so, unless `database_url` keeps the log elsewhere.
    pub data_dir: PathBuf,
    /// The Postgres database that holds the log and the views; `None` keeps them in the data directory.
    pub database_url: Option<Database>,
    /// Where the HTTP API listens: a loopback address, unless it has a certificate.
    pub listen: SocketAddr,
    /// The file of the certificate that the HTTP API shows, in PEM; without one it speaks no TLS.
    pub tls_cert: Option<PathBuf>,
    /// The file of its private key.
    pub tls_key: Option<PathBuf>,
    /// A file of certificates that commands trust beside the system's when they talk to a platform.
    pub tls_ca: Option<PathBuf>,
    /// What kind of sandbox agents run in.
    pub sandbox: SandboxKind,
    /// Directories of this host that every agent may read, where its sandbox shuts it off from the others.
    pub sandbox_shares: Vec<PathBuf>,
    /// A directory with an unpacked image, whose programs native sandboxes see in place of this host's.
    pub sandbox_image: Option<PathBuf>,
    /// How Docker is used, where agents run in containers.
    pub docker: Docker,
    /// Whether agents are started although a canary got through.
    pub sandbox_unproven: bool,
    /// Where the sandboxes' sockets are; `None` is `/tmp/hypercode-<uid>`. Short: a socket's path has 108 bytes at most.
    pub run_dir: Option<PathBuf>,
    /// What the platform writes to its own log, as `tracing` filter directives.
    pub log: String,
    /// How it writes it.
    pub log_format: LogFormat,
    /// How long answers that are under way may take after SIGTERM, in milliseconds.
    pub drain_ms: u64,
    /// How long an HTTP request may take, in milliseconds; assembling a crew and moving an artifact may take ten times as
    /// long.
    pub request_ms: u64,
    /// Largest body of an HTTP request that is not an artifact, in bytes.
    pub body_bytes_max: usize,
    /// Most HTTP connections at once.
    pub connections_max: usize,
    /// Requests and commands of one principal in a second.
    pub requests_per_second: u32,
    /// Tokens that are not known and are looked at in a second.
    pub strangers_per_second: u32,
    /// Events after which a checkpoint of the log is signed.
    pub checkpoint_events: u64,
    /// How long an event waits for its checkpoint at most, in milliseconds.
    pub checkpoint_ms: u64,
    /// The file that checkpoints are appended to; `None` is `checkpoints` in the data directory.
    pub checkpoint_file: Option<PathBuf>,
    /// A directory that gets every checkpoint as a file of its own.
    pub checkpoint_dir: Option<PathBuf>,
    /// A program that gets the newest checkpoint on its standard input.
    pub checkpoint_program: Option<PathBuf>,
    /// The URL of an object store under which every checkpoint becomes an object of its own.
    pub checkpoint_url: Option<String>,
    /// A file with headers for requests to that store, such as a token.
    pub checkpoint_headers_file: Option<PathBuf>,
    /// The URLs of witnesses that cosign checkpoints.
    pub checkpoint_witness: Vec<String>,
    /// What its cosignatures are checked with.
    pub checkpoint_witness_key: Vec<events::audit::WitnessKey>,
    /// Whether checkpoints go to the bus, where there is one.
    pub checkpoint_nats: bool,
    /// The file of the key that wraps the keys of data subjects; `None` is `master.key` in the data directory.
    pub master_key_file: Option<PathBuf>,
    /// The file of the outside issuers whose tokens are taken.
    pub issuers_file: Option<PathBuf>,
    /// Where profiles may take secrets from.
    pub secrets: Secrets,
    /// How the bus is reached, if there is one.
    pub nats: Nats,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from(".hypercode"),
            database_url: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7400)),
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            sandbox: SandboxKind::default(),
            sandbox_shares: Vec::new(),
            sandbox_image: None,
            docker: Docker::default(),
            sandbox_unproven: false,
            run_dir: None,
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            drain_ms: 10_000,
            request_ms: 30_000,
            body_bytes_max: 2 * 1024 * 1024,
            connections_max: 1_024,
            requests_per_second: 1_000,
            strangers_per_second: 50,
            checkpoint_events: 1_000,
            checkpoint_ms: 1_000,
            checkpoint_file: None,
            checkpoint_dir: None,
            checkpoint_program: None,
            checkpoint_url: None,
            checkpoint_headers_file: None,
            checkpoint_witness: Vec::new(),
            checkpoint_witness_key: Vec::new(),
            checkpoint_nats: true,
            master_key_file: None,
            issuers_file: None,
            secrets: Secrets::default(),
            nats: Nats::default(),
        }
    }
}

impl Config {
    /// The file that holds the token of this data directory's administrator, mode 0600.
    pub fn token_file(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }

    /// The file of the checkpoints that a witness has cosigned with this key. With another key it begins another file.
    pub fn cosigned_file(&self, key: &events::audit::WitnessKey) -> PathBuf {
        self.data_dir.join(format!("checkpoints.cosigned.{:08x}", key.id()))
    }

    /// The file that checkpoints are appended to.
    pub fn checkpoint_file(&self) -> PathBuf {
        self.checkpoint_file.clone().unwrap_or_else(|| self.data_dir.join("checkpoints"))
    }

    /// The file of the key that wraps the keys of data subjects, mode 0600.
    pub fn master_key_file(&self) -> PathBuf {
        let own = || self.data_dir.join(events::seal::MASTER_FILE);
        self.master_key_file.clone().unwrap_or_else(own)
    }

    /// The certificate that the HTTP API shows.
    pub fn tls(&self) -> Option<Files> {
        Some(Files { cert: self.tls_cert.clone()?, key: self.tls_key.clone()? })
    }

    /// What is wrong with settings together that are right alone.
    fn contradiction(&self) -> Option<String> {
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Some("`tls_cert` and `tls_key` belong together: set both or none".to_owned());
        }
        (self.tls_cert.is_none() && !self.listen.ip().is_loopback()).then(|| {
            format!(
                "`listen`: found `{}`, which others than this machine can reach: set `tls_cert` and `tls_key`, so that \
                 nobody reads tokens on their way, or listen on a loopback address",
                self.listen
            )
        })
    }

    /// The file in which a running platform says where it listens.
    pub fn address_file(&self) -> PathBuf {
        self.data_dir.join("http.address")
    }
}

/// The data directory where none is configured: `$XDG_DATA_HOME/hypercode`, else `~/.local/share/hypercode`, else
/// `.hypercode` here (XDG Base Directory Specification).
fn default_data_dir(xdg: Option<&str>, home: Option<&str>) -> PathBuf {
    match (xdg.filter(|dir| Path::new(dir).is_absolute()), home.filter(|dir| !dir.is_empty())) {
        (Some(xdg), _) => Path::new(xdg).join("hypercode"),
        (None, Some(home)) => Path::new(home).join(".local/share/hypercode"),
        (None, None) => PathBuf::from(".hypercode"),
    }
}

#[cfg(test)]
mod tests;
