//! Chance that follows from the seed: the only one that a simulation has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Dice that fall the same way for the same seed. Clones throw the same dice.
#[derive(Clone)]
pub struct Dice(Arc<Mutex<StdRng>>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A number from 0 to below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..end)
    }

    /// Whether the one of `count` cases is this one.
    pub fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// So many milliseconds or less, but not none.
    pub fn up_to_ms(&self, most: u64) -> Duration {
        Duration::from_millis(1 + self.below(most))
    }

    /// One of the choices, each as often as its weight says.
    pub fn weighted<T: Copy>(&self, choices: &[(u64, T)]) -> T {
        let mut left = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if left < *weight {
                return *choice;
            }
            left -= weight;
        }
        unreachable!("the weights add up to more than any number below their sum")
    }
}
