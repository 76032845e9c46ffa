//! The actors' side of the platform as a whole: built, connected, recovered, and shut down.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use events::EventStore;
use events::api::{Commands, Problem, ProblemKind};
use events::artifact::ArtifactStore;
use events::lease::Leases;
use events::snapshot::SnapshotStore;
use events::supervision::{Backoff, OnExhausted, Policy};
use events::{SandboxId, TaskId};
use tokio::sync::{broadcast, mpsc};

use crate::clock::Clock;
use crate::core::Core;
use crate::host::Host;
use crate::links::Links;
use crate::options::Options;
use crate::peers::Peers;
use crate::recovery::Registry;
use crate::route::Router;
use crate::secrets::Secrets;
use crate::shelves::PoolFigures;
use crate::supervisor::{self, Entry, Journal, JournalError};
use crate::watchdog::{self, Finding, HungReason, Sign, Signal, Subject, Verdict};
use crate::{breaches, hibernation, hosted, kills, recovery, route, service};

/// What the platform stands on.
pub struct Seams {
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// Bodies and bundles.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// Where agents run.
    pub provider: Arc<dyn sandbox::Provider>,
    /// Which node runs what: the leases of the log.
    pub leases: Arc<dyn Leases>,
    /// What had not ended, for takeovers.
    pub registry: Arc<dyn Registry>,
    /// States of entities with long streams.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// The way to other nodes; without one, what they run is done where they are asked.
    pub bus: Option<Arc<dyn nats::Bus>>,
    /// What agents are given and nobody else may know.
    pub secrets: Arc<dyn Secrets>,
    /// Time.
    pub clock: Clock,
}

/// Figures about what is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Entities in memory.
    pub resident_entities: usize,
    /// Sandboxes that serve an incarnation.
    pub live_sandboxes: usize,
}

/// The crews, agents and tasks of this node. Cheap to clone.
#[derive(Clone)]
pub struct Platform {
    core: Arc<Core>,
    host: Arc<Host>,
    services: Arc<Mutex<Option<supervisor::Handle>>>,
    bus: Option<Arc<dyn nats::Bus>>,
}

impl Platform {
    /// A platform that is not connected yet.
    pub fn new(options: Options, seams: Seams) -> Self {
        let bus = seams.bus.clone();
        let core = Core::new(options, seams);
        Self { host: Arc::new(Host::new(Arc::clone(&core))), core, services: Arc::default(), bus }
    }

    /// What the gateway calls.
    pub fn host(&self) -> Arc<dyn gateway::Host> {
        Arc::clone(&self.host) as Arc<dyn gateway::Host>
    }

    /// What every door calls.
    pub fn commands(&self) -> Arc<dyn Commands> {
        Arc::new(Router::new(Arc::clone(&self.core)))
    }

    /// A body as it was, whether an event holds it or an artifact.
    ///
    /// # Errors
    /// When the artifact that holds it cannot be read.
    pub async fn body(&self, kept: &serde_json::Value) -> Result<serde_json::Value, Problem> {
        crate::contents::get(&self.core, kept).await
    }

    /// The end of the log of the handler in a sandbox, which is on `node` where that is known; `None` where there is no
    /// such sandbox (any more).
    ///
    /// # Errors
    /// When the log is there and cannot be read, or its node cannot be reached.
    pub async fn log(
        &self,
        node: Option<&str>,
        sandbox: &SandboxId,
        bytes_max: u64,
    ) -> Result<Option<String>, Problem> {
        route::log(&self.core, node, sandbox, bytes_max).await
    }

    /// What the handler that has the task in hand on this node says of it from now on to live watchers only.
    pub fn deltas(&self, task: &TaskId) -> broadcast::Receiver<Arc<str>> {
        self.core.live.watch(task)
    }

    /// Figures about what is in memory.
    pub fn figures(&self) -> Figures {
        let core = &self.core;
        Figures {
            resident_entities: core.crews.resident()
                + core.agents.resident()
                + core.tasks.resident()
                + core.pools.resident()
                + core.profile_entities.resident(),
            live_sandboxes: core.posts.sandboxes().len(),
        }
    }

    /// How the pools of this node do.
    pub fn pools(&self) -> Vec<PoolFigures> {
        self.core.shelves.figures(self.core.clock.now().millis())
    }

