//! What every actor, effect and door shares: the seams, the directories, and what is known in memory.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use events::api::{Problem, ProblemKind};
use events::artifact::ArtifactStore;
use events::domain::agent::Agent;
use events::domain::crew::Crew;
use events::domain::profile::Profile;
use events::domain::task::Task;
use events::domain::{Context, Decider};
use events::store::Epoch;
use events::{CommandId, EventStore, Meta, StreamId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::entity::{Cause, Hosted, Outcome, Request};
use crate::links::Links;
use crate::options::Options;
use crate::platform::Seams;
use crate::posts::Posts;
use crate::profiles::Profiles;
use crate::roster::Rosters;
use crate::tallies::Tallies;
use crate::watchdog;

/// Number of shards (DESIGN §5): entities of one crew share one.
const SHARDS: usize = 256;

pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    pub(crate) provider: Arc<dyn sandbox::Provider>,
    pub(crate) links: OnceLock<Arc<dyn Links>>,
    pub(crate) signals: OnceLock<watchdog::Handle>,
    pub(crate) crews: Directory<Crew>,
    pub(crate) agents: Directory<Agent>,
    pub(crate) tasks: Directory<Task>,
    pub(crate) profile_entities: Directory<Profile>,
    pub(crate) profiles: Profiles,
    pub(crate) rosters: Rosters,
    pub(crate) posts: Posts,
    pub(crate) tallies: Tallies,
    pub(crate) effects: TaskTracker,
    pub(crate) stop: CancellationToken,
    epochs: Vec<tokio::sync::Mutex<Option<Epoch>>>,
}

impl Core {
    pub(crate) fn new(options: Options, seams: Seams) -> Arc<Self> {
        let admission = Admission::new(options.admission);
        let core = Arc::new(Self {
            options,
            clock: seams.clock,
            store: seams.store,
            artifacts: seams.artifacts,
            provider: seams.provider,
            links: OnceLock::new(),
            signals: OnceLock::new(),
            crews: Directory::new(admission.clone()),
            agents: Directory::new(admission.clone()),
            tasks: Directory::new(admission.clone()),
            profile_entities: Directory::new(admission),
            profiles: Profiles::default(),
            rosters: Rosters::default(),
            posts: Posts::default(),
            tallies: Tallies::default(),
            effects: TaskTracker::new(),
            stop: CancellationToken::new(),
            epochs: (0..SHARDS).map(|_| tokio::sync::Mutex::default()).collect(),
        });
        core.crews.bind(&core);
        core.agents.bind(&core);
        core.tasks.bind(&core);
        core.profile_entities.bind(&core);
        core
    }

    pub(crate) fn links(&self) -> &Arc<dyn Links> {
        self.links.get().expect("the platform sets its links before it does anything")
    }

    pub(crate) fn signals(&self) -> &watchdog::Handle {
        self.signals.get().expect("the platform sets its watchdog before it does anything")
    }

    /// Tells the watchdog what was seen. It is never waited for: what it misses, the next heartbeat says again.
    pub(crate) fn tell(&self, signal: watchdog::Signal) {
        if self.signals().try_tell(signal).is_err() && !self.stop.is_cancelled() {
            tracing::warn!("the watchdog is behind; a signal is let go");
        }
    }

    /// What a decision may know beside the state.
    pub(crate) fn context(&self) -> Context {
        Context { now: self.clock.now(), seed: self.clock.chance() }
    }

    /// The shard that `key` belongs to: the same on every node and in every version.
    fn shard(key: &str) -> u8 {
        events::Digest::of(key.as_bytes()).0[0]
    }

    /// The lease epoch under which entities of `key`'s shard are written; taken when it is first needed.
    pub(crate) async fn epoch_for(&self, key: &str) -> Result<Epoch, Problem> {
        let shard = Self::shard(key);
        // Held while the shard is taken: whoever took it a second time would fence the first.
        let mut held = self.epochs[usize::from(shard)].lock().await;
        match *held {
            Some(epoch) => Ok(epoch),
            None => Ok(*held.insert(self.store.take_shard(shard, &self.options.node).await?)),
        }
    }

