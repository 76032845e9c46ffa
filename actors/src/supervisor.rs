//! A supervisor on ractor: starts its children in order, restarts them by [`Policy`], stops them in reverse order.
//!
//! ractor links a parent with its children, catches panics and reports exits; who is restarted, when, and how
//! often is decided here, by the same [`events::supervision`] that decides for agents in sandboxes. As in OTP
//! the supervisor does one thing at a time: while it stops or starts children, further exits wait their turn
//! (waits between stopping and starting are timers, and hold nothing up). A child should therefore start fast
//! and load what it needs in `post_start`, which runs in its own task.
//!
//! Nothing here uses ractor's registry of names, and all time is tokio's, so a paused clock works.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use events::supervision::{Budget, ChildKind, Exit, Policy};

mod children;
mod counters;
mod exit;
mod journal;
mod runtime;

pub use counters::Counters;
pub use journal::{Entry, Journal, JournalError};

use counters::Tally;
use runtime::{Message, Supervisor};

/// The name of a child among its siblings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChildId(Arc<str>);

impl ChildId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for ChildId {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A child on its way up.
pub type Starting = Pin<Box<dyn Future<Output = Result<ActorCell, ActorProcessingErr>> + Send>>;

/// How a child is started, each time anew.
#[derive(Clone)]
pub struct ChildSpec {
    id: ChildId,
    kind: ChildKind,
    stop_ms: Option<u64>,
    start: Arc<dyn Fn(ActorCell) -> Starting + Send + Sync>,
}

impl ChildSpec {
    /// A child that `start` spawns, *linked* to the supervisor's cell that it is given (`Actor::spawn_linked`);
    /// the exit of an actor that is not linked goes unseen.
    pub fn new<F, S>(id: impl Into<ChildId>, kind: ChildKind, start: F) -> Self
    where
        F: Fn(ActorCell) -> S + Send + Sync + 'static,
        S: Future<Output = Result<ActorCell, ActorProcessingErr>> + Send + 'static,
    {
        Self { id: id.into(), kind, stop_ms: None, start: Arc::new(move |parent| Box::pin(start(parent))) }
    }

    /// Gives the child longer, or less long, than [`Limits::stop_ms`]. A supervisor needs as long as its children
    /// together.
    pub fn stop_ms(self, stop_ms: u64) -> Self {
        Self { stop_ms: Some(stop_ms), ..self }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The bounds on what a supervisor waits for and keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a child may take to start before that counts as a start that failed.
    pub start_ms: u64,
    /// How long a child may take to stop before it is killed.
    pub stop_ms: u64,
    /// How long to wait for a killed child. It takes the kill when it next awaits; one that never does is left to
    /// its fate, and the log says so.
    pub kill_ms: u64,
    /// Calls through [`Handle`]s that may wait at once; more wait before the mailbox.
    pub calls_max: usize,
    /// Journal entries that may wait to be recorded; further ones are lost, and counted.
    pub journal_entries_max: usize,
    /// How often an entry is tried before it is lost, and counted; at least 1.
    pub journal_attempts_max: u32,
    /// How long one try may take.
    pub journal_attempt_ms: u64,
    /// The pause between two tries.
    pub journal_pause_ms: u64,
    /// How long a stopping supervisor waits for its last entries; they go on being tried after that.
    pub journal_flush_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start_ms: 30_000,
            stop_ms: 5_000,
            kill_ms: 1_000,
            calls_max: 1_024,
            journal_entries_max: 1_024,
            journal_attempts_max: 5,
            journal_attempt_ms: 5_000,
            journal_pause_ms: 200,
            journal_flush_ms: 2_000,
        }
    }
}

/// What a supervisor is made of.
pub struct Options {
    /// Who is restarted, and how often.
    pub policy: Policy,
    /// Bounds on time and memory.
    pub limits: Limits,
    /// What was spent of the restarts before: folded from the journal by its owner, or empty.
    pub budget: Budget<ChildId>,
    /// Now, on the clock of which `budget` and the journal's entries speak; the supervisor counts on from here.
    pub now_ms: u64,
    /// Where the jitter of waits starts; two supervisors should not share it.
    pub seed: u64,
    /// Where its decisions are recorded.
    pub journal: Arc<dyn Journal>,
    /// Started at once, in this order.
    pub children: Vec<ChildSpec>,
}

