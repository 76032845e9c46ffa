//! The command API: what every door (HTTP, NATS, CLI) hands to the platform, and what it gets back.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::crew::BudgetRaised;
use crate::event::{Meta, Principal};
use crate::id::{AgentId, CommandId, CrewId, Digest, EntityKind, Position, TaskId, Tenant};

/// Who asks, and how the question is recognised when it is asked again.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The tenant in which the command acts.
    pub tenant: Tenant,
    /// Who asks.
    pub principal: Principal,
    /// The client's own key: the same key and content gives the first outcome.
    pub idempotency_key: Option<Arc<str>>,
    /// W3C trace context of the platform's span.
    pub traceparent: Option<Arc<str>>,
}

impl Caller {
    /// The id of the command: derived from tenant, principal and key, or fresh without a key.
    pub fn command_id(&self) -> CommandId {
        match &self.idempotency_key {
            Some(key) => CommandId::derive(&["api", self.tenant.as_str(), self.principal.as_str(), key]),
            None => CommandId::fresh(),
        }
    }

    /// The envelope of what is recorded in their name: it follows from nothing but their asking.
    pub fn meta(&self) -> Meta {
        Meta {
            tenant: self.tenant.clone(),
            principal: self.principal.clone(),
            correlation_id: None,
            causation_id: None,
            traceparent: self.traceparent.clone(),
        }
    }
}

/// How many sandboxes a pool is to have stand by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// So many, whatever happens.
    Pinned(u32),
    /// As claims call for.
    Auto,
}

/// What the platform can be asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Make a checked profile the newest version of its name.
    ProfileApply {
        /// The profile's name.
        name: String,
        /// Its specification in normal form.
        spec: Value,
        /// Its packed source, already in the artifact store.
        bundle: Option<Digest>,
    },
    /// Make a checked pool the newest version of its name, and keep it filled.
    PoolApply {
        /// The pool's name.
        name: String,
        /// Its specification in normal form.
        spec: Value,
    },
    /// Have another number of sandboxes stand by, until the pool is applied anew.
    PoolResize {
        /// The pool's name.
        name: String,
        /// The fewest; as before if absent.
        min: Option<u32>,
        /// The most; as before if absent.
        max: Option<u32>,
        /// How many, whatever happens; as before if absent.
        target: Option<Target>,
    },
    /// Have nothing stand by until the pool is applied or resized.
    PoolDrain {
        /// The pool's name.
        name: String,
        /// Why, for the log.
        reason: String,
    },
    /// Bring up a crew from a checked manifest; answers when every member is ready, or all are released.
    CrewAssemble {
        /// The crew's name, unique in the tenant while the crew lives.
        name: String,
        /// Its labels.
        labels: std::collections::BTreeMap<String, String>,
        /// Its specification in normal form.
        spec: Value,
    },
    /// Change the number of a member's replicas.
    CrewScale {
        /// The crew.
        crew: CrewId,
        /// The member.
        member: String,
        /// How many agents it is to have.
        replicas: u32,
    },
    /// Give out no tasks until resumed; what runs goes on.
    CrewPause {
        /// The crew.
        crew: CrewId,
    },
    /// Give out tasks again; a crew whose budget is used up needs more of it.
    CrewResume {
        /// The crew.
        crew: CrewId,
        /// What it may use from now on, where that changes.
        #[serde(default)]
        raised: BudgetRaised,
    },
    /// Take no new tasks, finish those in hand, then disband.
    CrewDrain {
        /// The crew.
        crew: CrewId,
        /// What is left in hand after so many milliseconds is called off.
        #[serde(default)]
        grace_ms: Option<u64>,
    },
    /// End the crew: cancel its tasks, stop its agents.
    CrewDisband {
        /// The crew.
        crew: CrewId,
        /// Why, for the log.
        reason: String,
    },
    /// End all of a crew at once, whatever its agents are doing.
    CrewKill {
        /// The crew.
        crew: CrewId,
        /// Why, for the log.
        reason: String,
    },
    /// End every crew that the tenant has at the moment, at once.
    TenantKill {
        /// The tenant, which must be the caller's.
        tenant: Tenant,
        /// Why, for the log.
        reason: String,
    },
    /// End an agent at once, whatever it is doing; it never comes back.
    AgentKill {
        /// The agent.
        agent: AgentId,
        /// Why, for the log.
        reason: String,
    },
    /// End an agent's incarnation and start the next, whatever its state.
    AgentRestart {
        /// The agent.
        agent: AgentId,
    },
    /// Keep nothing of what an agent's incarnations have written up to now.
    AgentEraseLogs {
        /// The agent.
        agent: AgentId,
    },
    /// Accept a task for a crew.
    TaskSubmit {
        /// The crew.
        crew: CrewId,
        /// The member that gets it; the crew's entry when absent.
        to: Option<String>,
        /// Content as in the handler protocol: `{"parts": […]}`.
        input: Value,
        /// Whose personal data it is about: an opaque name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// The conversation it belongs to.
        context: Option<String>,
        /// It must be finished in so many milliseconds.
        deadline_ms: Option<u64>,
    },
    /// Cancel a task, its children first.
    TaskCancel {
        /// The task.
        task: TaskId,
        /// Why, for the log and the handler.
        reason: String,
    },
    /// Try a failed or dead-lettered task again.
    TaskRetry {
        /// The task.
        task: TaskId,
    },
    /// Answer an open input request of a task.
    InputAnswer {
        /// The task.
        task: TaskId,
        /// The request's key.
        key: String,
        /// `accept` or `decline`.
        accept: bool,
        /// What was answered.
        content: Value,
    },
}

