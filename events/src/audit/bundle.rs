//! Evidence bundles: a directory that an auditor verifies without us, with our program or with Python alone.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::Digest;

mod read;
#[cfg(test)]
mod tests;
mod translate;
mod write;

pub use read::Bundle;
pub use translate::Format;
pub use write::{Wanted, export};

/// The format of bundles that this program writes and reads.
const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";
const EVENTS: &str = "events.jsonl";
const CHECKPOINTS: &str = "checkpoints.txt";
/// Absent where no witness has cosigned any of the events.
const COSIGNED: &str = "cosigned.txt";
const KEYS: &str = "keys.txt";
const SUMS: &str = "SHA256SUMS";

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The format of the bundle.
    pub format: u32,
    /// The program that wrote it.
    pub program: String,
    /// When it was written.
    pub exported_at: String,
    /// Which log it is of.
    pub origin: String,
    /// The position of the first event.
    pub from: u64,
    /// The position of the last event.
    pub to: u64,
    /// The hash of the last event.
    pub hash: Digest,
    /// The hash of the event before the first; zeros where the first is the log's first.
    pub previous: Digest,
    /// The complete subtrees of the tree before the first event, the largest first.
    pub before: Vec<Digest>,
    /// The sizes of the checkpoints, the smallest first.
    pub checkpoints: Vec<u64>,
    /// The proof that the tree of the last checkpoint begins with the tree of the first `to` events (RFC 6962 §2.1.2);
    /// empty where they are the same.
    pub beyond: Vec<Digest>,
}

/// Why a bundle could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file cannot be written or read.
    #[error("{action} `{}`: {error}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// It is no bundle, or one of another format.
    #[error("read the bundle `{}`: {reason}", path.display())]
    Foreign {
        /// The bundle.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The evidence cannot be read, or does not have what is wanted.
    #[error(transparent)]
    Problem(#[from] crate::api::Problem),
}

impl From<BundleError> for crate::api::Problem {
    fn from(error: BundleError) -> Self {
        use crate::api::ProblemKind;
        match error {
            BundleError::Problem(problem) => problem,
            error => Self::new(ProblemKind::Invalid, error.to_string()),
        }
    }
}
