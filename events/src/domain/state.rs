//! State: the values that agents keep under keys. No entity folds them: the gateway does, and projections.
//!
//! The values of one scope lie in `state/<scope>.<id>`.

use serde::{Deserialize, Serialize};

use super::message::{Body, Party};
use crate::id::CrewId;

crate::domain_events! {
    /// What happens to the values of a scope.
    pub enum Event {
        "state_put" v 1 => Put,
    }
}

/// Who shares a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One agent, through all its lives.
    Agent,
    /// Whoever works in a conversation.
    Context,
    /// A whole crew.
    Crew,
}

/// A value was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Put {
    /// The crew.
    pub crew: CrewId,
    /// Who shares the value.
    pub scope: Scope,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Body,
    /// Its version: 1, 2, 3 …
    pub version: u64,
    /// Who wrote it: stamped by the platform.
    pub by: Party,
    /// The tasks that the writer had in hand: whose personal data it may hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_hand: Vec<String>,
}
