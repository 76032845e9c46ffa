//! Durable state.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Id, misfit};

/// Who shares a state value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The agent alone, through all its incarnations.
    #[default]
    Agent,
    /// Whoever works in the context.
    Context,
    /// The whole crew.
    Crew,
}

/// `state/put`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatePut {
    /// The key.
    pub key: String,
    /// At most 64 KiB of JSON.
    pub value: Value,
    /// Who shares it.
    #[serde(default, deserialize_with = "misfit::word")]
    pub scope: Scope,
    /// Refused with `version_conflict` if the value has another version; 0 = no value yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// Which context, for the scope context: that of this task in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Id>,
}

/// Result of `state/put`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateStored {
    /// The value's version now, from 1.
    pub version: u64,
}

/// `state/get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateGet {
    /// The key.
    pub key: String,
    /// Who shares it.
    #[serde(default, deserialize_with = "misfit::word")]
    pub scope: Scope,
    /// Which context, for the scope context: that of this task in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Id>,
}

/// Result of `state/get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateGot {
    /// The value.
    pub value: Value,
    /// Its version.
    pub version: u64,
}
