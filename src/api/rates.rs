//! So many requests a second of each, and so many at once.
//!
//! Each is known by one moment: when all that it has asked for would be paid off at its rate (the generic cell rate
//! algorithm, ITU-T I.371). Whoever has paid off is not remembered at all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Of how many it is remembered what they owe.
const KNOWN_MAX: usize = 10_000;

/// What each owes.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    /// What one request costs.
    cost: Duration,
    /// How much may be owed.
    credit: Duration,
    owed: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash + Clone> Rates<K> {
    /// So many requests a second, and twice as many at once.
    pub(crate) fn new(per_second: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second.max(1);
        Self { cost, credit: cost * per_second.max(1) * 2, owed: Mutex::default() }
    }

    /// Counts a request, if it may be made now.
    pub(crate) fn take(&self, who: &K, now: Instant) -> bool {
        let mut owed = self.owed();
        let until = owed.get(who).copied().unwrap_or(now).max(now) + self.cost;
        if until - now > self.credit {
            return false;
        }
        if owed.len() >= KNOWN_MAX {
            owed.retain(|_, until| *until > now);
        }
        // So many at once are not told apart any more: all begin anew.
        if owed.len() >= KNOWN_MAX {
            owed.clear();
        }
        owed.insert(who.clone(), until);
        true
    }

    /// Whether a request may be made now; nothing is counted.
    pub(crate) fn admits(&self, who: &K, now: Instant) -> bool {
        self.owed().get(who).is_none_or(|until| (*until).max(now) + self.cost - now <= self.credit)
    }

    fn owed(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_rate_and_a_burst() {
        let (rates, now) = (Rates::new(10), Instant::now());
        assert_eq!((0..30).filter(|_| rates.take(&"eve", now)).count(), 20, "twice the rate at once");
        assert!(!rates.admits(&"eve", now) && rates.take(&"adam", now), "each for themselves");
        let later = now + Duration::from_millis(100);
        assert!(rates.take(&"eve", later) && !rates.take(&"eve", later), "one in a tenth of a second");
        let much_later = now + Duration::from_secs(60);
        assert_eq!((0..30).filter(|_| rates.take(&"eve", much_later)).count(), 20, "no more is saved up");
    }

    #[test]
    fn whoever_owes_nothing_is_forgotten() {
        let (rates, now) = (Rates::new(1_000), Instant::now());
        for who in 0..KNOWN_MAX {
            assert!(rates.take(&who, now));
        }
        assert!(rates.take(&KNOWN_MAX, now + Duration::from_secs(1)));
        assert_eq!(rates.owed().len(), 1);
        for who in 0..2 * KNOWN_MAX {
            assert!(rates.take(&who, now + Duration::from_secs(2)));
        }
        assert!(rates.owed().len() <= KNOWN_MAX, "its memory is bounded");
    }
}
