//! Time as data: the wall clock, or one that follows tokio's (so that a simulation's hours pass in seconds).

use events::Timestamp;
use tokio::time::Instant;

/// Where the platform gets its time from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's wall clock.
    System,
    /// Starts at a fixed moment and follows tokio's clock, which a test may pause and advance.
    Virtual {
        /// The moment at which it starts.
        epoch: Timestamp,
        /// Tokio's time at that moment.
        start: Instant,
    },
}

impl Clock {
    /// A clock that starts at `epoch` and follows tokio's.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self::Virtual { epoch, start: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Virtual { epoch, start } => {
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
