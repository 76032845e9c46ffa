//! SQLite's errors in the words of the seam, mapped once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::id::Position;
use crate::store::{AppendError, ReadError};

/// SQLite's primary result code for a full disk or a file at its size limit.
const SQLITE_FULL: i32 = 13;

/// Why a log could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory.
    #[error(
        "open data directory `{}`: it is in use by process {}; stop that process or choose another directory",
        directory.display(),
        pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process that has it, where it said so.
        pid: Option<u32>,
    },
    /// The directory cannot be made or used.
    #[error("open data directory `{}`: {error}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        error: Arc<std::io::Error>,
    },
    /// A newer version of the platform wrote the file.
    #[error(
        "open `{}`: its schema {found} is newer than this program's {known}; use the newer program",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// An older version of the platform wrote the file.
    #[error(
        "open `{}`: its schema {found} is older than this program's {known}; run `hypercode migrate`",
        file.display()
    )]
    Older {
        /// The file.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema that this program wants.
        known: i64,
    },
    /// The file is an SQLite database, but not ours.
    #[error("open `{}`: it is a database of another program", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The log's head and its last event do not agree.
    #[error(
        "open `{}`: the head names position {head}, the last event has {last}; the file is damaged",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The head's position.
        head: Position,
        /// The last event's position.
        last: Position,
    },
    /// SQLite refused.
    #[error("open `{}`: {reason}", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// What SQLite said.
        reason: Arc<str>,
    },
}

impl OpenError {
    pub(super) fn database(file: &Path, error: &sqlx::Error) -> Self {
        Self::Database { file: file.into(), reason: error.to_string().into() }
    }
}

/// Why a batch was not written, or may not have been.
#[derive(Debug)]
pub(super) enum WriteError {
    /// A unique constraint stood against it: what was believed of the log is not so. Nothing was written.
    Conflict(Arc<str>),
    /// Nothing was written.
    NotWritten(Arc<str>),
    /// It may come to light after a crash.
    Unknown(Arc<str>),
}

impl WriteError {
    /// A statement before the commit failed.
    pub(super) fn before_commit(error: &sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(violation) if violation.is_unique_violation() => Self::Conflict(error.to_string().into()),
            _ => Self::NotWritten(reason(error)),
        }
    }

    /// The commit failed. On a full disk the record of the commit itself cannot have been written; after any
    /// other error, such as a failed `fsync`, it may stand in the file.
    pub(super) fn at_commit(error: &sqlx::Error) -> Self {
        if is_full(error) { Self::NotWritten(reason(error)) } else { Self::Unknown(reason(error)) }
    }
}

impl From<WriteError> for AppendError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict(reason) | WriteError::NotWritten(reason) => Self::Unavailable { reason },
            WriteError::Unknown(reason) => Self::Unknown { reason },
        }
    }
}

fn is_full(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == SQLITE_FULL)
}

fn reason(error: &sqlx::Error) -> Arc<str> {
    if is_full(error) {
        return format!("the disk is full: free some space, then try again ({error})").into();
    }
    error.to_string().into()
}

/// A read failed.
pub(super) fn unreadable(error: &sqlx::Error) -> ReadError {
    ReadError::Unavailable { reason: error.to_string().into() }
}
