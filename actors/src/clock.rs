//! Time and chance as data: the machine's own, or ones that a test decides on (so that a simulation's hours pass in
//! seconds, and pass the same way again).

use std::sync::{Arc, Mutex, PoisonError};

use events::{CommandId, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// Where the platform gets its time and its chance from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's wall clock and its random numbers.
    System,
    /// Starts at a fixed moment and follows tokio's clock, which a test may pause and advance.
    Virtual {
        /// The moment at which it starts.
        epoch: Timestamp,
        /// Tokio's time at that moment.
        start: Instant,
        /// Numbers that follow from a seed.
        chance: Arc<Mutex<StdRng>>,
    },
}

impl Clock {
    /// A clock that starts at `epoch` and follows tokio's, and chance that follows from `seed`.
    pub fn starting_at(epoch: Timestamp, seed: u64) -> Self {
        let chance = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        Self::Virtual { epoch, start: Instant::now(), chance }
    }

    /// A number that nobody can foresee, unless the clock is a test's.
    pub fn chance(&self) -> u64 {
        match self {
            Self::System => rand::rng().random(),
            Self::Virtual { chance, .. } => chance.lock().unwrap_or_else(PoisonError::into_inner).random(),
        }
    }

    /// The id of a command that nobody will repeat.
    pub(crate) fn fresh_command(&self) -> CommandId {
        match self {
            Self::System => CommandId::fresh(),
            Self::Virtual { .. } => CommandId::derive(&["fresh", &self.chance().to_string()]),
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Virtual { epoch, start, .. } => {
                Timestamp(epoch.0 + i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Waits until `at_ms` milliseconds since the Unix epoch have passed on this clock.
    pub async fn sleep_until_ms(&self, at_ms: i64) {
        // A wall clock may be set back while we sleep; then it is asked again.
        loop {
            let left_ms = at_ms.saturating_sub(self.now().millis());
            match u64::try_from(left_ms) {
                Ok(left_ms) if left_ms > 0 => {
                    tokio::time::sleep(std::time::Duration::from_millis(left_ms)).await;
                }
                _ => return,
            }
        }
    }
}
