//! The shelves: what stands by in each pool of this node, who waits for it, and how often it was asked for.
//!
//! All of it is derived from the pools' events, but for claims that are on their way: a sandbox that is taken is
//! nobody else's, and goes back unless its claim became durable. The reservation of its id decides (SB-1); what is
//! here only sees to it that claims seldom meet.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::domain::pool::{Event, Phase, Prestart, Size, State, Status};
use events::lease::shard_of;
use events::{PoolId, SandboxId, Tenant};
use manifest::{PoolSpec, WhenEmpty};
use tokio::sync::{Notify, oneshot};

mod demand;
mod figures;
mod find;
mod guards;
mod refill;
mod spec;
mod standing;

use demand::Demand;
pub use figures::{Counts, PoolFigures};
pub(crate) use find::Found;
pub(crate) use guards::{ColdStart, Taken};
pub(crate) use spec::spec;

/// Where a sandbox of a shelf stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It comes up.
    Warming,
    /// It stood by before the platform came back, and is being adopted.
    Returning,
    /// It can be taken.
    Ready,
    /// A claim of it is on its way.
    Taken,
    /// It serves an agent.
    Claimed,
    /// It is never taken again.
    Spent,
}

impl Stage {
    /// Whether it is about to stand by.
    fn is_coming(self) -> bool {
        matches!(self, Self::Warming | Self::Returning)
    }
}

#[derive(Debug)]
struct Slot {
    stage: Stage,
    linked: bool,
    /// Whether the handler's process is up that is started ahead.
    handler_up: bool,
    /// Why it will not come up.
    ended: Option<String>,
    /// What its runner used when it was first heard: processor time and memory.
    baseline: Option<(u64, u64)>,
}

/// One pool's shelf.
#[derive(Debug)]
struct Shelf {
    tenant: Tenant,
    name: String,
    spec: PoolSpec,
    size: Size,
    status: Status,
    /// The profile whose handler is started ahead: only its agents may claim.
    prestart: Option<Prestart>,
    ready: VecDeque<SandboxId>,
    waiting: VecDeque<oneshot::Sender<Taken>>,
    cold_starts: u32,
    demand: Demand,
    counts: Counts,
    changed: Arc<Notify>,
    /// Held by whoever keeps it filled.
    filler: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Inner {
    shelves: BTreeMap<PoolId, Shelf>,
    slots: HashMap<SandboxId, (PoolId, Slot)>,
}

/// The shelves of this node.
#[derive(Debug, Default)]
pub(crate) struct Shelves {
    inner: Mutex<Inner>,
    /// Somebody linked, ended, or was given back.
    moved: Notify,
}
impl Shelves {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the shelf say what the pool's state says; sandboxes that are ready are offered only once they are known to
    /// be linked.
    pub(crate) fn enroll(&self, id: &PoolId, state: &State) {
        let Some(applied) = &state.applied else { return };
        let Ok(spec) = spec(applied) else {
            tracing::error!(pool = %id, "the specification of a pool cannot be read");
            return;
        };
        let mut inner = self.inner();
        let fresh = || Shelf {
            tenant: applied.tenant.clone(),
            name: applied.name.clone(),
            demand: Demand::new(&spec.refill),
            spec: spec.clone(),
            size: state.size,
            status: state.status,
            prestart: None,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            cold_starts: 0,
            counts: Counts::default(),
            changed: Arc::default(),
            filler: Arc::default(),
        };
        let shelf = inner.shelves.entry(id.clone()).or_insert_with(fresh);
        if shelf.spec.refill != spec.refill {
            shelf.demand = Demand::new(&spec.refill);
        }
        (shelf.spec, shelf.size, shelf.status) = (spec.clone(), state.size, state.status);
        shelf.prestart.clone_from(&applied.prestart);
        // Who looks from now on finds nothing that was made for an earlier version.
        shelf.ready.retain(|ready| state.standbys.get(ready).is_some_and(|it| it.phase == Phase::Ready));
        if shelf.status == Status::Drained {
            // Nothing will come to who waits: they look again, and start cold.
            shelf.waiting.clear();
        }
        shelf.changed.notify_one();
        for (sandbox, standby) in &state.standbys {
            let stage = match standby.phase {
                Phase::Warming => Stage::Warming,
                Phase::Ready => Stage::Returning,
                Phase::Claimed => Stage::Claimed,
                Phase::Spent => Stage::Spent,
            };
            let slot = Slot { stage, linked: false, handler_up: false, ended: None, baseline: None };
            inner.slots.entry(sandbox.clone()).or_insert_with(|| (id.clone(), slot));
        }
    }

