use crate::api::{Problem, ProblemKind};
use crate::domain::task::Status;

/// Why a task refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It was never submitted.
    #[error("the task does not exist")]
    Unknown,
    /// The command comes from an attempt that is no longer the live one (TK-2).
    #[error("the attempt with fence {found} is not the live one; the newest fence is {newest}")]
    Fenced {
        /// Named by the command.
        found: u64,
        /// The newest.
        newest: u64,
    },
    /// It has ended.
    #[error("the task is {status} already")]
    Final {
        /// How.
        status: Status,
    },
    /// It is not in a state in which this can be done.
    #[error("a task that is {status} cannot {verb}")]
    Illegal {
        /// Where it stands.
        status: Status,
        /// What was asked.
        verb: &'static str,
    },
    /// The same key was used for something else.
    #[error("the key `{key}` was used before for something else")]
    KeyConflict {
        /// The key.
        key: String,
    },
    /// The key of its data subject was destroyed, and with it what was to be done.
    #[error("what the task was about was erased; nobody can do it again")]
    Erased,
    /// No question of this name is open.
    #[error("no question `{key}` is open")]
    NoQuestion {
        /// The key.
        key: String,
    },
    /// It has had another child since it was found that it may have one more.
    #[error("the task was given another child in between; ask again")]
    Overtaken,
    /// It has as many of them as it may.
    #[error("the task has {most} {what} already, the most that are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection {
            Rejection::Unknown | Rejection::NoQuestion { .. } => ProblemKind::NotFound,
            Rejection::KeyConflict { .. } => ProblemKind::KeyConflict,
            Rejection::TooMany { .. } => ProblemKind::Busy,
            Rejection::Fenced { .. }
            | Rejection::Final { .. }
            | Rejection::Illegal { .. }
            | Rejection::Overtaken
            | Rejection::Erased => ProblemKind::Conflict,
        };
        Self::new(kind, rejection.to_string())
    }
}
