//! Which ends of an attempt are tried again, how often, and after what wait.

use serde::{Deserialize, Serialize};

/// How an attempt ended that brought no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The handler says that it may work another time.
    Transient,
    /// The handler says that it never will, or says nothing.
    Permanent,
    /// It took longer than an attempt may.
    Timeout,
    /// It made no progress.
    Hung,
    /// The handler or its sandbox ended.
    Crash,
    /// The sandbox cannot be reached.
    Lost,
    /// It was called off.
    Canceled,
    /// The task's deadline passed.
    Deadline,
    /// The handler asked for other work with this still in hand.
    Abandoned,
    /// Its agent was killed by somebody's decision.
    Killed,
}

impl Ended {
    /// Its name in events and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Timeout => "timeout",
            Self::Hung => "hung",
            Self::Crash => "crash",
            Self::Lost => "lost",
            Self::Canceled => "canceled",
            Self::Deadline => "deadline",
            Self::Abandoned => "abandoned",
            Self::Killed => "killed",
        }
    }
}

/// How often a task is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// The most attempts that end in a crash, a loss or a transient failure.
    pub max_attempts: u32,
    /// Whether a failure that the handler did not classify counts as transient. A repeated model run is money
    /// spent twice, so it does not by default.
    pub unclassified_is_transient: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 3, unclassified_is_transient: false }
    }
}

/// The wait before the next attempt after the first transient failure; doubles with each.
pub const TRANSIENT_WAIT_MS: u64 = 200;
/// The longest such wait.
pub const TRANSIENT_WAIT_MS_MAX: u64 = 30_000;

impl RetryPolicy {
    /// The wait before the next attempt, or `None` if there is none. `before` counts the earlier attempts that
    /// ended the same way.
    pub fn next_wait_ms(&self, ended: Ended, before: u32, retry_after_ms: Option<u64>) -> Option<u64> {
        let (allowed, wait_ms) = match ended {
            Ended::Crash | Ended::Lost => (self.max_attempts, 0),
            Ended::Transient => {
                let doubled = TRANSIENT_WAIT_MS.saturating_mul(1u64.checked_shl(before).unwrap_or(u64::MAX));
                (self.max_attempts, retry_after_ms.unwrap_or_else(|| doubled.min(TRANSIENT_WAIT_MS_MAX)))
            }
            Ended::Hung | Ended::Timeout => (2, 0),
            Ended::Permanent | Ended::Canceled | Ended::Deadline | Ended::Abandoned | Ended::Killed => (1, 0),
        };
        (before + 1 < allowed).then_some(wait_ms)
    }

    /// Whether a task whose last attempt ended so is given up for a person to look at, rather than failed.
    pub fn dead_letters(ended: Ended) -> bool {
        !matches!(ended, Ended::Permanent | Ended::Deadline | Ended::Abandoned | Ended::Killed)
    }
}