    /// Connects the platform with its links and its watchdog, takes its share of the shards, recovers what was
    /// unfinished in them, and starts its loops.
    ///
    /// # Errors
    /// When it was started before, its supervisor cannot be, or the log, its leases or its views cannot be used.
    pub async fn start(
        &self,
        links: Arc<dyn Links>,
        watchdog: watchdog::Handle,
        verdicts: mpsc::Receiver<Verdict>,
    ) -> Result<(), Problem> {
        let twice = || Problem::new(ProblemKind::Conflict, "the platform was started before");
        self.core.links.set(links).map_err(|_| twice())?;
        self.core.signals.set(watchdog).map_err(|_| twice())?;
        let options = supervisor::Options::new(services_policy(), Arc::new(Logged));
        let services = supervisor::spawn(options)
            .await
            .map_err(|error| Problem::new(ProblemKind::Internal, format!("start the services: {error}")))?;
        let verdicts = Arc::new(tokio::sync::Mutex::new(verdicts));
        let exits = Arc::new(tokio::sync::Mutex::new(self.core.provider.exits()));
        let tampered = Arc::new(tokio::sync::Mutex::new(self.core.provider.breaches()));
        for child in [
            service::child("verdicts", {
                let core = Arc::clone(&self.core);
                move || judge(Arc::clone(&core), Arc::clone(&verdicts))
            }),
            service::child("exits", {
                let core = Arc::clone(&self.core);
                move || watch_exits(Arc::clone(&core), Arc::clone(&exits))
            }),
            service::child("breaches", {
                let core = Arc::clone(&self.core);
                move || breaches::watch(Arc::clone(&core), Arc::clone(&tampered))
            }),
        ] {
            add(&services, child).await?;
        }
        let taken = self.core.keeper.join(&self.core).await?;
        add(
            &services,
            service::child("leases", {
                let core = Arc::clone(&self.core);
                move || keep(Arc::clone(&core))
            }),
        )
        .await?;
        if let Some(bus) = &self.bus {
            let peers = Peers::new(Arc::clone(bus), &self.core.keeper.secret().await?);
            self.core.peers.set(peers.clone()).map_err(|_| twice())?;
            let core = Arc::clone(&self.core);
            let serve = move || route::serve(Arc::clone(&core), peers.clone());
            add(&services, service::child("other nodes", serve)).await?;
        }
        recovery::begin(&self.core, taken).await?;
        self.core.spawn_always(kills::finish(Arc::clone(&self.core)));
        for child in [
            service::child("passivation", {
                let core = Arc::clone(&self.core);
                move || passivate(Arc::clone(&core))
            }),
            service::child("hibernation", {
                let core = Arc::clone(&self.core);
                move || hibernation::keep(Arc::clone(&core))
            }),
            service::child("reconciliation", {
                let core = Arc::clone(&self.core);
                move || reconcile(Arc::clone(&core))
            }),
        ] {
            add(&services, child).await?;
        }
        *self.services.lock().unwrap_or_else(PoisonError::into_inner) = Some(services);
        Ok(())
    }

    /// Stops taking commands, ends all effects, and leaves the sandboxes running, to be adopted by the next start.
    pub async fn shutdown(&self) {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner).take();
        let patience = Duration::from_millis(self.core.options.limits.shutdown_ms);
        if tokio::time::timeout(patience, self.host.close_notes()).await.is_err() {
            tracing::warn!("what handlers noted last is not all in the log");
        }
        self.core.stop.cancel();
        self.core.effects.close();
        if tokio::time::timeout(patience, self.core.effects.wait()).await.is_err() {
            tracing::warn!("some effects did not end in time; the next start carries them out again");
        }
        if let Some(services) = services {
            services.stop(self.core.options.limits.shutdown_ms).await;
            if tokio::time::timeout(patience, self.core.keeper.leave(&self.core)).await.is_err() {
                tracing::warn!("not all was given up in time; what is left is removed at the next start");
            }
        }
    }
}

async fn add(services: &supervisor::Handle, child: supervisor::ChildSpec) -> Result<(), Problem> {
    let added = services.add(child).await;
    added.map_err(|error| Problem::new(ProblemKind::Internal, format!("start a service: {error}")))
}

/// The platform's own loops are always wanted: they are restarted without end, at growing distances.
fn services_policy() -> Policy {
    Policy {
        max_restarts: u32::MAX,
        backoff: Backoff { initial_ms: 10, max_ms: 5_000, jitter: 0.2 },
        on_exhausted: OnExhausted::Escalate,
        ..Policy::default()
    }
}

/// Restarts of the platform's own loops are for its operators: they go to its log.
struct Logged;

