//! The kill switch: what somebody decided to end at once, and for ever.

use serde::{Deserialize, Serialize};

use crate::event::Principal;

/// An agent, or all of a crew, is ended at once by somebody's decision, whatever it is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// Who decided it.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

impl std::fmt::Display for Killed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "killed by {}: {}", self.by, self.reason)
    }
}
