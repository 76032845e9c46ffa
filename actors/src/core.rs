//! What every actor, effect and door shares: the seams, the directories, and what is known in memory.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use events::api::{Problem, ProblemKind};
use events::artifact::ArtifactStore;
use events::domain::agent::Agent;
use events::domain::crew::Crew;
use events::domain::pool::Pool;
use events::domain::profile::Profile;
use events::domain::task::Task;
use events::domain::{Context, Decider};
use events::snapshot::SnapshotStore;
use events::{CommandId, CrewId, EntityKind, EventStore, Meta, StreamId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::entity::{Cause, Hosted, Outcome, Request};
use crate::homes::Homes;
use crate::keeper::Keeper;
use crate::links::Links;
use crate::live::Live;
use crate::meters::Meters;
use crate::options::Options;
use crate::peers::Peers;
use crate::platform::Seams;
use crate::posts::Posts;
use crate::profiles::Profiles;
use crate::recovery::Registry;
use crate::roster::Rosters;
use crate::secrets::Secrets;
use crate::shards::{Shards, Tenure};
use crate::shelves::Shelves;
use crate::tallies::Tallies;
use crate::waits::Waits;
use crate::watchdog;

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
    pub(crate) pools: Directory<Pool>,
    pub(crate) profile_entities: Directory<Profile>,
    pub(crate) profiles: Profiles,
    pub(crate) homes: Homes,
    pub(crate) rosters: Rosters,
    pub(crate) posts: Posts,
    pub(crate) shelves: Arc<Shelves>,
    pub(crate) tallies: Tallies,
    pub(crate) waits: Waits,
    pub(crate) meters: Meters,
    pub(crate) live: Live,
    pub(crate) effects: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) shards: Shards,
    pub(crate) keeper: Keeper,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) snapshots: Arc<dyn SnapshotStore>,
    pub(crate) secrets: Arc<dyn Secrets>,
    /// The other nodes, where there is a bus to reach them over.
    pub(crate) peers: OnceLock<Peers>,
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
            pools: Directory::new(admission.clone()),
            profile_entities: Directory::new(admission),
            profiles: Profiles::default(),
            homes: Homes::default(),
            rosters: Rosters::default(),
            posts: Posts::default(),
            shelves: Arc::default(),
            tallies: Tallies::default(),
            waits: Waits::default(),
            meters: Meters::default(),
            live: Live::default(),
            effects: TaskTracker::new(),
            stop: CancellationToken::new(),
            shards: Shards::new(),
            keeper: Keeper::new(seams.leases),
            registry: seams.registry,
            snapshots: seams.snapshots,
            secrets: seams.secrets,
            peers: OnceLock::new(),
        });
        core.crews.bind(&core);
        core.agents.bind(&core);
        core.tasks.bind(&core);
        core.pools.bind(&core);
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

    /// Runs an effect of a shard's entity beside everything else, until it ends, the shard is lost or the platform
    /// stops.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        tenure: &Arc<Tenure>,
        effect: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_always(while_held(tenure, effect));
    }

    /// The same for an entity of this crew; nothing where the crew is another node's by now, which does it.
    pub(crate) fn spawn_for(
        self: &Arc<Self>,
        crew: &CrewId,
        effect: impl Future<Output = ()> + Send + 'static,
    ) {
        if let Ok(tenure) = self.shards.holding(crew.as_str()) {
            self.spawn(&tenure, effect);
        }
    }

    /// Runs what belongs to no shard until it ends or the platform stops.
    pub(crate) fn spawn_always(self: &Arc<Self>, effect: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let effect = Box::pin(effect);
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
    pub(crate) fn spawn_to_end(
        &self,
        tenure: &Arc<Tenure>,
        effect: impl Future<Output = ()> + Send + 'static,
    ) {
        self.effects.spawn(while_held(tenure, effect));
    }

    /// The entity as it is, asked for until it is answered.
    pub(crate) async fn look<D: Hosted>(&self, directory: &Directory<D>, id: &str) -> Arc<D::State> {
        self.answered(Named(D::KIND, id), || directory.read(id)).await
    }

    /// Asks for `what`, ever more slowly, until there is an answer.
    pub(crate) async fn answered<T, F>(&self, what: impl fmt::Display, ask: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let limits = &self.options.limits;
        let mut wait = limits.effect_retry_initial_ms;
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(problem) => tracing::warn!(%what, %problem, "it is asked for again"),
            }
            tokio::time::sleep(Duration::from_millis(wait)).await;
            wait = (wait * 2).min(limits.effect_retry_max_ms);
        }
    }

    /// Asks for `what` until there is an answer, or an error that no other try would mend.
    pub(crate) async fn insist<T, F>(
        &self,
        what: impl fmt::Display,
        ask: impl Fn() -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let ask = || async {
            match ask().await {
                Err(problem) if problem.kind.is_retryable() => Err(problem),
                answer => Ok(answer),
            }
        };
        self.answered(what, ask).await
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
        let give = || async {
            let (command, meta) = (command.clone(), meta.clone());
            let request = Request { command, command_id, digest: None, meta, is_first: false };
            match directory.execute(id, request).await {
                Err(problem) if problem.kind.is_retryable() || problem.kind == ProblemKind::Internal => {
                    Err(problem)
                }
                answer => Ok(answer),
            }
        };
        self.answered(Named(D::KIND, id), give).await
    }

    /// Gives a command again and again until it is answered, and says in the log when it is refused.
    pub(crate) async fn instruct<D: Hosted>(
        self: &Arc<Self>,
        directory: &Directory<D>,
        id: &str,
        command: D::Command,
        command_id: CommandId,
        meta: Meta,
    ) -> Option<Outcome<D>> {
        let answer = self.command(directory, id, command, command_id, meta).await;
        answer.inspect_err(|problem| tracing::debug!(kind = %D::KIND, id, %problem, "command refused")).ok()
    }

    /// The same for a command that follows from `cause`.
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
        self.instruct(directory, id, command, command_id, cause.meta(part)).await
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

/// An entity, as the platform's log names it.
struct Named<'a>(EntityKind, &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.0, self.1)
    }
}

/// The work, until the shard is lost. It is boxed: each of the layers around it would move the whole of it.
fn while_held(
    tenure: &Arc<Tenure>,
    work: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let tenure = Arc::clone(tenure);
    let work = Box::pin(work);
    async move {
        tokio::select! {
            biased;
            () = tenure.lost() => {}
            () = work => {}
        }
    }
}

/// Whether an entity will never change again by itself.
pub(crate) fn notify<D: Hosted>(directory: &Directory<D>, id: &str, state: &D::State) {
    directory.notify(id, <D as Decider>::is_final(state));
}
