use crate::api::{Problem, ProblemKind};
use crate::domain::crew::Status;
use crate::id::AgentId;

/// Why a crew refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It was never assembled.
    #[error("the crew does not exist")]
    Unknown,
    /// It is not in a state in which this can be done.
    #[error("a crew that is {status} cannot {verb}")]
    Illegal {
        /// Where it stands.
        status: Status,
        /// What was asked.
        verb: &'static str,
    },
    /// The same key was used to assemble another crew.
    #[error("the same idempotency key was used to assemble crew `{name}` from another manifest")]
    KeyConflict {
        /// That crew's name.
        name: String,
    },
    /// The agent is not one of its own, or no longer.
    #[error("agent `{agent}` is not one of this crew's")]
    NotOurs {
        /// The agent.
        agent: AgentId,
    },
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection {
            Rejection::Unknown | Rejection::NotOurs { .. } => ProblemKind::NotFound,
            Rejection::Illegal { .. } => ProblemKind::Conflict,
            Rejection::KeyConflict { .. } => ProblemKind::KeyConflict,
        };
        Self::new(kind, rejection.to_string())
    }
}
