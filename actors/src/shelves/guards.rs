//! What a claim holds while it is on its way: dropped, it gives back.

use std::sync::{Arc, PoisonError, Weak};

use events::{PoolId, SandboxId};

use super::{Shelves, Stage};

/// A runner that stands by uses hardly any processor time; one that used more is not trusted.
pub(super) const STANDBY_CPU_MS_MAX: u64 = 2_000;
/// Memory below which a runner that stands by is never suspicious, in bytes.
pub(super) const STANDBY_MEMORY_BYTES: u64 = 64 << 20;

/// A sandbox that nobody else can take. It goes back to its shelf unless it was claimed.
#[derive(Debug)]
pub(crate) struct Taken {
    shelves: Weak<Shelves>,
    pool: PoolId,
    sandbox: SandboxId,
}

impl Taken {
    pub(super) fn new(shelves: &Arc<Shelves>, pool: PoolId, sandbox: SandboxId) -> Self {
        Self { shelves: Arc::downgrade(shelves), pool, sandbox }
    }

    pub(crate) fn pool(&self) -> &PoolId {
        &self.pool
    }

    pub(crate) fn sandbox(&self) -> &SandboxId {
        &self.sandbox
    }

    /// Its claim is durable.
    pub(crate) fn claimed(self) {
        if let Some(shelves) = self.shelves.upgrade() {
            shelves.stage(&self.sandbox, Stage::Claimed);
        }
        self.forget();
    }

    /// It was never taken after all.
    pub(super) fn forget(mut self) {
        self.shelves = Weak::new();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(shelves) = self.shelves.upgrade() {
            shelves.offer(&self.sandbox);
            shelves.moved.notify_waiters();
        }
    }
}

/// The right to one of a pool's cold starts.
#[derive(Debug)]
pub(crate) struct ColdStart {
    shelves: Weak<Shelves>,
    pool: PoolId,
}

impl ColdStart {
    pub(super) fn new(shelves: &Arc<Shelves>, pool: PoolId) -> Self {
        Self { shelves: Arc::downgrade(shelves), pool }
    }
}

impl Drop for ColdStart {
    fn drop(&mut self) {
        let Some(shelves) = self.shelves.upgrade() else { return };
        let mut inner = shelves.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = inner.shelves.get_mut(&self.pool) {
            shelf.cold_starts = shelf.cold_starts.saturating_sub(1);
        }
    }
}
