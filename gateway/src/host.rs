//! What the gateway asks of the platform behind it: the owner of crews, agents and tasks.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use events::domain::message::Recipient;
use events::{AgentId, CommandId, CrewId, Incarnation, SandboxId, TaskId, Tenant};
use identity::Bearer;

/// What led to what an agent does, for the events of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The event that it follows from: `<entity>/<id>@<version>`.
    pub event: Arc<str>,
    /// The command of a user that it goes back to.
    pub correlation: Option<Arc<str>>,
}

/// Who a link is, once its sandbox is an agent's. Everything that a link says is stamped with it (law CH-3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The tenant.
    pub tenant: Tenant,
    /// The crew.
    pub crew: CrewId,
    /// The member's name.
    pub member: String,
    /// The ordinal among the member's replicas, from 0.
    pub replica: u32,
    /// The agent.
    pub agent: AgentId,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// The sandbox, which serves this incarnation and no other (law SB-1).
    pub sandbox: SandboxId,
    /// What put the agent there: all follows from it that it does for no task.
    pub origin: Origin,
}

impl Peer {
    /// Whether this is the same life in the same sandbox, whatever it was that put it there.
    pub(crate) fn is(&self, other: &Self) -> bool {
        *self == Self { origin: self.origin.clone(), ..other.clone() }
    }

    /// Whom a token must be of that this peer shows.
    pub(crate) fn bearer(&self) -> Bearer {
        Bearer {
            tenant: self.tenant.clone(),
            crew: self.crew.clone(),
            agent: self.agent.clone(),
            incarnation: self.incarnation,
            sandbox: self.sandbox.clone(),
        }
    }
}

/// A task that a runner has in hand: what the gateway needs to judge what is done in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldTask {
    /// The task.
    pub task: TaskId,
    /// Which try.
    pub attempt: u32,
    /// The fence of that try: a try that waited for answers goes on under another one.
    pub fence: u64,
    /// How many delegations and messages lie above it.
    pub depth: u32,
    /// The conversation that it belongs to.
    pub context: String,
    /// W3C trace context of the platform's span, as it was given with the task.
    pub traceparent: Option<String>,
    /// What gave it to the runner; `None` if that was known only to an earlier run of the platform.
    pub origin: Option<Origin>,
}

/// The answer to a runner's `hello`.
#[derive(Clone, Debug, Default)]
pub struct Linked {
    /// How often the runner shall send a heartbeat.
    pub heartbeat_ms: u64,
    /// Attempts that the runner holds and that are fenced: it shall stop them.
    pub drop: Vec<link::TaskRef>,
    /// Attempts that the runner holds and that are current.
    pub held: Vec<HeldTask>,
    /// What to assign right after the welcome; the sandbox's peer is bound by then.
    pub assign: Option<Box<link::Assign>>,
    /// The handler to start while nobody has claimed the sandbox.
    pub prestart: Option<Box<link::Prestart>>,
}

/// A sign of life that the watchdog goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// The handler sent something: a call, a note, an acknowledgement, a result.
    Frame,
    /// A call of the handler waits for its answer from now on.
    CallStarted,
    /// A call of the handler was answered.
    CallEnded,
    /// So many bytes moved through a door.
    Bytes(u64),
}

/// A request of a handler that the platform answers; parsed, within limits, its task in hand.
#[derive(Clone, Debug, PartialEq)]
pub enum HostCall {
    /// `task/delegate`. A channel allows it.
    Delegate {
        /// The request.
        call: link::Delegate,
        /// The receiving member.
        member: String,
        /// The receiving agent, where the address names one.
        agent: Option<AgentId>,
        /// The child's depth: its parent's and one.
        depth: u32,
        /// How many children the parent may have open over this channel at once. The gateway counts the calls that
        /// wait; children that nobody waits for are the host's to count.
        fan_out: u32,
    },
    /// `task/await`.
    Await(link::Await),
    /// `task/cancel` of an own child.
    CancelChild(link::CancelChild),
    /// `task/checkpoint`.
    Checkpoint(link::Checkpoint),
    /// `input/request`.
    InputRequest(link::InputRequest),
}

/// A process, by the kernel's word: `SO_PEERCRED` (unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, as the platform sees it.
    pub pid: u32,
    /// Its user, as the platform sees it.
    pub uid: u32,
}

/// The platform behind the gateway.
///
/// Upcalls about one sandbox come in the order of its frames, except that calls run beside each other. None of them may
/// block: what takes long is awaited, and a dropped future (its sandbox was closed) must leave nothing half-done.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Whether the process at the other end of a new connection to the sandbox's socket is of the sandbox; `None` where that
    /// cannot be told, which lets nobody in and accuses nobody.
    async fn admits(&self, sandbox: &SandboxId, process: Process) -> Option<bool>;
    /// A runner said `hello` on its sandbox's socket. `assigned`: it holds the token of its assignment.
    ///
    /// Errors: `unavailable` closes the link so that the runner tries again; any other says that the sandbox's
    /// incarnation is over, and the runner ends.
    async fn linked(
        &self,
        sandbox: &SandboxId,
        hello: &link::Hello,
        assigned: bool,
    ) -> Result<Linked, link::Error>;
    /// The handler takes work. Comes again after every reconnect.
    async fn ready(&self, sandbox: &SandboxId, ready: link::Ready);
    /// The handler could not be started.
    async fn failed(&self, sandbox: &SandboxId, failed: link::Failed);
    /// The handler ended by itself.
    async fn exited(&self, sandbox: &SandboxId, exited: link::Exited);
    /// The handler is gone after a `drain`.
    async fn drained(&self, sandbox: &SandboxId);
    /// The runner refused the frame `re` (such as a `task`).
    async fn refused(&self, sandbox: &SandboxId, re: link::Id, error: link::Error);
    /// A heartbeat. Must be cheap.
    fn heartbeat(&self, sandbox: &SandboxId, beat: &link::Heartbeat);
    /// A sign of life. Must be cheap.
    fn activity(&self, sandbox: &SandboxId, what: Activity);
    /// The link ended. The sandbox may live on, and its runner may come back.
    fn link_lost(&self, sandbox: &SandboxId, reason: &str);
    /// An attempt ended. `Ok` says that it is durable, and the runner forgets it; an error says why it is refused
    /// (`fenced`, `already_final`), and the runner forgets it too, unless it is `unavailable`: then it comes again.
    async fn task_result(
        &self,
        peer: &Peer,
        command: CommandId,
        result: link::TaskResultFrame,
    ) -> Result<(), link::Error>;
    /// A request of the handler; may stay pending for long. The same command id is the same request, sent again.
    async fn call(&self, peer: &Peer, command: CommandId, call: HostCall) -> Result<Value, link::Error>;
    /// A message is accepted for these recipients. Must be cheap.
    fn posted(&self, crew: &CrewId, recipients: &[Recipient]);
    /// An agent wanted to send a message although the crew had sent as many as its policy lets it.
    async fn messages_spent(&self, peer: &Peer, sent: u64);
    /// An agent's frames named their own sender, so many within a minute: more than its policy lets pass as a mistake.
    async fn spoofed(&self, peer: &Peer, times: u32);
    /// A notification of the handler.
    async fn note(&self, peer: &Peer, note: link::Note);
}
