//! Which tasks of a crew have not ended: what disbanding and draining have to wait for.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use events::domain::task::{Status, Submitted};
use events::lease::shard_of;
use events::{CrewId, TaskId};

/// The open tasks of every crew of this node.
#[derive(Default)]
pub(crate) struct Tallies(Mutex<HashMap<CrewId, BTreeSet<TaskId>>>);

impl Tallies {
    fn open(&self) -> MutexGuard<'_, HashMap<CrewId, BTreeSet<TaskId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of where a task stands.
    pub(crate) fn note(&self, submitted: &Submitted, status: Status) {
        let mut open = self.open();
        let tasks = open.entry(submitted.crew.clone()).or_default();
        if status.is_terminal() {
            tasks.remove(&submitted.task);
            if tasks.is_empty() {
                open.remove(&submitted.crew);
            }
        } else {
            tasks.insert(submitted.task.clone());
        }
    }

    /// Forgets crews.
    pub(crate) fn remove_where(&self, gone: impl Fn(&CrewId) -> bool) {
        self.open().retain(|crew, _| !gone(crew));
    }

    /// Whether no task of the shard is open.
    pub(crate) fn is_idle(&self, shard: u8) -> bool {
        !self.open().keys().any(|crew| shard_of(crew.as_str()) == shard)
    }

    /// The crew's open tasks.
    pub(crate) fn of(&self, crew: &CrewId) -> Vec<TaskId> {
        self.open().get(crew).map(|tasks| tasks.iter().cloned().collect()).unwrap_or_default()
    }
}
