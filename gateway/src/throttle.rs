//! So many records of the like in a second; what is more is counted into the next.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::time::Instant;

use crate::bucket::Bucket;

/// What to do about one occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Record it, and with it those that were only counted: so many in all.
    Record(u64),
    /// It is counted. The caller is the first since the last record, and comes back in a second for [`Throttle::take`].
    First,
    /// It is counted.
    Counted,
}

/// Counts and admits per kind of occurrence.
#[derive(Debug)]
pub(crate) struct Throttle<K = crate::denial::What> {
    per_second: f64,
    kinds: HashMap<K, (Bucket, u64)>,
}

impl<K: Eq + Hash> Throttle<K> {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: per_second.into(), kinds: HashMap::new() }
    }

    /// It happened.
    pub(crate) fn happened(&mut self, kind: K, now: Instant) -> Verdict {
        let rate = self.per_second;
        let (bucket, counted) = self.kinds.entry(kind).or_insert_with(|| (Bucket::new(rate, rate, now), 0));
        if bucket.admits(now) {
            return Verdict::Record(std::mem::take(counted) + 1);
        }
        *counted += 1;
        if *counted == 1 { Verdict::First } else { Verdict::Counted }
    }

    /// What was only counted since the last record.
    pub(crate) fn take(&mut self, kind: &K) -> u64 {
        self.kinds.get_mut(kind).map_or(0, |(_, counted)| std::mem::take(counted))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_counted_and_nothing_of_it_is_lost() {
        let start = Instant::now();
        let mut throttle = Throttle::new(2);
        let flood: Vec<_> = (0..5).map(|_| throttle.happened("spoof", start)).collect();
        let expected =
            [Verdict::Record(1), Verdict::Record(1), Verdict::First, Verdict::Counted, Verdict::Counted];
        assert_eq!(flood, expected);
        assert_eq!(throttle.happened("other", start), Verdict::Record(1));
        let later = start + Duration::from_secs(1);
        assert_eq!(throttle.happened("spoof", later), Verdict::Record(4));
        assert_eq!(throttle.take(&"spoof"), 0);
    }
}
