//! The seam between the runner and the four ways of driving a handler.

mod exec;
mod http;
pub(crate) mod pull;
mod sse;
pub(crate) mod stdio;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use link::{
    Error, ErrorType, HandlerInfo, HandlerSpec, Id, Protocol, Stage,
    handler::{Cancel, Deliver, Execute, Executed, Initialize, Shutdown},
};
use tokio::time::Instant;

use crate::{
    child::{Exit, Program},
    event::Platform,
    log::Log,
    process::Family,
};

/// How long a handler's output may still come after its process ended. Its descendants may hold the pipe open for ever.
pub(crate) const LAST_WORDS_MS_MAX: u64 = 500;
/// How long after SIGTERM a handler that was told to end is killed.
pub(crate) const TERM_MS_MAX: u64 = 1_000;

/// Everything that a carrier needs to start a handler.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) spec: HandlerSpec,
    pub(crate) program: Program,
    pub(crate) log: Log,
    pub(crate) family: Family,
    pub(crate) platform: Platform,
}

/// A handler that is ready.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) info: HandlerInfo,
    pub(crate) spawn_ms: u64,
    pub(crate) initialize_ms: u64,
}

/// Why a handler did not become ready.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) message: String,
    pub(crate) exit: Exit,
    pub(crate) log_tail: String,
}

impl Failure {
    pub(crate) fn new(stage: Stage, message: impl Into<String>) -> Self {
        Self { stage, message: message.into(), exit: Exit::default(), log_tail: String::new() }
    }
}

/// One running handler.
///
/// Laws: futures may be dropped at any time, which abandons the wait but not the handler's work. When the handler's
/// process ends by itself, waiting futures never resolve: the carrier's exit event decides what becomes of them.
#[async_trait]
pub(crate) trait Carrier: Send + Sync + std::fmt::Debug {
    /// Has a task done. Answers when the attempt has ended.
    async fn execute(&self, task: &Execute) -> Result<Executed, Error>;

    /// Delivers a message. Answers when the handler took it.
    async fn deliver(&self, message: &Deliver) -> Result<(), Error>;

    /// Asks to stop doing a task.
    async fn cancel(&self, cancel: &Cancel);

    /// Whether a cancelled attempt ends at once, with the waiting future; else the handler has its grace.
    fn cancels_at_once(&self) -> bool {
        false
    }

    /// Asks whether the handler lives; answers when it says so. Only if its info says that it can.
    async fn ping(&self) {}

    /// Tells the handler to end, ends it if it does not, and answers when its process is gone.
    async fn shutdown(&self, shutdown: &Shutdown);

    /// Kills whatever works on the task; that may be the whole handler.
    fn kill(&self, task: &Id);

    /// Whether that is the whole handler: then the sandbox is at its end.
    fn is_killed_whole(&self) -> bool {
        true
    }

    /// The handler's own process, where it has one.
    fn pid(&self) -> Option<i32>;

    /// Whether silence about a task means anything: `exec` handlers cannot say that they make progress.
    fn speaks(&self) -> bool {
        true
    }
}

/// A handler that was started and has not been told yet for whom it works.
#[derive(Debug)]
pub(crate) enum Spawned {
    /// Its process waits for `initialize`.
    Stdio(stdio::Spawned),
    /// Its process may ask for work already, and gets none.
    Pull(pull::Spawned),
    /// It is started once that is known, for nobody could tell it later.
    Later(Launch),
}

/// Starts the handler, as far as it can be before it is told for whom it works.
pub(crate) fn spawn(launch: Launch) -> Result<Spawned, Failure> {
    match launch.spec.protocol {
        Protocol::Stdio => stdio::spawn(launch).map(Spawned::Stdio),
        Protocol::Pull => pull::spawn(launch).map(Spawned::Pull),
        Protocol::Exec | Protocol::Http => Ok(Spawned::Later(launch)),
    }
}

impl Spawned {
    /// Tells the handler for whom it works, and waits until it is ready.
    pub(crate) async fn initialize(self, initialize: &Initialize) -> Result<Started, Failure> {
        let deadline = |spec: &HandlerSpec| Instant::now() + Duration::from_millis(spec.start_timeout_ms());
        match self {
            Self::Stdio(spawned) => {
                let deadline = deadline(&spawned.launch.spec);
                spawned.initialize(initialize, deadline).await.map(stdio::Ready::into_started)
            }
            Self::Pull(spawned) => {
                let deadline = deadline(&spawned.launch.spec);
                spawned.asked(deadline).await
            }
            Self::Later(launch) if launch.spec.protocol == Protocol::Exec => exec::start(launch),
            Self::Later(launch) => {
                let deadline = deadline(&launch.spec);
                http::start(launch, deadline).await
            }
        }
    }

    /// Waits until its process has ended, which it should not; for ever where it has none yet.
    pub(crate) async fn ended(&self) -> Failure {
        let (exit, log) = match self {
            Self::Stdio(spawned) => (spawned.stdio.child().ended().await, &spawned.launch.log),
            Self::Pull(spawned) => (spawned.pull.child.ended().await, &spawned.launch.log),
            Self::Later(_) => std::future::pending().await,
        };
        ended_early(exit, log)
    }
}

/// What is said of a start that took too long.
pub(crate) fn too_slow(spec: &HandlerSpec, what: &str, log: &Log) -> Failure {
    let message = format!("the handler did not {what} within {} ms", spec.start_timeout_ms());
    Failure { log_tail: log.tail(), ..Failure::new(Stage::Initialize, message) }
}

/// What is said of a handler that ended instead of becoming ready.
pub(crate) fn ended_early(exit: Exit, log: &Log) -> Failure {
    let message = format!("the handler {exit} before it was ready");
    Failure { exit, log_tail: log.tail(), ..Failure::new(Stage::Initialize, message) }
}

/// What is said of a command that could not be started.
pub(crate) fn not_spawned(program: &Program, error: &std::io::Error) -> Failure {
    let message = format!("the command `{}` could not be started: {error}", program.path.display());
    Failure::new(Stage::Spawn, message)
}

/// What a handler gave as `what`, as text. What is no text is refused rather than changed.
pub(crate) fn utf8(what: &str, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!(
            "{what} is not UTF-8 from byte {at} on: write bytes that are no text to a file in `out/`, which becomes an \
             artifact"
        );
        Error::new(ErrorType::InvalidParams, message)
    })
}

/// Milliseconds since.
pub(crate) fn ms_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
