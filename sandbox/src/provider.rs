//! The seam: what the platform asks of every kind of sandbox.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{Error, Id, Labels, Resources, Spec};

/// Makes, finds and removes sandboxes of one kind for one instance of the platform.
///
/// Laws, each a test in the `conformance` module (feature `test-util`):
/// - *One use* (SB-1): an id that was created or destroyed is never started again.
/// - *Idempotent*: creating what runs answers with what runs; destroying what is gone, or never was, succeeds.
/// - *No orphan* (SB-3): when `destroy` succeeds, no process that the sandbox ever started is left, whatever it
///   did to get away, and its files are gone.
/// - *Outlives the platform*: dropping the provider, or killing the platform, leaves sandboxes running; the next
///   provider over the same place finds them, and reports their exits as if it had made them.
/// - *Own only*: sandboxes of other instances and recycled process ids are never listed, signalled or killed.
///
/// All methods may be called from many tasks at once; calls for one id are done one after the other.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Which kind of sandbox this makes.
    fn kind(&self) -> Kind;

    /// How far its sandboxes are shut off, honestly.
    fn isolation(&self) -> Isolation;

    /// Makes the sandbox and starts its runner, which then connects to `spec.socket`: perhaps before this returns.
    ///
    /// Repeated for an id that runs, it answers with what runs, whatever else `spec` says.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Used`], [`Error::Image`], [`Error::Start`]; [`Error::Io`] may be tried again with the same id.
    async fn create(&self, spec: &Spec) -> Result<Running, Error>;

    /// Kills everything in the sandbox, verifies that it is gone and removes its files. The id stays used up.
    ///
    /// # Errors
    /// [`Error::StillRunning`] or [`Error::Io`]; either may be tried again.
    async fn destroy(&self, id: &Id) -> Result<(), Error>;

    /// Everything of this instance that runs or left something behind.
    ///
    /// # Errors
    /// [`Error::Io`] where the place itself cannot be read. One damaged sandbox is a [`State::Damaged`] in the list.
    async fn list(&self) -> Result<Vec<Found>, Error>;

    /// The same for one sandbox.
    ///
    /// # Errors
    /// As [`Provider::list`].
    async fn find(&self, id: &Id) -> Result<Option<Found>, Error>;

    /// The end of the handler's log, at most so many bytes; `None` where there is no log (any more).
    ///
    /// # Errors
    /// [`Error::Io`] where the log is there and cannot be read.
    async fn log(&self, id: &Id, bytes_max: u64) -> Result<Option<String>, Error>;

    /// Sends a signal to the runner or its handlers: for operations and fault injection.
    ///
    /// # Errors
    /// [`Error::NotRunning`] where there is no such process.
    async fn signal(&self, id: &Id, which: Target, signal: Signal) -> Result<(), Error>;

    /// Whether a peer on the sandbox's socket is the sandbox: by the kernel's word, not by its own. Who speaks before
    /// `create` has made sure of what it made waits for that.
    ///
    /// # Errors
    /// As [`Provider::list`].
    async fn owns(&self, id: &Id, peer: Peer) -> Result<bool, Error>;

    /// Changes what a running sandbox may use: processor time, memory and number of processes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the kind cannot; [`Error::NotRunning`].
    async fn update(&self, _: &Id, _: &Resources) -> Result<(), Error> {
        Err(Error::Unsupported { kind: self.kind(), what: "change the limits of a running sandbox" })
    }

    /// Has everything in the sandbox stand still, until [`Provider::unpause`]. Repeated, it changes nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the kind cannot; [`Error::NotRunning`].
    async fn pause(&self, _: &Id) -> Result<(), Error> {
        Err(Error::Unsupported { kind: self.kind(), what: "pause a sandbox" })
    }

    /// Has everything in the sandbox go on. Repeated, it changes nothing.
    ///
    /// # Errors
    /// As [`Provider::pause`].
    async fn unpause(&self, _: &Id) -> Result<(), Error> {
        Err(Error::Unsupported { kind: self.kind(), what: "unpause a sandbox" })
    }

    /// What an image's name stands for now, by its content, so that all sandboxes made of it are made of the same.
    /// `None` where images have no names.
    ///
    /// # Errors
    /// [`Error::Image`] where there is none, or it may not be used.
    async fn pin(&self, _image: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Makes sure that sandboxes can be run by this runtime.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is not there, [`Error::Unsupported`] where the kind has no other runtimes.
    async fn check_runtime(&self, _: &str) -> Result<(), Error> {
        Err(Error::Unsupported { kind: self.kind(), what: "choose a runtime class" })
    }

    /// The container that a sandbox is, while it runs; `None` where it is none.
    fn container(&self, _: &Id) -> Option<Container> {
        None
    }

    /// What is done to sandboxes from outside from now on, and what is made of them against what was asked. They are
    /// killed for it. Whoever asks first also hears of what was found when the provider was opened. A kind that cannot tell has
    /// nothing to say.
    fn breaches(&self) -> broadcast::Receiver<Breach> {
        broadcast::channel(1).1
    }

    /// Exits from now on: each sandbox once, as soon as its runner has ended *and* all that ran below it is gone.
    ///
    /// A hint, not a record: to miss none, subscribe first and then [`Provider::list`], and list again after
    /// [`broadcast::error::RecvError::Lagged`].
    fn exits(&self) -> broadcast::Receiver<Exit>;
}