    /// Takes note of what happened to a pool that is enrolled.
    pub(crate) fn observe(self: &Arc<Self>, id: &PoolId, event: &Event) {
        match event {
            Event::Ready(ready) => {
                self.change(id, |shelf| shelf.demand.came_up(ready.took_ms));
                self.offer(&ready.sandbox);
            }
            Event::Claimed(claimed) => self.stage(&claimed.sandbox, Stage::Claimed),
            Event::Failed(failed) => self.stage(&failed.sandbox, Stage::Spent),
            Event::Dirty(dirty) => self.stage(&dirty.sandbox, Stage::Spent),
            Event::Released(released) => self.stage(&released.sandbox, Stage::Spent),
            Event::Destroyed(destroyed) => {
                self.inner().slots.remove(&destroyed.sandbox);
                self.moved.notify_waiters();
            }
            _ => {}
        }
    }

    fn change(&self, id: &PoolId, change: impl FnOnce(&mut Shelf)) {
        if let Some(shelf) = self.inner().shelves.get_mut(id) {
            change(shelf);
        }
    }

    /// A sandbox goes on. One that is taken stays so until its claim is decided, unless that is what is said.
    fn stage(&self, sandbox: &SandboxId, stage: Stage) {
        let mut inner = self.inner();
        let Inner { shelves, slots } = &mut *inner;
        let Some((pool, slot)) = slots.get_mut(sandbox) else { return };
        if slot.stage == Stage::Taken && stage == Stage::Spent {
            slot.ended = Some("it is not used any more".to_owned());
            return;
        }
        let was_returning = std::mem::replace(&mut slot.stage, stage) == Stage::Returning;
        let pool = pool.clone();
        let returning = find::returning(slots, &pool);
        if let Some(shelf) = shelves.get_mut(&pool) {
            shelf.ready.retain(|ready| ready != sandbox);
            shelf.waiting.retain(|waiting| !waiting.is_closed());
            if was_returning
                && shelf.spec.queue.when_empty == WhenEmpty::Cold
                && shelf.waiting.len() > returning
            {
                // Who waits for it looks again, and may start cold.
                shelf.waiting.pop_back();
            }
            shelf.changed.notify_one();
        }
        drop(inner);
        self.moved.notify_waiters();
    }

    /// The sandbox can be taken from now on: by who has waited longest, if anybody waits.
    pub(crate) fn offer(self: &Arc<Self>, sandbox: &SandboxId) {
        let mut inner = self.inner();
        let Inner { shelves, slots } = &mut *inner;
        let Some((pool, slot)) = slots.get_mut(sandbox) else { return };
        let Some(shelf) = shelves.get_mut(pool) else { return };
        match slot.stage {
            Stage::Taken if slot.ended.is_some() => {
                slot.stage = Stage::Spent;
                return;
            }
            stage if (stage.is_coming() || stage == Stage::Taken) && slot.ended.is_none() => {}
            _ => return,
        }
        slot.stage = Stage::Taken;
        let mut offered = Taken::new(self, pool.clone(), sandbox.clone());
        while let Some(waiting) = shelf.waiting.pop_front() {
            match waiting.send(offered) {
                Ok(()) => return,
                // Who gave up waiting is passed over.
                Err(refused) => offered = refused,
            }
        }
        offered.forget();
        slot.stage = Stage::Ready;
        shelf.ready.push_back(sandbox.clone());
        shelf.changed.notify_one();
    }
    /// Whether the shard has no pool.
    pub(crate) fn is_idle(&self, shard: u8) -> bool {
        !self.inner().shelves.keys().any(|pool| shard_of(pool.as_str()) == shard)
    }

    /// Forgets pools, and says which sandboxes of theirs were not claimed.
    pub(crate) fn remove_where(&self, gone: impl Fn(&PoolId) -> bool) -> Vec<SandboxId> {
        let mut inner = self.inner();
        inner.shelves.retain(|pool, _| !gone(pool));
        let mut left = Vec::new();
        inner.slots.retain(|sandbox, (pool, slot)| {
            let is_gone = gone(pool);
            if is_gone && slot.stage != Stage::Claimed {
                left.push(sandbox.clone());
            }
            !is_gone
        });
        drop(inner);
        self.moved.notify_waiters();
        left
    }
}

#[cfg(test)]
mod tests;
