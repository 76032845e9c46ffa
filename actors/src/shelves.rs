//! The shelves: what stands by in each pool of this node, who waits for it, and how often it was asked for.
//!
//! All of it is derived from the pools' events, but for claims that are on their way: a sandbox that is taken is
//! nobody else's, and goes back unless its claim became durable. The reservation of its id decides (SB-1); what is
//! here only sees to it that claims seldom meet.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::domain::pool::{Event, Phase, Prestart, Size, State, Status};
use events::lease::shard_of;
use events::{Digest, PoolId, SandboxId, Tenant};
use link::HandlerState;
use manifest::{PoolSpec, Resources, WhenEmpty};
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

mod demand;
mod figures;
mod guards;

use demand::Demand;
pub use figures::{Counts, PoolFigures};
pub(crate) use guards::{ColdStart, Taken};

/// Where a sandbox of a shelf stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It comes up.
    Warming,
    /// It can be taken.
    Ready,
    /// A claim of it is on its way.
    Taken,
    /// It serves an agent.
    Claimed,
    /// It is never taken again.
    Spent,
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

/// What is to be done about a pool's size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// So many are to be made.
    pub(crate) make: usize,
    /// These are not called for any more.
    pub(crate) drop: Vec<SandboxId>,
}

impl Shelves {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the shelf say what the pool's state says; sandboxes that are ready are offered only once they are known to
    /// be linked.
    pub(crate) fn enroll(&self, id: &PoolId, state: &State) {
        let Some(applied) = &state.applied else { return };
        let Ok(spec) = serde_json::from_value::<PoolSpec>(applied.spec.clone()) else {
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
                Phase::Warming | Phase::Ready => Stage::Warming,
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
            Event::Destroyed(destroyed) => drop(self.inner().slots.remove(&destroyed.sandbox)),
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
        slot.stage = stage;
        if let Some(shelf) = shelves.get_mut(pool) {
            shelf.ready.retain(|ready| ready != sandbox);
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
            Stage::Warming | Stage::Taken if slot.ended.is_none() => {}
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

    /// Looks for a sandbox for an agent of this profile, which may want an image of its own.
    pub(crate) fn take(
        self: &Arc<Self>,
        id: &PoolId,
        profile: Digest,
        image: Option<&str>,
        now_ms: i64,
    ) -> Found {
        let mut inner = self.inner();
        let Inner { shelves, slots } = &mut *inner;
        let Some(shelf) = shelves.get_mut(id) else { return Found::Elsewhere };
        let fits = image.is_none_or(|image| shelf.spec.image.as_deref() == Some(image))
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
        let may_start = match shelf.spec.queue.when_empty {
            // Nothing comes to who waits for a pool that is kept empty.
            _ if shelf.status == Status::Drained => true,
            WhenEmpty::Cold => shelf.cold_starts < shelf.spec.refill.concurrency,
            WhenEmpty::Wait => false,
        };
        if may_start {
            shelf.cold_starts += 1;
            shelf.counts.cold += 1;
            return Found::Cold(ColdStart::new(self, id.clone()));
        }
        shelf.waiting.retain(|waiting| !waiting.is_closed());
        if shelf.waiting.len() >= shelf.spec.queue.length as usize {
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
        let Some(shelf) = inner.shelves.get_mut(id) else { return true };
        shelf.waiting.retain(|waiting| !waiting.is_closed());
        if shelf.status == Status::Drained {
            return true;
        }
        let queue = shelf.spec.queue;
        let cold = match queue.when_empty {
            WhenEmpty::Cold => shelf.spec.refill.concurrency.saturating_sub(shelf.cold_starts),
            WhenEmpty::Wait => 0,
        };
        let room = (queue.length as usize).saturating_sub(shelf.waiting.len());
        let admits = claims <= shelf.ready.len() + room + cold as usize;
        shelf.counts.refused += u64::from(!admits);
        admits
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

    /// The pool to which an unclaimed or claimed sandbox belongs.
    pub(crate) fn pool_of(&self, sandbox: &SandboxId) -> Option<PoolId> {
        self.inner().slots.get(sandbox).map(|(pool, _)| pool.clone())
    }

    /// Whether the sandbox stands by, or is about to.
    pub(crate) fn stands_by(&self, sandbox: &SandboxId) -> bool {
        let inner = self.inner();
        let slot = inner.slots.get(sandbox).map(|(_, slot)| slot.stage);
        slot.is_some_and(|stage| matches!(stage, Stage::Warming | Stage::Ready | Stage::Taken))
    }

    /// Its runner has linked.
    pub(crate) fn linked(&self, sandbox: &SandboxId) {
        if let Some((_, slot)) = self.inner().slots.get_mut(sandbox) {
            slot.linked = true;
        }
        self.moved.notify_waiters();
    }

    /// Whether its runner has a link.
    pub(crate) fn is_linked(&self, sandbox: &SandboxId) -> bool {
        self.inner().slots.get(sandbox).is_some_and(|(_, slot)| slot.linked)
    }

    /// The profile whose handler the sandbox starts ahead, and its tenant.
    pub(crate) fn prestart(&self, sandbox: &SandboxId) -> Option<(Tenant, Prestart)> {
        let inner = self.inner();
        let (pool, _) = inner.slots.get(sandbox)?;
        let shelf = inner.shelves.get(pool)?;
        Some((shelf.tenant.clone(), shelf.prestart.clone()?))
    }

    /// What the pool's sandboxes are made with.
    pub(crate) fn resources(&self, sandbox: &SandboxId) -> Option<Resources> {
        let inner = self.inner();
        let (pool, _) = inner.slots.get(sandbox)?;
        inner.shelves.get(pool).map(|shelf| shelf.spec.resources.clone())
    }

    /// Its handler, its link or it itself has ended. Says whether it stood by and nobody has said so yet: then it may not be
    /// used any more, for this reason.
    pub(crate) fn ended(&self, sandbox: &SandboxId, how: &str) -> bool {
        let mut inner = self.inner();
        let Some((_, slot)) = inner.slots.get_mut(sandbox) else { return false };
        (slot.linked, slot.handler_up) = (false, false);
        if !matches!(slot.stage, Stage::Warming | Stage::Ready) {
            return false;
        }
        let is_news = slot.ended.is_none() && slot.stage == Stage::Ready;
        slot.ended.get_or_insert_with(|| how.to_owned());
        drop(inner);
        self.moved.notify_waiters();
        is_news
    }

    /// Why a sandbox that was to stand by cannot, if it has ended meanwhile.
    pub(crate) fn fault(&self, sandbox: &SandboxId) -> Option<String> {
        let inner = self.inner();
        let (_, slot) = inner.slots.get(sandbox)?;
        slot.ended.clone().filter(|_| matches!(slot.stage, Stage::Warming | Stage::Ready))
    }

    /// Waits until its runner has linked, and the process of the handler is up that is started ahead, where one is; an
    /// error says why that will not be.
    pub(crate) async fn comes_up(&self, sandbox: &SandboxId) -> Result<(), String> {
        let look = |inner: &Inner| match inner.slots.get(sandbox) {
            None => Some(Err("it is no longer wanted".to_owned())),
            Some((_, Slot { ended: Some(ended), .. })) => Some(Err(ended.clone())),
            Some((pool, slot)) => {
                let is_ahead = inner.shelves.get(pool).is_some_and(|shelf| shelf.prestart.is_some());
                (slot.linked && (slot.handler_up || !is_ahead)).then_some(Ok(()))
            }
        };
        self.until(look).await
    }

    /// Waits until no claim of the sandbox is on its way.
    pub(crate) async fn decided(&self, sandbox: &SandboxId) {
        let taken = |(_, slot): &(PoolId, Slot)| slot.stage == Stage::Taken;
        self.until(|inner| (!inner.slots.get(sandbox).is_some_and(taken)).then_some(())).await;
    }

    async fn until<T>(&self, look: impl Fn(&Inner) -> Option<T>) -> T {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if let Some(found) = look(&self.inner()) {
                return found;
            }
            moved.await;
        }
    }

    /// What is seen of a runner that stands by. Says what is suspicious of it, if anything is.
    pub(crate) fn beat(&self, sandbox: &SandboxId, beat: &link::Heartbeat) -> Option<String> {
        let mut inner = self.inner();
        let Inner { shelves, slots } = &mut *inner;
        let (pool, slot) = slots.get_mut(sandbox)?;
        if beat.handler == HandlerState::Idle && !slot.handler_up {
            slot.handler_up = true;
            self.moved.notify_waiters();
        }
        if slot.stage != Stage::Ready {
            return None;
        }
        // A handler that was started ahead makes itself ready, and may use what its sandbox may.
        let is_ahead = shelves.get(pool).is_some_and(|shelf| shelf.prestart.is_some());
        let cpu_ms_max = if is_ahead { guards::AHEAD_CPU_MS_MAX } else { guards::STANDBY_CPU_MS_MAX };
        let now = (beat.cpu_ms, beat.memory_bytes);
        let (cpu_ms, memory) = *slot.baseline.get_or_insert(now);
        if beat.cpu_ms.saturating_sub(cpu_ms) > cpu_ms_max {
            return Some(format!("it used {} ms of processor time while it stood by", beat.cpu_ms - cpu_ms));
        }
        if !is_ahead && beat.memory_bytes > memory.saturating_mul(2).max(guards::STANDBY_MEMORY_BYTES) {
            return Some(format!(
                "its memory grew from {memory} to {} bytes as it stood by",
                beat.memory_bytes
            ));
        }
        None
    }

    /// What is to be made and what to be dropped now, given the pool's state.
    pub(crate) fn plan(&self, id: &PoolId, state: &State, now_ms: i64) -> Plan {
        let mut inner = self.inner();
        let Inner { shelves, slots } = &mut *inner;
        let Some(shelf) = shelves.get_mut(id) else { return Plan::default() };
        if state.status == Status::Drained {
            return Plan::default();
        }
        // After a restart those that stood by are on their way back too, and are not made.
        let comes = |slot: &Slot| slot.stage == Stage::Warming && slot.ended.is_none();
        let coming = slots.values().filter(|(pool, slot)| pool == id && comes(slot)).count();
        shelf.waiting.retain(|waiting| !waiting.is_closed());
        let (ready, warming) = (shelf.ready.len(), state.count(Phase::Warming) as usize);
        let wanted = shelf.target(now_ms) as usize + shelf.waiting.len();
        let refill = &shelf.spec.refill;
        // While sandboxes do not come up, one at a time is tried.
        let at_once = if state.failures > 0 { 1 } else { refill.concurrency as usize };
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

    /// The pools' figures.
    pub(crate) fn figures(&self, now_ms: i64) -> Vec<PoolFigures> {
        let inner = self.inner();
        let of = |(id, shelf): (&PoolId, &Shelf)| {
            let stages = |wanted: Stage| {
                let own = inner.slots.values().filter(|(pool, slot)| pool == id && slot.stage == wanted);
                own.count() as u64
            };
            PoolFigures {
                tenant: shelf.tenant.to_string(),
                name: shelf.name.clone(),
                target: shelf.target(now_ms).into(),
                ready: stages(Stage::Ready),
                warming: stages(Stage::Warming),
                claimed: stages(Stage::Claimed) + stages(Stage::Taken),
                waiting: shelf.waiting.len() as u64,
                claims_per_second: shelf.demand.per_second(now_ms),
                refill_ms: shelf.demand.cold_ms(),
                counts: shelf.counts,
            }
        };
        inner.shelves.iter().map(of).collect()
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

impl Shelf {
    fn target(&self, now_ms: i64) -> u32 {
        let Size { min, max, target } = self.size;
        let rate = self.demand.per_second(now_ms);
        let called_for = || demand::target(rate, self.demand.cold_ms(), &self.spec.refill, min, max);
        match self.status {
            Status::Drained => 0,
            Status::Active | Status::Degraded => target.unwrap_or_else(called_for),
        }
    }
}

#[cfg(test)]
mod tests;