/// A kind of sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Plain processes that share the host.
    Process,
    /// Processes in namespaces of their own.
    Native,
    /// Docker containers.
    Docker,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Native => "native",
            Self::Docker => "docker",
        })
    }
}

/// How far a sandbox is shut off from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Level {
    /// It can do whatever the platform's own user can.
    None,
    /// It sees nothing of the host but its kernel, and little of that.
    Namespaces,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Namespaces => "namespaces",
        })
    }
}

/// What a provider holds a sandbox to, and what not, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// The level in one word.
    pub level: Level,
    /// What is enforced, a phrase each.
    pub held: Vec<&'static str>,
    /// What is not enforced although one might think so, a phrase each.
    pub not_held: Vec<&'static str>,
}

/// A process by the kernel's word: its id alone may be recycled, with the start time it is unique until reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pid {
    /// The process id, as the platform sees it.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)).
    pub start_ticks: u64,
}

/// Who is at the other end of a Unix socket, by the kernel's word: `SO_PEERCRED` (unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process that connected, as the platform sees it.
    pub pid: u32,
    /// Its user, as the platform sees it.
    pub uid: u32,
}

/// A sandbox that is a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The daemon's id of it.
    pub id: String,
    /// The image that it was made of, by its content: `sha256:…`.
    pub image: String,
}

/// Why a sandbox cannot be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tampering {
    /// It is less shut off than was asked for.
    Drifted,
    /// Something was executed in it from outside.
    Executed,
    /// It had ended, and somebody started it again.
    Started,
    /// It was to stand still, and somebody had it go on.
    Unpaused,
}

/// A sandbox was tampered with, and is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The sandbox.
    pub id: Id,
    /// What it was made for.
    pub labels: Labels,
    /// Why it cannot be trusted.
    pub what: Tampering,
    /// What was seen, for a person.
    pub detail: String,
}

/// A sandbox that was just created, or already ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub id: Id,
    /// The runner's process; `None` where it had ended before it could be looked at.
    pub runner: Option<Pid>,
    /// The work directory that the runner was given, as the sandbox sees it.
    pub work: PathBuf,
}

/// A sandbox that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: Id,
    /// What it was created with; empty where that cannot be read.
    pub labels: Labels,
    /// The socket it was created with; `None` where that cannot be read.
    pub socket: Option<PathBuf>,
    /// What it is doing.
    pub state: State,
}

/// What a sandbox that was found is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its runner runs, or is about to: `None` until its process is known.
    Running(Option<Pid>),
    /// Its runner has ended and nothing of it runs; its files are left, for [`Provider::destroy`] to remove.
    Ended(Exit),
    /// What is left of it cannot be understood; [`Provider::destroy`] removes it all the same.
    Damaged(String),
}

/// How a sandbox's runner ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The sandbox.
    pub id: Id,
    /// The exit code, if the runner ended by itself. With `signal` absent too, nobody saw how it ended.
    pub code: Option<i32>,
    /// The signal that killed the runner, if one did.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory, as far as that is known.
    pub oom: bool,
    /// The last lines that the runner itself wrote to stderr, at most 2 KiB: a reason for people.
    pub log: String,
}

/// Which processes of a sandbox a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The runner.
    Runner,
    /// Every child of the runner: the handlers it started.
    Handler,
}

/// A signal, as in signal(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
}
