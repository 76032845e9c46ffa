//! What a supervisor has seen and done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use events::supervision::Exit;

/// How often each thing happened since the supervisor was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Children that panicked.
    pub panics: u64,
    /// Children that ended with an error.
    pub errors: u64,
    /// Children that were ended by force, by the supervisor or by another.
    pub kills: u64,
    /// Children that were found hung or lost and replaced.
    pub replaced: u64,
    /// Starts that failed.
    pub start_failures: u64,
    /// Children started again.
    pub restarts: u64,
    /// Times that the budget was found spent.
    pub gave_up: u64,
    /// Journal entries that were not recorded.
    pub journal_lost: u64,
}

/// Counters being counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    panics: AtomicU64,
    errors: AtomicU64,
    kills: AtomicU64,
    replaced: AtomicU64,
    start_failures: AtomicU64,
    restarts: AtomicU64,
    gave_up: AtomicU64,
    journal_lost: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    pub(super) fn exited(&self, exit: Exit) {
        match exit {
            Exit::Panicked => add(&self.panics),
            Exit::Failed => add(&self.errors),
            Exit::Killed | Exit::OutOfMemory => add(&self.kills),
            Exit::Hung | Exit::Lost | Exit::NodeLost => add(&self.replaced),
            Exit::StartFailed => add(&self.start_failures),
            Exit::Done | Exit::Drained => {}
        }
    }

    pub(super) fn restarted(&self) {
        add(&self.restarts);
    }

    pub(super) fn gave_up(&self) {
        add(&self.gave_up);
    }

    pub(super) fn journal_lost(&self) {
        add(&self.journal_lost);
    }

    pub(super) fn read(&self) -> Counters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            panics: of(&self.panics),
            errors: of(&self.errors),
            kills: of(&self.kills),
            replaced: of(&self.replaced),
            start_failures: of(&self.start_failures),
            restarts: of(&self.restarts),
            gave_up: of(&self.gave_up),
            journal_lost: of(&self.journal_lost),
        }
    }
}
