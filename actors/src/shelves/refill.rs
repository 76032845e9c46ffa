//! How many sandboxes are to be made, and which are not called for any more.

use std::sync::Arc;

use events::domain::pool::{Phase, Size, State, Status};
use events::{PoolId, SandboxId};
use tokio::sync::{Notify, OwnedMutexGuard};

use super::{Inner, Shelf, Shelves, Slot, demand};

/// What is to be done about a pool's size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// So many are to be made.
    pub(crate) make: usize,
    /// These are not called for any more.
    pub(crate) drop: Vec<SandboxId>,
}

impl Shelves {
    /// What is to be made and what to be dropped now, given the pool's state.
    pub(crate) fn plan(&self, id: &PoolId, state: &State, now_ms: i64) -> Plan {
        let mut inner = self.inner();
        let Inner { shelves, slots } = &mut *inner;
        let Some(shelf) = shelves.get_mut(id) else { return Plan::default() };
        if state.status == Status::Drained {
            return Plan::default();
        }
        // After a restart those that stood by are on their way back too, and are not made.
        let comes = |slot: &Slot| slot.stage.is_coming() && slot.ended.is_none();
        let coming = slots.values().filter(|(pool, slot)| pool == id && comes(slot)).count();
        shelf.waiting.retain(|waiting| !waiting.is_closed());
        let (ready, warming) = (shelf.ready.len(), state.count(Phase::Warming) as usize);
        let wanted = shelf.target(now_ms) as usize + shelf.waiting.len();
        let refill = &shelf.spec.refill;
        // While sandboxes do not come up or do not last, one at a time is tried.
        let at_once = match state.failures {
            0 => refill.concurrency as usize,
            _ => usize::from(!state.is_trying()),
        };
        let may_make = u64::try_from(now_ms).is_ok_and(|now_ms| now_ms >= state.retry_at_ms);
        let room = at_once.saturating_sub(warming);
        let make = wanted.saturating_sub(ready + coming.max(warming)).min(room) * usize::from(may_make);
        let age_max = shelf.spec.max_age.map(|age| age.as_millis());
        let is_old = |sandbox: &&SandboxId| {
            let since = state.standbys.get(*sandbox).map(|standby| standby.requested.at_ms);
            age_max.zip(since).is_some_and(|(most, since)| {
                u64::try_from(now_ms).is_ok_and(|now_ms| now_ms.saturating_sub(since) >= most)
            })
        };
        let old = shelf.ready.iter().filter(is_old).cloned();
        let surplus = shelf.ready.iter().take(ready.saturating_sub(wanted)).cloned();
        let mut drop: Vec<SandboxId> = old.chain(surplus).collect();
        drop.sort();
        drop.dedup();
        Plan { make, drop }
    }

    /// The right to keep the pool filled, unless somebody has it already.
    pub(crate) fn filler(&self, id: &PoolId) -> Option<OwnedMutexGuard<()>> {
        let filler = self.inner().shelves.get(id).map(|shelf| Arc::clone(&shelf.filler))?;
        filler.try_lock_owned().ok()
    }

    /// What tells that a pool may have changed.
    pub(crate) fn changed(&self, id: &PoolId) -> Option<Arc<Notify>> {
        self.inner().shelves.get(id).map(|shelf| Arc::clone(&shelf.changed))
    }
}

impl Shelf {
    /// How many should stand by now.
    pub(super) fn target(&self, now_ms: i64) -> u32 {
        let Size { min, max, target } = self.size;
        let rate = self.demand.per_second(now_ms);
        let called_for = || demand::target(rate, self.demand.cold_ms(), &self.spec.refill, min, max);
        match self.status {
            Status::Drained => 0,
            Status::Active | Status::Degraded => target.unwrap_or_else(called_for),
        }
    }
}