#[async_trait]
impl Journal for Logged {
    async fn record(&self, entry: Entry) -> Result<(), JournalError> {
        match entry {
            Entry::ChildExited { exit, .. } if exit.is_normal() => tracing::debug!(?entry, "service stopped"),
            _ => tracing::error!(?entry, "service ended unasked"),
        }
        Ok(())
    }
}

/// Carries out the watchdog's verdicts.
async fn judge(core: Arc<Core>, verdicts: Arc<tokio::sync::Mutex<mpsc::Receiver<Verdict>>>) {
    let mut verdicts = verdicts.lock().await;
    while let Some(Verdict { subject, finding }) = verdicts.recv().await {
        use events::supervision::Exit;
        let (exit, detail) = match finding {
            Finding::Dead { reason, oom: true } => (Exit::OutOfMemory, reason),
            Finding::Dead { reason, oom: false } => (Exit::Killed, reason),
            Finding::Lost => (Exit::Lost, "nothing was heard from it for too many heartbeats".to_owned()),
            Finding::Hung { reason } => (Exit::Hung, hung(reason).to_owned()),
            Finding::TaskHung { task } => {
                hung_task(&core, &subject, task);
                continue;
            }
            Finding::Waiting | Finding::Recovered => continue,
        };
        // An agent that no sandbox of this node serves any more is nobody's concern here.
        let Some(crew) = core.posts.crew_of(&subject.agent) else { continue };
        let worker = Arc::clone(&core);
        core.spawn_for(&crew, async move {
            hosted::down(&worker, &subject.agent, subject.incarnation, exit, detail).await;
        });
    }
    // The watchdog's thread is gone for good only when the platform ends.
    std::future::pending::<()>().await;
}

/// One of an agent's tasks makes no progress while the others do: that attempt is over, and the agent stays.
fn hung_task(core: &Arc<Core>, subject: &Subject, task: TaskId) {
    let Some(crew) = core.posts.crew_of(&subject.agent) else { return };
    let (worker, subject) = (Arc::clone(core), subject.clone());
    core.spawn_for(&crew, async move { hosted::end_hung(&worker, &subject, &task).await });
}

fn hung(reason: HungReason) -> &'static str {
    match reason {
        HungReason::Stopped => "its handler's process is stopped",
        HungReason::Ping => "its handler did not answer a ping",
        HungReason::Silent => "its handler was busy and said nothing for too long",
    }
}

/// Tells the watchdog of sandboxes that ended.
async fn watch_exits(core: Arc<Core>, exits: Arc<tokio::sync::Mutex<broadcast::Receiver<sandbox::Exit>>>) {
    let mut exits = exits.lock().await;
    loop {
        match exits.recv().await {
            Ok(exit) => exited(&core, &exit),
            // What was missed is found by the comparison of what should run with what runs.
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "exits of sandboxes were missed");
                recovery::reconcile(&core).await;
            }
            Err(broadcast::error::RecvError::Closed) => std::future::pending::<()>().await,
        }
    }
}

pub(crate) fn exited(core: &Arc<Core>, exit: &sandbox::Exit) {
    let Ok(id) = exit.id.as_str().parse() else { return };
    let how = match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("its sandbox was killed by signal {signal}"),
        (Some(code), None) => format!("its sandbox ended with exit code {code}"),
        (None, None) => "its sandbox ended".to_owned(),
    };
    let reason = if exit.oom { format!("{how}: it ran out of memory") } else { how };
    let Some(post) = core.posts.get(&id) else { return hosted::ended(core, &id, &reason) };
    let subject = Subject { agent: post.agent, incarnation: post.incarnation };
    core.tell(Signal::Of(subject, Sign::SandboxExited { reason, oom: exit.oom }));
}

async fn keep(core: Arc<Core>) {
    core.keeper.keep(Arc::clone(&core)).await;
}

async fn passivate(core: Arc<Core>) {
    let limits = &core.options.limits;
    let idle = Duration::from_millis(limits.passivate_idle_ms);
    let ended = Duration::from_millis(limits.passivate_ended_ms);
    loop {
        tokio::time::sleep(Duration::from_millis(limits.passivate_every_ms)).await;
        core.crews.passivate(idle, ended);
        core.agents.passivate(idle, ended);
        core.tasks.passivate(idle, ended);
        core.pools.passivate(idle, ended);
        core.profile_entities.passivate(idle, ended);
    }
}

async fn reconcile(core: Arc<Core>) {
    loop {
        tokio::time::sleep(Duration::from_millis(core.options.limits.reconcile_every_ms)).await;
        recovery::reconcile(&core).await;
    }
}
