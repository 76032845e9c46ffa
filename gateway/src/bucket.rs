//! Token buckets: so many a second, and so many at once.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills at a rate up to a burst.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket. At least one token fits, so that every rate above zero lets something through.
    pub(crate) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        let burst = burst.max(1.0);
        Self { per_second, burst, tokens: burst, filled_at: now }
    }

    /// Takes one token, or says how long to wait for it.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = passed.mul_add(self.per_second, self.tokens).min(self.burst);
        self.filled_at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let wait_s = (1.0 - self.tokens) / self.per_second;
        Err(Duration::try_from_secs_f64(wait_s).unwrap_or(Duration::MAX))
    }

    /// Takes one token, if there is one.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        self.take(now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10.0, 2.0, start);
        assert!(bucket.admits(start) && bucket.admits(start));
        let wait = bucket.take(start).unwrap_err();
        assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6, "{wait:?}");
        assert!(bucket.admits(start + Duration::from_millis(101)));
        assert!(!bucket.admits(start + Duration::from_millis(101)));
        let later = start + Duration::from_secs(60);
        assert!(bucket.admits(later) && bucket.admits(later) && !bucket.admits(later), "the burst bounds it");
    }

    #[test]
    fn a_rate_of_zero_gives_one_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(0.0, 0.0, start);
        assert!(bucket.admits(start));
        assert_eq!(bucket.take(start + Duration::from_secs(9)), Err(Duration::MAX));
    }
}