    /// Forgets an epoch that was refused, so that the lease is asked for again.
    pub(crate) async fn forget_epoch(&self, epoch: Epoch) {
        self.epochs[usize::from(epoch.shard)].lock().await.take_if(|held| held.epoch == epoch.epoch);
    }

    /// Runs an effect beside everything else, until it ends or the platform stops.
    pub(crate) fn spawn(self: &Arc<Self>, effect: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.effects.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = effect => {}
            }
        });
    }

    /// Runs an effect that takes something away: begun, it is carried on even while the platform stops, for as long
    /// as that waits.
    pub(crate) fn spawn_to_end(&self, effect: impl Future<Output = ()> + Send + 'static) {
        self.effects.spawn(effect);
    }

    /// The entity as it is, asked for until it is answered.
    pub(crate) async fn look<D: Hosted>(&self, directory: &Directory<D>, id: &str) -> Arc<D::State> {
        let mut wait = self.options.limits.effect_retry_initial_ms;
        loop {
            match directory.read(id).await {
                Ok(state) => return state,
                Err(problem) => {
                    tracing::warn!(kind = %D::KIND, id, %problem, "entity is asked for again");
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    wait = (wait * 2).min(self.options.limits.effect_retry_max_ms);
                }
            }
        }
    }

    /// Waits until the entity is as `wanted`, asked for until it is answered.
    pub(crate) async fn until<D: Hosted>(
        &self,
        directory: &Directory<D>,
        id: &str,
        wanted: impl Fn(&D::State) -> bool + Send + Sync,
    ) -> Arc<D::State> {
        loop {
            match directory.wait(id, &wanted).await {
                Ok(state) => return state,
                Err(problem) => {
                    tracing::warn!(kind = %D::KIND, id, %problem, "entity is waited for again");
                    tokio::time::sleep(Duration::from_millis(self.options.limits.effect_retry_max_ms)).await;
                }
            }
        }
    }

    /// Gives a command again and again until it is answered: yes, or no for good.
    pub(crate) async fn command<D: Hosted>(
        self: &Arc<Self>,
        directory: &Directory<D>,
        id: &str,
        command: D::Command,
        command_id: CommandId,
        meta: Meta,
    ) -> Result<Outcome<D>, Problem> {
        let mut wait = self.options.limits.effect_retry_initial_ms;
        loop {
            let (command, meta) = (command.clone(), meta.clone());
            let request = Request { command, command_id, digest: None, meta, is_first: false };
            match directory.execute(id, request).await {
                Err(problem) if problem.kind.is_retryable() || problem.kind == ProblemKind::Internal => {
                    tracing::warn!(kind = %D::KIND, id, %problem, "command is given again");
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    wait = (wait * 2).min(self.options.limits.effect_retry_max_ms);
                }
                answered => return answered,
            }
        }
    }

    /// Gives a command that follows from `cause`, and says in the log when it is refused.
    pub(crate) async fn follow<D: Hosted>(
        self: &Arc<Self>,
        directory: &Directory<D>,
        id: &str,
        command: D::Command,
        cause: &Cause,
        part: &str,
        ordinal: u32,
    ) -> Option<Outcome<D>> {
        let command_id = cause.command(ordinal, &StreamId::new(D::KIND, id));
        let answer = self.command(directory, id, command, command_id, cause.meta(part)).await;
        answer
            .inspect_err(|problem| tracing::debug!(kind = %D::KIND, id, part, %problem, "command refused"))
            .ok()
    }

    /// The envelope of what an agent does.
    pub(crate) fn agent_meta(&self, peer: &gateway::Peer) -> Meta {
        Meta { principal: events::Principal::agent(&peer.agent), ..self.system_meta(&peer.tenant, "gateway") }
    }

    /// The envelope of what a part of the platform does of its own accord.
    pub(crate) fn system_meta(&self, tenant: &events::Tenant, part: &str) -> Meta {
        Meta {
            tenant: tenant.clone(),
            principal: events::Principal::system(part),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
        }
    }
}

/// Whether an entity will never change again by itself.
pub(crate) fn notify<D: Hosted>(directory: &Directory<D>, id: &str, state: &D::State) {
    directory.notify(id, <D as Decider>::is_final(state));
}
