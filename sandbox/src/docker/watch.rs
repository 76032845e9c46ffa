//! Seeing containers end, and what is done to them from outside.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bollard::models::EventMessage;
use futures_util::StreamExt;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::{Inner, labels};
use crate::{Breach, Container, Exit, Id, Tampering};

/// The first wait before the daemon's events are asked for again.
const RETRY: Duration = Duration::from_millis(50);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A container that was seen to run, and to be what it must be.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The container, and what it was made of.
    pub(super) container: Container,
    /// The container that speaks on its socket: itself, or its relay.
    pub(super) speaker: String,
    /// It is to stand still.
    pub(super) is_still: bool,
    /// It is not what it must be (any more), and is being killed: it speaks for nobody.
    pub(super) is_spoilt: bool,
}

/// What runs, as far as is known, and who wants to know of its end.
#[derive(Debug)]
pub(super) struct Watch {
    known: Mutex<HashMap<Id, Known>>,
    exits: broadcast::Sender<Exit>,
    breaches: broadcast::Sender<Breach>,
    /// What was found before anybody listened.
    unheard: Mutex<Option<broadcast::Receiver<Breach>>>,
    /// Whose breach was told, and who is not known to have ended since.
    told: Mutex<HashSet<Id>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Watch {
    pub(super) fn new(exits_max: usize) -> Self {
        let (breaches, unheard) = broadcast::channel(exits_max);
        Self {
            known: Mutex::default(),
            exits: broadcast::Sender::new(exits_max),
            breaches,
            unheard: Mutex::new(Some(unheard)),
            told: Mutex::default(),
            task: Mutex::default(),
        }
    }

    pub(super) fn breaches(&self) -> broadcast::Receiver<Breach> {
        let unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner).take();
        unheard.unwrap_or_else(|| self.breaches.subscribe())
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Exit> {
        self.exits.subscribe()
    }

    pub(super) fn add(&self, id: Id, known: Known) {
        self.known_now().insert(id, known);
    }

    pub(super) fn get(&self, id: &Id) -> Option<Known> {
        self.known_now().get(id).cloned()
    }

    /// Changes what is known of it.
    pub(super) fn change(&self, id: &Id, change: impl FnOnce(&mut Known)) {
        self.known_now().get_mut(id).map(change);
    }

    /// The sandbox whose container or relay this is, or whose network has this name.
    fn joined(&self, container: &str, network: &str) -> Option<Id> {
        let known = self.known_now();
        let is_its = |(id, known): &(&Id, &Known)| {
            id.as_str() == network || known.container.id == container || known.speaker == container
        };
        known.iter().find(is_its).map(|(id, _)| id.clone())
    }

    /// Forgets it. Whoever gets `true` is the one to announce its exit, so it is announced once.
    pub(super) fn take(&self, id: &Id) -> bool {
        self.told_now().remove(id);
        self.known_now().remove(id).is_some()
    }

    pub(super) fn announce(&self, exit: Exit) {
        tracing::info!(sandbox = %exit.id, code = exit.code, signal = exit.signal, oom = exit.oom, "sandbox ended");
        // Nobody listening is fine: the exit is also in the list.
        let _ = self.exits.send(exit);
    }

    /// Tells of a breach, once: a sandbox that cannot be killed yet is looked at again.
    pub(super) fn report(&self, breach: Breach) {
        if !self.told_now().insert(breach.id.clone()) {
            return;
        }
        let Breach { id, what, detail, .. } = &breach;
        tracing::error!(sandbox = %id, ?what, detail, "a sandbox was tampered with; it is killed");
        // Nobody listening is fine: the sandbox is killed all the same.
        let _ = self.breaches.send(breach);
    }

    fn ids(&self) -> Vec<Id> {
        self.known_now().keys().cloned().collect()
    }

    fn known_now(&self) -> MutexGuard<'_, HashMap<Id, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told_now(&self) -> MutexGuard<'_, HashSet<Id>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// The time in seconds, as the daemon takes it for events.
pub(super) fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// Watches from now on what happened since then.
pub(super) fn start(inner: &Arc<Inner>, since: u64) {
    let weak = Arc::downgrade(inner);
    let task = tokio::spawn(async move { follow(weak, since).await });
    *inner.watch.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
}

/// Follows the daemon's events for as long as the provider is there. After the stream was lost, all that is known is
/// looked at again: the daemon tells of few events a second time, and of none from before its own restart.
async fn follow(weak: Weak<Inner>, mut since: u64) {
    let mut pause = RETRY;
    loop {
        let Some(inner) = weak.upgrade() else { return };
        let label = format!("{}={}", labels::INSTANCE, inner.options.instance);
        let mut events = inner.daemon.events(&label, since);
        drop(inner);
        let lost = loop {
            match events.next().await {
                Some(Ok(event)) => {
                    pause = RETRY;
                    since = event.time.and_then(|time| u64::try_from(time).ok()).unwrap_or(since);
                    take(&weak, &event);
                }
                Some(Err(error)) => break error.to_string(),
                None => break "the daemon ended it".to_owned(),
            }
        };
        tracing::warn!(reason = lost, "the stream of Docker's events is lost; connecting again");
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
        let Some(inner) = weak.upgrade() else { return };
        if inner.daemon.await_answer().await.is_ok() {
            look_again(&inner).await;
        }
    }
}

/// Finds what happened unseen.
async fn look_again(inner: &Arc<Inner>) {
    for id in inner.watch.ids() {
        let _gate = inner.gates.enter_to_look(&id).await;
        inner.look(&id, None).await;
    }
}

fn take(weak: &Weak<Inner>, event: &EventMessage) {
    let Some(inner) = weak.upgrade() else { return };
    let Some(attributes) = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref()) else { return };
    let action = event.action.as_deref().unwrap_or_default();
    let joined = || {
        let network = attributes.get("name").map_or("", String::as_str);
        inner.watch.joined(attributes.get("container").filter(|_| network != "none")?, network)
    };
    let own = || labels::sandbox(attributes).or_else(|| labels::beside(attributes));
    let Some(id) = (if action == "connect" { joined() } else { own() }) else { return };
    // What the platform itself had go on is no news.
    if action == "unpause" && inner.watch.get(&id).is_none_or(|known| !known.is_still) {
        return;
    }
    let seen = action.starts_with("exec_create").then_some(Tampering::Executed);
    // Others are not to wait while somebody is busy with this one.
    tokio::spawn(async move {
        let _gate = inner.gates.enter_to_look(&id).await;
        inner.look(&id, seen).await;
    });
}
