//! What the parts of the runner tell its core, and the handle by which they do.

use std::sync::{Arc, OnceLock};

use link::{Error, ErrorType, Id, handler::Executed};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::{
    carrier::{Failure, pull::Pull},
    child::Exit,
    setup::Running,
    uplink::Uplink,
};

/// Events that may wait for the core; whoever makes more of them waits.
pub(crate) const EVENTS_MAX: usize = 256;

/// The answer to a call, once it is there.
pub(crate) type Answer = oneshot::Receiver<Result<Value, Error>>;

/// Something that the core must know.
#[derive(Debug)]
pub(crate) enum Event {
    /// A link, or what came over it, or its end.
    Uplink(Uplink),
    /// The handler is ready, or could not be started.
    Started(Box<Result<Running, Failure>>),
    /// The process of a handler is up, before it is known for whom.
    Ahead,
    /// The handler calls a method of the platform.
    Call(Call),
    /// An attempt ended.
    Finished(Id, u32, Box<Result<Executed, Error>>),
    /// The handler took a message, or did not.
    Delivered(Id, Result<(), Error>),
    /// The grace of a cancelled attempt is over.
    GraceOver(Id, u32),
    /// The handler says by itself that it is busy, or that it moves.
    Alive(Alive),
    /// The handler was asked whether it lives, or answered.
    Ping(Ping),
    /// The handler did what the protocol does not foresee: recorded, never fatal.
    Oddity(&'static str, String),
    /// The handler's process ended by itself.
    Exited(Exit),
    /// The handler is gone, as it was told to.
    Stopped,
}

/// A call or a note of the handler.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its method.
    pub(crate) method: String,
    /// Its params.
    pub(crate) params: Value,
    /// The task it belongs to, where the transport says so.
    pub(crate) task: Option<Id>,
    /// Where the answer goes.
    pub(crate) answer: oneshot::Sender<Result<Value, Error>>,
}

/// What an `http` handler's health check says of all tasks in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alive {
    /// It is busy for this long at least.
    BusyMs(u64),
    /// It made progress.
    Progress,
}

/// A question whether the handler lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ping {
    /// Asked.
    Asked,
    /// Answered.
    Answered,
}

/// The handler's side of the runner: how carriers and the local API reach the core. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    events: mpsc::Sender<Event>,
    pull: Arc<OnceLock<Arc<Pull>>>,
}

impl Platform {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, pull: Arc::default() }
    }

    /// Makes a carrier known whose handler fetches its work at the local API.
    pub(crate) fn offer_pull(&self, pull: Arc<Pull>) {
        // There is one handler in the life of a sandbox.
        let _ = self.pull.set(pull);
    }

    /// The carrier whose handler fetches its work, if it is one.
    pub(crate) fn pull(&self) -> Option<&Pull> {
        self.pull.get().map(Arc::as_ref)
    }

    /// Tells the core; waits while it has too much to do.
    pub(crate) async fn tell(&self, event: Event) {
        // The core is gone only when the runner ends.
        let _ = self.events.send(event).await;
    }

    /// Hands a call over, in the order of the callers; its answer comes later.
    pub(crate) async fn submit(&self, method: String, params: Value, task: Option<Id>) -> Answer {
        let (answer, receiver) = oneshot::channel();
        self.tell(Event::Call(Call { method, params, task, answer })).await;
        receiver
    }

    /// Makes a call and waits for its answer.
    pub(crate) async fn call(&self, method: String, params: Value, task: Option<Id>) -> Result<Value, Error> {
        answered(self.submit(method, params, task).await).await
    }

    /// Records that the handler did something odd.
    pub(crate) async fn oddity(&self, kind: &'static str, detail: String) {
        self.tell(Event::Oddity(kind, detail)).await;
    }
}

/// Waits for an answer.
pub(crate) async fn answered(answer: Answer) -> Result<Value, Error> {
    answer.await.unwrap_or_else(|_| Err(Error::new(ErrorType::Unavailable, "the runner is ending")))
}
