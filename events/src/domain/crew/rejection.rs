use crate::api::{Problem, ProblemKind};
use crate::domain::crew::{Resource, Status};
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
    /// Its budget is used up.
    #[error("the crew has used {used} of {limit} {what}; resume it with a higher limit")]
    Spent {
        /// What is used up.
        what: Resource,
        /// How much of it was used when that was noticed.
        used: u64,
        /// How much of it the crew may use.
        limit: u64,
    },
    /// A limit that was to be raised is no higher than before.
    #[error("the crew may use {} {what} already; give a higher limit", limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string()))]
    NoRaise {
        /// Of what.
        what: Resource,
        /// The limit now; none where it is not limited.
        limit: Option<u64>,
    },
    /// The agent was killed.
    #[error("agent `{agent}` was {killed}; it does not come back: scale its member to have another")]
    Killed {
        /// The agent.
        agent: AgentId,
        /// By whom, and why.
        killed: String,
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
            Rejection::Illegal { .. } | Rejection::Spent { .. } | Rejection::Killed { .. } => {
                ProblemKind::Conflict
            }
            Rejection::NoRaise { .. } => ProblemKind::Invalid,
            Rejection::KeyConflict { .. } => ProblemKind::KeyConflict,
        };
        Self::new(kind, rejection.to_string())
    }
}