impl Options {
    /// A supervisor without children, with default limits and nothing spent.
    pub fn new(policy: Policy, journal: Arc<dyn Journal>) -> Self {
        Self {
            policy,
            limits: Limits::default(),
            budget: Budget::default(),
            now_ms: 0,
            seed: 0,
            journal,
            children: Vec::new(),
        }
    }
}

/// Why a supervisor did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It has ended, or ended while the call was under way.
    #[error("reach the supervisor: it has stopped")]
    Stopped,
    /// A sibling has this name.
    #[error("add child `{0}`: the supervisor has a child of this name")]
    Duplicate(ChildId),
    /// The child did not come up; it was not added.
    #[error("start child `{child}`: {detail}")]
    StartFailed {
        /// The child.
        child: ChildId,
        /// What its start said.
        detail: String,
    },
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// It is up.
    Up,
    /// It will be started when its wait is over.
    Waiting,
    /// It ended, and is started again only together with its siblings.
    Down,
    /// It spent the restart budget, and stays down.
    Quarantined,
}

/// Starts a supervisor that has no parent.
///
/// It answers when the supervisor is up; its first children may still be starting.
pub async fn spawn(options: Options) -> Result<Handle, SpawnErr> {
    let (supervisor, handle) = Supervisor::new(&options);
    let (actor, _) = ractor::Actor::spawn(None, supervisor, options).await?;
    Ok(handle.bind(actor))
}

/// Starts a supervisor as a child of another actor, for use in the parent's [`ChildSpec::new`].
pub async fn spawn_under(parent: ActorCell, options: Options) -> Result<(Handle, ActorCell), SpawnErr> {
    let (supervisor, handle) = Supervisor::new(&options);
    let (actor, _) = ractor::Actor::spawn_linked(None, supervisor, options, parent).await?;
    let cell = actor.get_cell();
    Ok((handle.bind(actor), cell))
}

/// What a handle knows before its supervisor runs.
struct Unbound {
    calls: Arc<Semaphore>,
    tally: Arc<Tally>,
}

impl Unbound {
    fn bind(self, actor: ActorRef<Message>) -> Handle {
        Handle { actor, calls: self.calls, tally: self.tally }
    }
}

/// A running supervisor. Cheap to clone; dropping it stops nothing.
#[derive(Clone)]
pub struct Handle {
    actor: ActorRef<Message>,
    calls: Arc<Semaphore>,
    tally: Arc<Tally>,
}

impl Handle {
    /// Starts a child, after all others in the start order, and keeps it. A child that does not come up is not kept.
    pub async fn add(&self, child: ChildSpec) -> Result<(), Error> {
        self.call(|reply| Message::Add(child, reply)).await?
    }

    /// Stops a child and forgets it. False: there is none of this name.
    pub async fn remove(&self, child: ChildId) -> Result<bool, Error> {
        self.call(|reply| Message::Remove(child, reply)).await
    }

    /// Ends a running child (by force where it does not stop) and treats it as if it had ended so by itself. This is
    /// how the finding that a child is [hung](Exit::Hung) becomes a restart. False: no child of this name is up.
    pub async fn replace(&self, child: ChildId, exit: Exit) -> Result<bool, Error> {
        self.call(|reply| Message::Replace(child, exit, reply)).await
    }

    /// The children in start order.
    pub async fn children(&self) -> Result<Vec<(ChildId, ChildState)>, Error> {
        self.call(Message::List).await
    }

    /// What has happened so far. Stays readable when the supervisor has ended.
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }

    /// Stops the children in reverse order and then the supervisor. After `bound_ms` all that is left is killed, and
    /// the answer is false.
    pub async fn stop(&self, bound_ms: u64) -> bool {
        self.actor.stop(None);
        if self.stopped(bound_ms).await {
            return true;
        }
        self.actor.kill();
        false
    }

    /// Waits, at most for `bound_ms`, until the supervisor has ended, by itself or not. Whether it has.
    pub async fn stopped(&self, bound_ms: u64) -> bool {
        self.actor.wait(Some(Duration::from_millis(bound_ms))).await.is_ok()
    }

    async fn call<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> Message,
    ) -> Result<T, Error> {
        let _permit = self.calls.acquire().await.map_err(|_| Error::Stopped)?;
        match self.actor.call(message, None).await {
            Ok(ractor::rpc::CallResult::Success(answer)) => Ok(answer),
            _ => Err(Error::Stopped),
        }
    }
}
