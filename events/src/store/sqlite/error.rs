//! SQLite's errors in the words of the seam, mapped once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};

use super::rows::Unreadable;
use crate::id::Position;
use crate::store::AppendError;

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
        "open `{}`: the head names position {head}, the last event has {last}; where `hypercode log copy` was interrupted, \
         run it again, else the file is damaged",
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
    /// An event stands before the first.
    #[error(
        "open `{}`: an event stands at position {found}, before the first of the log: somebody has put it there; \
         `hypercode audit verify --offline` says what else was done",
        file.display()
    )]
    Misplaced {
        /// The file.
        file: PathBuf,
        /// Its position.
        found: i64,
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
    pub(super) fn database(file: &Path, error: &impl ToString) -> Self {
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
    pub(super) fn before_commit(error: &rusqlite::Error) -> Self {
        let unique = [SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY];
        match error.sqlite_error() {
            Some(violation) if unique.contains(&violation.extended_code) => {
                Self::Conflict(error.to_string().into())
            }
            _ => Self::NotWritten(reason(error)),
        }
    }

    /// The commit failed. On a full disk the record of the commit itself cannot have been written; after any
    /// other error, such as a failed `fsync`, it may stand in the file.
    pub(super) fn at_commit(error: &rusqlite::Error) -> Self {
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

impl From<Unreadable> for WriteError {
    fn from(error: Unreadable) -> Self {
        Self::NotWritten(error.to_string().into())
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn reason(error: &rusqlite::Error) -> Arc<str> {
    if is_full(error) {
        return format!("the disk is full: free some space, then try again ({error})").into();
    }
    error.to_string().into()
}
