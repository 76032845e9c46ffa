//! Postgres' errors in the words of the seam, mapped once.

use std::sync::Arc;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::Database;
use crate::id::Position;
use crate::store::{AppendError, ReadError};

/// Why a log could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer version of the platform made the log's tables.
    #[error(
        "open `{database}`: its schema {found} is newer than this program's {known}; use the newer program"
    )]
    Newer {
        /// The database.
        database: Database,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// An older version of the platform made the log's tables.
    #[error(
        "open `{database}`: its schema {found} is older than this program's {known}; run `hypercode migrate`"
    )]
    Older {
        /// The database.
        database: Database,
        /// Its schema.
        found: i64,
        /// The schema that this program wants.
        known: i64,
    },
    /// The database holds no log.
    #[error("open `{database}`: it holds no log yet; `hypercode migrate` makes one")]
    Missing {
        /// The database.
        database: Database,
    },
    /// The database holds tables of another program under the log's names.
    #[error("open `{database}`: it holds a table `{table}` of another program; use a database of its own")]
    Foreign {
        /// The database.
        database: Database,
        /// The table.
        table: String,
    },
    /// The log's head and its last event do not agree.
    #[error(
        "open `{database}`: the head names position {head}, the last event has {last}; where `hypercode log copy` was \
         interrupted, run it again, else the log is damaged"
    )]
    Damaged {
        /// The database.
        database: Database,
        /// The head's position.
        head: Position,
        /// The last event's position.
        last: Position,
    },
    /// An event stands before the first.
    #[error(
        "open `{database}`: an event stands at position {found}, before the first of the log: somebody has put it there; \
         `hypercode audit verify --offline` says what else was done"
    )]
    Misplaced {
        /// The database.
        database: Database,
        /// Its position.
        found: i64,
    },
    /// The server cannot be reached, or refused.
    #[error("open `{database}`: {reason}")]
    Unreachable {
        /// The database.
        database: Database,
        /// What was said.
        reason: Arc<str>,
    },
}

impl OpenError {
    pub(super) fn unreachable(database: &Database, error: &sqlx::Error) -> Self {
        Self::Unreachable { database: database.clone(), reason: error.to_string().into() }
    }
}

/// Why a batch was not written, or may not have been.
#[derive(Clone, Debug)]
pub(super) enum WriteError {
    /// A unique constraint stood against it: what was believed of the log is not so. Nothing was written.
    Conflict(Arc<str>),
    /// Nothing was written: the server said so, or cannot be reached.
    NotWritten(Arc<str>),
    /// Nothing was written: the connection was lost before anything could have been.
    Lost(Arc<str>),
    /// The connection was lost with the answer under way.
    Unknown(Arc<str>),
}

impl WriteError {
    /// A statement failed whose transaction was still open.
    pub(super) fn before_commit(error: &sqlx::Error) -> Self {
        match refusal(error) {
            Some(refusal) if refusal.code() == UNIQUE_VIOLATION => Self::Conflict(error.to_string().into()),
            Some(_) => Self::NotWritten(error.to_string().into()),
            None => Self::Lost(error.to_string().into()),
        }
    }

    /// A statement failed that commits by itself, or a commit did. Where the server refused, it rolled back.
    pub(super) fn at_commit(error: &sqlx::Error) -> Self {
        match Self::before_commit(error) {
            Self::Lost(reason) => Self::Unknown(reason),
            refused => refused,
        }
    }
}

const UNIQUE_VIOLATION: &str = "23505";

/// What the server said where it refused one statement and goes on. A fatal error, such as that of a server which
/// shuts down, may come after the commit and ends the connection: it refuses nothing.
fn refusal(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    let refusal = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    matches!(refusal.severity(), PgSeverity::Error).then_some(refusal)
}

impl From<WriteError> for AppendError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict(reason) | WriteError::NotWritten(reason) | WriteError::Lost(reason) => {
                Self::Unavailable { reason }
            }
            WriteError::Unknown(reason) => Self::Unknown { reason },
        }
    }
}

/// A read failed.
pub(super) fn unreadable(error: &sqlx::Error) -> ReadError {
    ReadError::Unavailable { reason: error.to_string().into() }
}