/// What a command led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// The kind of the entity.
    pub kind: EntityKind,
    /// Its id.
    pub id: String,
    /// The position to which a reader must have read to see the outcome.
    pub position: Position,
    /// The entity as it is now.
    pub body: Value,
}

/// The class of a problem; each has one HTTP status and one CLI exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request is malformed or breaks a rule that can be seen without knowing any state.
    Invalid,
    /// Who asks is not known.
    Unauthenticated,
    /// Who asks may not do this.
    Denied,
    /// The thing does not exist, or not for who asks.
    NotFound,
    /// The thing is not in a state in which this can be done.
    Conflict,
    /// The same idempotency key was used for different content.
    KeyConflict,
    /// Too much at once; try again later.
    Busy,
    /// The platform or something that it needs cannot be reached; try again later.
    Unavailable,
    /// The wait ran out; the command itself goes on.
    Timeout,
    /// It was tried and failed, for the reason given.
    Failed,
    /// A fault of the platform itself.
    Internal,
}

impl ProblemKind {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::KeyConflict | Self::Failed => 422,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }
    /// The CLI's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Invalid => 2,
            Self::Unauthenticated | Self::Denied => 3,
            Self::NotFound => 4,
            Self::Busy | Self::Unavailable | Self::Timeout => 5,
            Self::Conflict | Self::KeyConflict | Self::Failed | Self::Internal => 1,
        }
    }
    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable | Self::Timeout)
    }
    /// Its name in problem types: `urn:hypercode:problem:<name>`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::KeyConflict => "key_conflict",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Internal => "internal",
        }
    }
}

/// Why a command or query was not answered: problem details (RFC 9457) before they are put on a wire.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// Its class.
    pub kind: ProblemKind,
    /// What happened, where, and what to do.
    pub detail: String,
    /// Further faults, one each, with their places.
    pub faults: Vec<Value>,
    /// The position of the event that records the refusal, if one does.
    pub position: Option<Position>,
}

impl Problem {
    /// A problem of this class.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), faults: Vec::new(), position: None }
    }
    /// Something that does not exist.
    pub fn not_found(kind: EntityKind, id: &str) -> Self {
        Self::new(ProblemKind::NotFound, format!("{kind} `{id}` does not exist"))
    }
}

impl From<crate::store::AppendError> for Problem {
    fn from(error: crate::store::AppendError) -> Self {
        use crate::store::AppendError as E;
        let kind = match &error {
            E::WrongVersion { .. } | E::Taken { .. } => ProblemKind::Conflict,
            E::KeyConflict { .. } => ProblemKind::KeyConflict,
            E::Invalid { .. } => ProblemKind::Invalid,
            E::Full => ProblemKind::Busy,
            E::Fenced { .. } | E::Retired { .. } | E::Unavailable { .. } | E::Unknown { .. } => {
                ProblemKind::Unavailable
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl From<crate::store::ReadError> for Problem {
    fn from(error: crate::store::ReadError) -> Self {
        // What is damaged is not mended by waiting.
        let kind = match &error {
            crate::store::ReadError::Damaged { .. } => ProblemKind::Internal,
            crate::store::ReadError::Unavailable { .. } => ProblemKind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

/// The platform as every door sees it.
#[async_trait]
pub trait Commands: Send + Sync + 'static {
    /// Carries out a command. When it answers `Ok`, what it answers is durable.
    async fn execute(&self, caller: &Caller, command: Command) -> Result<Reply, Problem>;
}
