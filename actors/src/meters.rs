//! The tokens that crews have used, as far as is known in memory: a little ahead of the log.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use events::CrewId;

/// The tokens of every crew of this node.
#[derive(Default)]
pub(crate) struct Meters(Mutex<HashMap<CrewId, u64>>);

impl Meters {
    fn used(&self) -> MutexGuard<'_, HashMap<CrewId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many more were used.
    pub(crate) fn add(&self, crew: &CrewId, tokens: u64) {
        let mut used = self.used();
        let sum = used.entry(crew.clone()).or_default();
        *sum = sum.saturating_add(tokens);
    }

    /// At least so many were used: the log says so.
    pub(crate) fn know(&self, crew: &CrewId, tokens: u64) {
        let mut used = self.used();
        let sum = used.entry(crew.clone()).or_default();
        *sum = (*sum).max(tokens);
    }

    /// How many were used.
    pub(crate) fn tokens(&self, crew: &CrewId) -> u64 {
        self.used().get(crew).copied().unwrap_or(0)
    }

    /// Forgets crews.
    pub(crate) fn remove_where(&self, gone: impl Fn(&CrewId) -> bool) {
        self.used().retain(|crew, _| !gone(crew));
    }
}
