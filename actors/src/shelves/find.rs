//! What a claim finds on a shelf.

use std::collections::HashMap;
use std::sync::Arc;

use events::domain::pool::Status;
use events::{Digest, PoolId, SandboxId};
use manifest::WhenEmpty;
use tokio::sync::oneshot;

use crate::profiles::Wish;

use super::{ColdStart, Inner, Shelves, Slot, Stage, Taken};

/// What a claim finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// A sandbox that stands by.
    Standby(Taken),
    /// Nothing, and a cold start may begin.
    Cold(ColdStart),
    /// Nothing yet: its turn comes.
    Turn(oneshot::Receiver<Taken>),
    /// Nothing, and too many wait already.
    Full,
    /// There is no such pool here, or it is not for this profile.
    Elsewhere,
}

impl Shelves {
    /// Looks for a sandbox for an agent of this profile, which may want an image or a runtime of its own.
    pub(crate) fn take(self: &Arc<Self>, id: &PoolId, profile: Digest, wish: Wish<'_>, now_ms: i64) -> Found {
        let mut inner = self.inner();
        let Inner { shelves, slots } = &mut *inner;
        let Some(shelf) = shelves.get_mut(id) else { return Found::Elsewhere };
        let fits = wish.is_met(shelf.spec.image.as_deref(), shelf.spec.runtime_class.as_deref())
            && shelf.prestart.as_ref().is_none_or(|only| only.digest == profile);
        if !fits {
            shelf.counts.cold += 1;
            return Found::Elsewhere;
        }
        shelf.demand.claim(now_ms);
        shelf.changed.notify_one();
        // Whoever waits already comes first, and takes what is ready as it comes.
        while let Some(sandbox) = shelf.ready.pop_front() {
            if let Some((_, slot)) = slots.get_mut(&sandbox)
                && slot.stage == Stage::Ready
                && slot.ended.is_none()
            {
                slot.stage = Stage::Taken;
                shelf.counts.warm += 1;
                return Found::Standby(Taken::new(self, id.clone(), sandbox));
            }
        }
        shelf.waiting.retain(|waiting| !waiting.is_closed());
        let returning = returning(slots, id);
        // Soon there again, and sooner than any other.
        let returns = shelf.waiting.len() < returning;
        let may_start = match shelf.spec.queue.when_empty {
            // Nothing comes to who waits for a pool that is kept empty.
            _ if shelf.status == Status::Drained => true,
            _ if returns => false,
            WhenEmpty::Cold => shelf.cold_starts < shelf.spec.refill.concurrency,
            WhenEmpty::Wait => false,
        };
        if may_start {
            shelf.cold_starts += 1;
            shelf.counts.cold += 1;
            return Found::Cold(ColdStart::new(self, id.clone()));
        }
        if !returns && shelf.waiting.len() >= shelf.spec.queue.length as usize {
            shelf.counts.refused += 1;
            return Found::Full;
        }
        let (sender, turn) = oneshot::channel();
        shelf.waiting.push_back(sender);
        Found::Turn(turn)
    }

    /// Whether so many more claims would be taken or let wait; true where there is no such pool here.
    pub(crate) fn admits(&self, id: &PoolId, claims: usize) -> bool {
        let mut inner = self.inner();
        let Inner { shelves, slots } = &mut *inner;
        let Some(shelf) = shelves.get_mut(id) else { return true };
        shelf.waiting.retain(|waiting| !waiting.is_closed());
        if shelf.status == Status::Drained {
            return true;
        }
        let queue = shelf.spec.queue;
        let cold = match queue.when_empty {
            WhenEmpty::Cold => shelf.spec.refill.concurrency.saturating_sub(shelf.cold_starts),
            WhenEmpty::Wait => 0,
        };
        // Some of those who wait do so for what is on its way back, and take no room in the queue.
        let (returning, waiting) = (returning(slots, id), shelf.waiting.len());
        let room = (queue.length as usize).saturating_sub(waiting.saturating_sub(returning));
        let soon = shelf.ready.len() + returning.saturating_sub(waiting);
        let admits = claims <= soon + room + cold as usize;
        shelf.counts.refused += u64::from(!admits);
        admits
    }

    /// The right to start cold, of a claim whose turn did not come in time.
    pub(crate) fn cold_start(self: &Arc<Self>, id: &PoolId) -> Option<ColdStart> {
        let mut inner = self.inner();
        let shelf = inner.shelves.get_mut(id)?;
        let may = shelf.spec.queue.when_empty == WhenEmpty::Cold
            && shelf.cold_starts < shelf.spec.refill.concurrency;
        may.then(|| {
            shelf.cold_starts += 1;
            shelf.counts.cold += 1;
            ColdStart::new(self, id.clone())
        })
    }

    /// Notes how long a claim waited, and whether it had to start cold all the same.
    pub(crate) fn waited(&self, id: &PoolId, ms: u64, got_one: bool) {
        self.change(id, |shelf| {
            shelf.counts.waited_ms += ms;
            match got_one {
                true => shelf.counts.warm += 1,
                false => shelf.counts.late += 1,
            }
        });
    }

    /// An agent had to start cold that may not be refused.
    pub(crate) fn fell_back(&self, id: &PoolId) {
        self.change(id, |shelf| shelf.counts.cold += 1);
    }

    /// How long a claim may wait for its turn, in milliseconds.
    pub(crate) fn deadline_ms(&self, id: &PoolId) -> u64 {
        self.inner().shelves.get(id).map_or(0, |shelf| shelf.spec.queue.deadline.as_millis())
    }
}

/// How many sandboxes of the pool stood by before the platform came back, and are being adopted.
pub(super) fn returning(slots: &HashMap<SandboxId, (PoolId, Slot)>, id: &PoolId) -> usize {
    let is_returning = |slot: &Slot| slot.stage == Stage::Returning && slot.ended.is_none();
    slots.values().filter(|(pool, slot)| pool == id && is_returning(slot)).count()
}
