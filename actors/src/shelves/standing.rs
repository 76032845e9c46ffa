//! What is seen of the sandboxes of a shelf, from their start to their end.

use events::domain::pool::Prestart;
use events::{PoolId, SandboxId, Tenant};
use link::HandlerState;
use manifest::Resources;

use super::{Inner, Shelves, Slot, Stage, guards};

impl Shelves {
    /// The pool to which an unclaimed or claimed sandbox belongs.
    pub(crate) fn pool_of(&self, sandbox: &SandboxId) -> Option<PoolId> {
        self.inner().slots.get(sandbox).map(|(pool, _)| pool.clone())
    }

    /// Whether the sandbox stands by, or is about to.
    pub(crate) fn stands_by(&self, sandbox: &SandboxId) -> bool {
        let inner = self.inner();
        let slot = inner.slots.get(sandbox).map(|(_, slot)| slot.stage);
        slot.is_some_and(|stage| stage.is_coming() || matches!(stage, Stage::Ready | Stage::Taken))
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
        if !(slot.stage.is_coming() || slot.stage == Stage::Ready) {
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
        slot.ended.clone().filter(|_| slot.stage.is_coming() || slot.stage == Stage::Ready)
    }

    /// Waits until its runner has linked, and the process of the handler is up that is started ahead, where one is; an
    /// error says why that will not be.
    pub(crate) async fn comes_up(&self, sandbox: &SandboxId) -> Result<(), String> {
        let look = |inner: &Inner| match inner.slots.get(sandbox) {
            None | Some((_, Slot { stage: Stage::Spent, .. })) => {
                Some(Err("it is no longer wanted".to_owned()))
            }
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
        // A handler that was started ahead is a program of the user's at work, within its sandbox's limits: how much it has
        // used says how long it has stood by, and nothing of whether it can be trusted.
        let is_ahead = shelves.get(pool).is_some_and(|shelf| shelf.prestart.is_some());
        if slot.stage != Stage::Ready || is_ahead {
            return None;
        }
        let now = (beat.cpu_ms, beat.memory_bytes);
        let (cpu_ms, memory) = *slot.baseline.get_or_insert(now);
        if beat.cpu_ms.saturating_sub(cpu_ms) > guards::STANDBY_CPU_MS_MAX {
            return Some(format!("it used {} ms of processor time while it stood by", beat.cpu_ms - cpu_ms));
        }
        if beat.memory_bytes > memory.saturating_mul(2).max(guards::STANDBY_MEMORY_BYTES) {
            return Some(format!(
                "its memory grew from {memory} to {} bytes as it stood by",
                beat.memory_bytes
            ));
        }
        None
    }
}
