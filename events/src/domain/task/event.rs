//! What happens to a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Answer;
use super::retry::{Ended, RetryPolicy};
use crate::domain::spending::Usage;
use crate::id::{AgentId, CrewId, Digest, Incarnation, TaskId, Tenant};

crate::domain_events! {
    /// What happens to a task.
    pub enum Event {
        "task_submitted" v 1 => Submitted,
        "attempt_started" v 1 => AttemptStarted,
        "attempt_ended" v 1 => AttemptEnded,
        "task_progressed" v 1 => Progressed,
        "task_checkpointed" v 1 => Checkpointed,
        "child_delegated" v 1 => ChildDelegated,
        "input_requested" v 1 => InputRequested,
        "input_answered" v 1 => InputAnswered,
        "cancel_requested" v 1 => CancelRequested,
        "task_completed" v 1 => Completed,
        "task_failed" v 1 => Failed,
        "task_canceled" v 1 => Canceled,
        "task_rejected" v 1 => Rejected,
        "task_dead_lettered" v 1 => DeadLettered,
        "task_retried" v 1 => Retried,
        "result_refused" v 1 => ResultRefused,
        "usage_reported" v 1 => UsageReported,
    }
}

/// A task was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// The task.
    pub task: TaskId,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its crew.
    pub crew: CrewId,
    /// The member that gets it.
    pub member: String,
    /// The replica that gets it; any when absent.
    pub replica: Option<u32>,
    /// What is to be done: content as in the handler protocol.
    pub input: Value,
    /// Whose personal data it is about: an opaque name, sealed in what is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The conversation that it belongs to.
    pub context: String,
    /// Who wants it: `user:…` or `agent:…`.
    pub from: String,
    /// The sender's member, if it is an agent.
    pub from_member: Option<String>,
    /// The task that waits for it.
    pub parent: Option<TaskId>,
    /// How many tasks wait above it.
    pub depth: u32,
    /// When it must be finished, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<i64>,
    /// How long one attempt may take, in milliseconds.
    pub attempt_timeout_ms: Option<u64>,
    /// How often it is tried again.
    pub retry: RetryPolicy,
    /// The digest of the request, to tell a repetition from a different request under the same key.
    pub request_digest: Digest,
    /// W3C trace context of the request, in which all that is done for the task goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// An agent has it in hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptStarted {
    /// The attempt's number.
    pub attempt: u32,
    /// Its fence.
    pub fence: u64,
    /// The agent.
    pub agent: AgentId,
    /// The agent's incarnation.
    pub incarnation: Incarnation,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// An attempt came to nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptEnded {
    /// The attempt's number.
    pub attempt: u32,
    /// Its fence.
    pub fence: u64,
    /// How it ended.
    pub ended: Ended,
    /// What was seen.
    pub detail: String,
    /// When the next may start, in milliseconds since the Unix epoch; absent if there is none.
    pub retry_at_ms: Option<i64>,
}

/// The handler said how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progressed {
    /// What it said.
    pub message: Option<String>,
    /// How far.
    pub progress: Option<f64>,
    /// Of how much.
    pub total: Option<f64>,
}

/// The handler wrote down what the next attempt is to go on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpointed {
    /// The attempt's number.
    pub attempt: u32,
    /// What it wrote down.
    pub data: Value,
}

/// The handler asked for a child task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildDelegated {
    /// The key that makes it the same in every attempt.
    pub key: String,
    /// The child.
    pub child: TaskId,
    /// The digest of what was asked.
    pub digest: Digest,
    /// The member or agent that was asked.
    pub to: String,
}

/// A question is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputRequested {
    /// Its key.
    pub key: String,
    /// What is asked.
    pub request: Value,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<i64>,
    /// Whether the attempt is parked until the answer is there.
    pub parks: bool,
}

/// A question was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputAnswered {
    /// Its key.
    pub key: String,
    /// The answer.
    pub answer: Answer,
}

/// It is being called off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelRequested {
    /// Why.
    pub reason: String,
    /// Whether only because its parent is over or no longer wants it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_parent: bool,
}

/// It is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// The attempt that did it.
    pub attempt: u32,
    /// Its fence.
    pub fence: u64,
    /// What came out: content.
    pub output: Value,
    /// The artifacts that came out: a list.
    pub artifacts: Value,
}

/// It cannot be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// Why.
    pub message: String,
}

/// It was called off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canceled {
    /// Why.
    pub reason: String,
}

/// The handler would not do it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Why.
    pub message: String,
}

/// It was tried as often as allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLettered {
    /// How the last attempt ended.
    pub ended: Ended,
    /// What was seen then.
    pub message: String,
}

/// Somebody had it tried again although it had ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retried {}

/// A result came under a fence that is no longer the newest (TK-2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultRefused {
    /// The attempt that it was for.
    pub attempt: u32,
    /// The fence under which it came.
    pub fence: u64,
    /// The newest fence.
    pub newest: u64,
}

/// A handler said what it used of models since it last said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReported {
    /// The crew that it counts for.
    pub crew: CrewId,
    /// The agent that said so.
    pub agent: AgentId,
    /// What it used, by model; models that it did not name are under the empty name.
    pub models: BTreeMap<String, Usage>,
}

impl UsageReported {
    /// What it used in all.
    pub fn total(&self) -> Usage {
        self.models.values().fold(Usage::default(), |total, usage| total.and(*usage))
    }
}
