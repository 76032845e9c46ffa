//! What queries answer with, and by what they search.

use serde::Serialize;

use crate::domain::message::{MessageId, Sent};
use crate::domain::profile::Applied;
use crate::domain::spending::Spent;
use crate::domain::{agent, crew, pool, task};
use crate::event::Principal;
use crate::id::{AgentId, CrewId, Incarnation, PoolId, Position, TaskId, Tenant, Timestamp};

/// When something began to be, and when it last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifespan {
    /// The position of its first event.
    pub created: Position,
    /// The time of its first event.
    pub created_at: Timestamp,
    /// The position of its last event.
    pub updated: Position,
    /// The time of its last event.
    pub updated_at: Timestamp,
}

/// A crew.
#[derive(Clone, Debug, PartialEq)]
pub struct CrewView {
    /// Its id.
    pub id: CrewId,
    /// When.
    pub lifespan: Lifespan,
    /// What its events made of it.
    pub state: crew::State,
    /// Agents of it that are ready.
    pub agents_ready: u32,
    /// Tasks of it that have not ended.
    pub tasks_open: u32,
    /// What it has used up.
    pub spent: Spent,
}

/// An agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// When.
    pub lifespan: Lifespan,
    /// What its events made of it.
    pub state: agent::State,
    /// Its live attempts: it is busy if there are any.
    pub attempts_live: u32,
    /// Those of them whose task waits for an answer from outside.
    pub attempts_waiting: u32,
}

impl AgentView {
    /// Where it stands as people see it: `busy` and `waiting` are a ready agent's live attempts.
    pub fn activity(&self) -> &'static str {
        match (self.state.status, self.attempts_live, self.attempts_waiting) {
            (agent::Status::Ready, live, waiting) if live > waiting => "busy",
            (agent::Status::Ready, live, _) if live > 0 => "waiting",
            (status, ..) => status.as_str(),
        }
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// When.
    pub lifespan: Lifespan,
    /// What its events made of it.
    pub state: task::State,
}

/// One try at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// Its number: 1, 2, 3 …
    pub number: u32,
    /// Its fence.
    pub fence: u64,
    /// Who had it.
    pub agent: AgentId,
    /// In which of its lives.
    pub incarnation: Incarnation,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended: `completed`, `parked`, or the reason; absent while it is live.
    pub outcome: Option<String>,
    /// What was seen.
    pub detail: Option<String>,
}

/// A message and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageView {
    /// The position of its event.
    pub position: Position,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// The message.
    pub sent: Sent,
    /// What became of it at each recipient.
    pub deliveries: Vec<Delivery>,
}

/// What became of a message at one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// An agent, or `member:` and the member whose next ready agent gets it.
    pub recipient: String,
    /// `pending`, `taken`, `unhandled` or `dead_lettered`.
    pub status: String,
    /// The agent that took it, or why it was given up.
    pub detail: Option<String>,
    /// Since when.
    pub at: Timestamp,
}

/// A warm pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// Its id.
    pub id: PoolId,
    /// When.
    pub lifespan: Lifespan,
    /// What its events made of it.
    pub state: pool::State,
}

/// One version of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileView {
    /// The position of its event.
    pub position: Position,
    /// When it was applied.
    pub applied_at: Timestamp,
    /// The version.
    pub applied: Applied,
}

/// How an audited event came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it was meant.
    Ok,
    /// Something broke or was given up.
    Failed,
    /// Something was not allowed.
    Denied,
}

impl Outcome {
    /// Its name in tables and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Denied => "denied",
        }
    }
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// The event's position.
    pub position: Position,
    /// When it was decided.
    pub recorded_at: Timestamp,
    /// In which tenant.
    pub tenant: Tenant,
    /// Who did it.
    pub principal: Principal,
    /// What happened.
    pub kind: String,
    /// To what: its stream.
    pub entity: String,
    /// In which crew.
    pub crew: Option<String>,
    /// What it belongs together with.
    pub correlation: Option<String>,
    /// What caused it.
    pub causation: Option<String>,
    /// `ok`, `failed` or `denied`.
    pub outcome: String,
    /// What happened, for a person.
    pub summary: String,
}

/// By what crews are searched.
#[derive(Clone, Debug, Default)]
pub struct CrewFilter {
    /// Its name.
    pub name: Option<String>,
    /// Where it stands.
    pub status: Option<crew::Status>,
}

/// By what agents are searched.
#[derive(Clone, Debug, Default)]
pub struct AgentFilter {
    /// Its crew.
    pub crew: Option<CrewId>,
    /// Its member.
    pub member: Option<String>,
    /// Where it stands.
    pub status: Option<agent::Status>,
}

/// By what tasks are searched.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Its crew.
    pub crew: Option<CrewId>,
    /// The member that gets it.
    pub member: Option<String>,
    /// The task that waits for it.
    pub parent: Option<TaskId>,
    /// The conversation that it belongs to.
    pub context: Option<String>,
    /// Where it stands.
    pub status: Option<task::Status>,
}

/// By what messages are searched.
#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    /// Its crew.
    pub crew: Option<CrewId>,
    /// Who sent it.
    pub sender: Option<AgentId>,
    /// Which message.
    pub message: Option<MessageId>,
}

/// By what the audit is searched.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// The stream, such as `task/tk_…`.
    pub entity: Option<String>,
    /// The crew.
    pub crew: Option<CrewId>,
    /// The kind.
    pub kind: Option<String>,
    /// Who did it.
    pub principal: Option<Principal>,
    /// What it belongs together with.
    pub correlation: Option<String>,
    /// How it came out.
    pub outcome: Option<Outcome>,
}
