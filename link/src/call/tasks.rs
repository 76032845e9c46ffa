//! Checkpoints and delegated tasks.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Address, Artifact, Content, Error, Id, handler::State};

/// `task/checkpoint`: durable, given to the next attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// The task in hand.
    pub task_id: Id,
    /// At most 64 KiB of JSON.
    pub data: Value,
}

/// Result of `task/checkpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpointed {
    /// Where its event is in the log.
    pub position: u64,
}

/// `task/delegate`: have another member do a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delegate {
    /// The task in hand: the child's parent.
    pub task_id: Id,
    /// Who shall do it.
    pub to: Address,
    /// What to do.
    pub input: Content,
    /// Same (taskId, key), same child, also in a later attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether to answer only when the child has ended.
    #[serde(default = "yes")]
    pub wait: bool,
    /// How long the child may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The caller's own annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Which of identical calls of its attempt it is, from 1. The runner says so in its frame, never a handler here.
    #[serde(skip)]
    pub repeat: Option<u32>,
}

fn yes() -> bool {
    true
}

/// How a delegated task stands. A child that failed is a result with state failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Child {
    /// The child.
    pub task_id: Id,
    /// How it stands.
    pub state: State,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "output_with_text")]
    pub output: Option<Content>,
    /// Files that came out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

fn output_with_text<S: serde::Serializer>(
    output: &Option<Content>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match output {
        Some(content) => Content::serialize_with_text(content, serializer),
        None => serializer.serialize_none(),
    }
}

/// Which of several tasks to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AwaitMode {
    /// Every one of them.
    #[default]
    All,
    /// The first that ends.
    Any,
}

/// `task/await`: wait for own children.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Await {
    /// The children.
    pub task_ids: Vec<Id>,
    /// Which of them.
    #[serde(default, deserialize_with = "crate::misfit::word")]
    pub mode: AwaitMode,
    /// How long to wait at most; then as they stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Result of `task/await`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Awaited {
    /// The children, in the order asked.
    pub tasks: Vec<Child>,
}

/// `task/cancel`, handler to platform: cancel an own child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelChild {
    /// The child.
    pub task_id: Id,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Result of `task/cancel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canceled {
    /// How the child stands now.
    pub state: State,
}
