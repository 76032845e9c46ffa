//! Tools.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Id;

/// `tool/list`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolList {}

/// `tool/call`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolCall {
    /// The task in hand.
    pub task_id: Id,
    /// The tool's server.
    pub server: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Value,
    /// Same (taskId, key), same call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
