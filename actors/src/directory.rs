//! Where entities are found: by kind and id, started when needed, put away when idle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use events::CrewId;
use events::api::{Problem, ProblemKind};
use ractor::{ActorRef, ActorRuntime, RpcReplyPort};
use tokio::time::Instant;

use crate::admission::{Admission, Admitted, Gate, Refused};
use crate::changes::Changes;
use crate::core::Core;
use crate::entity::{Args, Entity, Hosted, Message, Outcome, Request, Shown};

type Address<D> = ActorRef<Admitted<Message<D>>>;

struct Slot<D: Hosted> {
    actor: Address<D>,
    gate: Gate,
    shown: Arc<Shown<D>>,
    used: Instant,
    is_final: bool,
}

/// The entities of one kind.
pub(crate) struct Directory<D: Hosted> {
    core: OnceLock<Weak<Core>>,
    admission: Admission,
    slots: Mutex<BTreeMap<Arc<str>, Slot<D>>>,
    changes: Changes,
}

impl<D: Hosted> Directory<D> {
    /// A directory whose mailboxes are bounded by `admission`, which other directories may share.
    pub(crate) fn new(admission: Admission) -> Self {
        Self { core: OnceLock::new(), admission, slots: Mutex::default(), changes: Changes::default() }
    }

    /// Tells the directory whose it is; once, before it is used.
    pub(crate) fn bind(&self, core: &Arc<Core>) {
        let _ = self.core.set(Arc::downgrade(core));
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Slot<D>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entities are in memory.
    pub(crate) fn resident(&self) -> usize {
        self.slots().len()
    }

    /// Has the entity answer a command.
    pub(crate) async fn execute(&self, id: &str, request: Request<D>) -> Result<Outcome<D>, Problem> {
        self.ask(id, |reply| Message::Execute(Box::new(request), reply)).await
    }

    /// The entity as it is: as its actor last knew it to be durable, or as it is loaded now.
    pub(crate) async fn read(&self, id: &str) -> Result<Arc<D::State>, Problem> {
        match self.shown(id) {
            Some(state) => Ok(state),
            None => self.ask(id, Message::Read).await,
        }
    }

    fn shown(&self, id: &str) -> Option<Arc<D::State>> {
        let core = self.core.get()?.upgrade()?;
        let mut slots = self.slots();
        let slot = slots.get_mut(id)?;
        slot.used = Instant::now();
        slot.shown.state(&core.shards)
    }

    /// Has the entity carry out all that its state asks for.
    pub(crate) async fn resume(&self, id: &str) -> Result<Arc<D::State>, Problem> {
        self.ask(id, Message::Resume).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        id: &str,
        message: impl FnOnce(RpcReplyPort<Result<T, Problem>>) -> Message<D>,
    ) -> Result<T, Problem> {
        let (sender, answer) = ractor::concurrency::oneshot();
        let mut message = message(sender.into());
        let (actor, admitted) = loop {
            let (actor, gate) = self.find_or_start(id)?;
            match gate.admit(message) {
                Ok(admitted) => break (actor, admitted),
                // It was put away between the look and the knock: the next look starts it anew.
                Err(Refused::Closed(refused)) => message = refused,
                Err(refused) => return Err(refused.into()),
            }
        };
        let gone =
            |detail: &str| Problem::new(ProblemKind::Unavailable, format!("{} `{id}` {detail}", D::KIND));
        if actor.cast(admitted).is_err() {
            self.drop_dead(id, &actor);
            return Err(gone("stopped while it was asked; try again"));
        }
        answer.await.unwrap_or_else(|_| {
            self.drop_dead(id, &actor);
            Err(gone("stopped before it answered; ask again with the same key"))
        })
    }

    fn find_or_start(&self, id: &str) -> Result<(Address<D>, Gate), Problem> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(id) {
            slot.used = Instant::now();
            return Ok((slot.actor.clone(), slot.gate.clone()));
        }
        let down = || Problem::new(ProblemKind::Unavailable, "the platform is shutting down");
        let core = self.core.get().and_then(Weak::upgrade).ok_or_else(down)?;
        let id: Arc<str> = id.into();
        let shown = Shown::new();
        let args = Args { core, id: Arc::clone(&id), shown: Arc::clone(&shown) };
        let (actor, _) = ActorRuntime::spawn_instant(None, Entity::<D>::new(), args).map_err(|error| {
            Problem::new(ProblemKind::Internal, format!("start {} `{id}`: {error}", D::KIND))
        })?;
        let gate = self.admission.gate();
        let slot =
            Slot { actor: actor.clone(), gate: gate.clone(), shown, used: Instant::now(), is_final: false };
        slots.insert(id, slot);
        Ok((actor, gate))
    }

    /// Forgets an actor that panicked, so that the next request starts it anew from its stream.
    fn drop_dead(&self, id: &str, actor: &Address<D>) {
        let mut slots = self.slots();
        if slots.get(id).is_some_and(|slot| slot.actor.get_id() == actor.get_id()) {
            slots.remove(id);
            tracing::error!(kind = %D::KIND, id, "entity actor stopped unasked; it is loaded again when needed");
        }
    }

    /// Takes note that the entity changed: wakes who waits for it.
    pub(crate) fn notify(&self, id: &str, is_final: bool) {
        if let Some(slot) = self.slots().get_mut(id) {
            slot.is_final = is_final;
        }
        self.changes.happened(id);
    }

    /// Waits until the shard of the entity is lost. Where it is not held, which may be since a moment ago, until it is
    /// time to look again.
    fn lost(&self, id: &str, state: &D::State) -> impl Future<Output = ()> + Send + use<D> {
        let key = D::crew(state).map_or(id, CrewId::as_str);
        let core = self.core.get().and_then(Weak::upgrade);
        let tenure = core.as_ref().and_then(|core| core.shards.holding(key).ok());
        let look_ms = core.map_or(0, |core| core.options.limits.effect_retry_max_ms);
        async move {
            match tenure {
                Some(tenure) => tenure.lost().await,
                None => tokio::time::sleep(Duration::from_millis(look_ms)).await,
            }
        }
    }

    /// Changes whenever shards are taken.
    fn generation(&self) -> Option<u64> {
        Some(self.core.get()?.upgrade()?.shards.generation())
    }

    /// Waits until the entity satisfies `wanted`.
    pub(crate) async fn wait(
        &self,
        id: &str,
        wanted: impl Fn(&D::State) -> bool + Send,
    ) -> Result<Arc<D::State>, Problem> {
        let waiting = self.changes.of(id);
        loop {
            let changed = waiting.next();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let generation = self.generation();
            let state = self.read(id).await?;
            if wanted(&state) {
                return Ok(state);
            }
            // Of what another node does with it from now on nobody here is told.
            let lost = self.lost(id, &state);
            // Nor of what one did between a loss and a return of the shard, since it was read.
            if generation == self.generation() {
                tokio::select! {
                    () = changed => {}
                    () = lost => {}
                }
            }
        }
    }

    /// Puts away entities that nobody has used for `idle`, or that have ended.
    pub(crate) fn passivate(&self, idle: Duration, ended: Duration) -> usize {
        let mut slots = self.slots();
        let before = slots.len();
        slots.retain(|_, slot| {
            let limit = if slot.is_final { ended } else { idle };
            // Nothing is under way behind a gate that closes, and nothing comes through it any more.
            let away = slot.used.elapsed() >= limit && slot.gate.close_if_idle();
            if away {
                slot.actor.stop(None);
            }
            !away
        });
        before - slots.len()
    }
}
