//! What can go wrong with a sandbox.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Id, Kind};

/// Why an operation on a sandbox failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value of the specification is not usable; nothing was done.
    #[error("accept {what} `{found}`: it must be {right}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What was given, shortened.
        found: String,
        /// What would be right.
        right: String,
    },
    /// The id served before: a sandbox is used once (SB-1). Nothing was started.
    #[error("create sandbox `{id}`: the id was used before and a sandbox is used once; take a new id")]
    Used {
        /// The id.
        id: Id,
    },
    /// There is no such sandbox, or its runner has ended.
    #[error("reach sandbox `{id}`: it does not run")]
    NotRunning {
        /// The id.
        id: Id,
    },
    /// The runner could not be started. Nothing of it runs, nothing was left behind, and the id is used up.
    #[error("start the runner of sandbox `{id}`: {reason}")]
    Start {
        /// The id.
        id: Id,
        /// What happened, and where.
        reason: String,
    },
    /// The image cannot be used; nothing was done.
    #[error("use the image `{name}`: {reason}")]
    Image {
        /// Its name, as it was given.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Processes of the sandbox are left although all were killed. Destroying again is safe and goes on where this ended.
    #[error(
        "end sandbox `{id}`: processes {pids:?} are left; look at their state with `ps -o pid,stat,wchan,cmd`"
    )]
    StillRunning {
        /// The id.
        id: Id,
        /// What is left.
        pids: Vec<u32>,
    },
    /// This kind of sandbox cannot do that.
    #[error("{what}: {kind} sandboxes cannot")]
    Unsupported {
        /// The kind.
        kind: Kind,
        /// What was asked.
        what: &'static str,
    },
    /// The Docker daemon did not do what it was asked, or cannot be reached. The effect may have happened; every
    /// operation may be repeated.
    #[error("have the Docker daemon at `{socket}` {action}: {reason}", socket = .socket.display())]
    Daemon {
        /// What was asked.
        action: &'static str,
        /// Where the daemon listens.
        socket: PathBuf,
        /// What it said.
        reason: String,
        /// Whether it could not be asked, or gave no answer: once it is back, the same may well be done.
        is_away: bool,
    },
    /// The operating system refused something. The effect may have happened in part; every operation may be repeated.
    #[error("{action} `{path}`: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or program.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Whether nobody answers who makes sandboxes, as while the Docker daemon is restarted: it is worth waiting for.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Daemon { is_away: true, .. })
    }

    /// An unusable value, shortened to what a person can read.
    pub(crate) fn invalid(what: &'static str, found: &str, right: impl Into<String>) -> Self {
        Self::Invalid { what, found: found.chars().take(100).collect(), right: right.into() }
    }

    /// For `map_err` on a system call that concerns `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: Arc::new(source) }
    }
}
