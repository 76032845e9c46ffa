//! A pool's effects: so many sandboxes stand by as are called for, each is used once, and is gone after that.

use std::sync::Arc;
use std::time::Duration;

use events::api::Problem;
use events::domain::DomainEvent;
use events::domain::agent::{self, Agent};
use events::domain::pool::{Claimed, Command, Effect, Event, Phase, Pool, Requested, Standby, State};
use events::{AgentId, CrewId, Incarnation, PoolId, SandboxId, Version};
use manifest::{PoolSpec, Standby as Mode};

use super::assign;
use crate::claims;
use crate::core::{Core, notify};
use crate::entity::{Cause, Hosted, peek};
use crate::shelves;

const PART: &str = "pool";

/// Events of an agent that are read at a time.
const BATCH_EVENTS: usize = 100;

impl Hosted for Pool {
    const GROWS_LONG: bool = true;

    /// A pool belongs to the node that holds the shard of its own id.
    fn crew(_: &State) -> Option<&CrewId> {
        None
    }

    fn observe(core: &Arc<Core>, id: &str, state: &Arc<State>, events: &[Event], _: Option<&Cause>) {
        let Ok(pool) = id.parse::<PoolId>() else { return };
        core.shelves.enroll(&pool, state);
        events.iter().for_each(|event| core.shelves.observe(&pool, event));
        notify(&core.pools, id, state);
    }

    fn takes_away(effect: &Effect) -> bool {
        matches!(effect, Effect::Destroy { .. })
    }

    async fn perform(core: Arc<Core>, id: Arc<str>, cause: Cause, effect: Effect) {
        let Ok(pool) = id.parse::<PoolId>() else { return };
        let keeper = Keeper { core, pool, cause };
        match effect {
            Effect::Fill => keeper.fill().await,
            Effect::Stand { sandbox } => keeper.stand(&sandbox).await,
            Effect::Follow(claimed) => keeper.follow(&claimed).await,
            Effect::Destroy { sandbox } => keeper.destroy(&sandbox).await,
        }
    }
}

/// Works for one pool.
struct Keeper {
    core: Arc<Core>,
    pool: PoolId,
    cause: Cause,
}

impl Keeper {
    /// Gives the pool a command until it is answered.
    async fn tell(&self, command: Command) {
        let Self { core, pool, cause } = self;
        let command_id = core.clock.fresh_command();
        core.instruct(&core.pools, pool.as_str(), command, command_id, cause.meta(PART)).await;
    }

    async fn state(&self) -> Arc<State> {
        self.core.look(&self.core.pools, self.pool.as_str()).await
    }

    async fn standby(&self, sandbox: &SandboxId) -> Option<(Arc<State>, Standby)> {
        let state = self.state().await;
        let standby = state.standbys.get(sandbox).cloned()?;
        Some((state, standby))
    }

    /// Has so many stand by as are called for, for as long as the pool is this node's.
    async fn fill(&self) {
        let Self { core, pool, .. } = self;
        let every = Duration::from_millis(core.options.limits.pool_look_ms);
        // Once is enough, however often it is asked for.
        let Some(_alone) = core.shelves.filler(pool) else { return };
        while let Some(changed) = core.shelves.changed(pool) {
            let state = self.state().await;
            let now_ms = core.clock.now().millis();
            if u64::try_from(now_ms).is_ok_and(|now_ms| state.has_recovered(now_ms)) {
                self.tell(Command::Recover).await;
            }
            let plan = core.shelves.plan(pool, &state, now_ms);
            if !plan.drop.is_empty() {
                let reason = "it is too old or not called for any more".to_owned();
                self.tell(Command::Spoil { sandboxes: plan.drop, reason }).await;
            }
            if plan.make > 0 {
                let standbys = (0..plan.make).filter_map(|_| self.fresh(&state)).collect();
                self.tell(Command::Request { standbys }).await;
            } else {
                // Demand fades and sandboxes age without anybody saying so.
                let _ = tokio::time::timeout(every, changed.notified()).await;
            }
        }
    }

    /// A sandbox that never was before.
    fn fresh(&self, state: &State) -> Option<Requested> {
        let core = &self.core;
        let unique = core.clock.fresh_command().to_string();
        Some(Requested {
            sandbox: SandboxId::derive(&["standby", self.pool.as_str(), &unique]),
            template: state.applied.as_ref()?.template,
            sandbox_kind: core.provider.kind().to_string(),
            isolation: core.provider.isolation().level.to_string(),
            node: core.options.node.clone(),
            at_ms: u64::try_from(core.clock.now().millis()).unwrap_or_default(),
        })
    }

    /// Brings a sandbox up to stand by, or adopts it after a restart of the platform.
    async fn stand(&self, sandbox: &SandboxId) {
        let Some((state, standby)) = self.standby(sandbox).await else { return };
        let came_up = match standby.phase {
            Phase::Warming => self.bring_up(&state, &standby).await,
            Phase::Ready => self.adopt(&state, &standby).await,
            Phase::Claimed | Phase::Spent => return,
        };
        let sandbox = sandbox.clone();
        match (standby.phase, came_up) {
            (Phase::Warming, Ok(())) => {
                self.tell(Command::Ready { sandbox: sandbox.clone() }).await;
                self.fail_if_ended(sandbox).await;
            }
            // It was drained, or made by a template that is no longer so, before it was up.
            (Phase::Warming, Err(_)) if self.is_spent(&sandbox).await => {}
            (Phase::Warming, Err(detail)) => {
                tracing::warn!(pool = %self.pool, %sandbox, detail, "a sandbox does not come up to stand by");
                self.tell(Command::Fail { sandbox, detail }).await;
            }
            (_, Ok(())) => {
                self.core.shelves.offer(&sandbox);
                self.fail_if_ended(sandbox).await;
            }
            (_, Err(reason)) => self.tell(Command::Spoil { sandboxes: vec![sandbox], reason }).await,
        }
    }

    async fn is_spent(&self, sandbox: &SandboxId) -> bool {
        self.standby(sandbox).await.is_none_or(|(_, standby)| standby.phase == Phase::Spent)
    }

    /// One that ended between its link and what was just recorded is not ready, whatever its pool believes.
    async fn fail_if_ended(&self, sandbox: SandboxId) {
        if let Some(detail) = self.core.shelves.fault(&sandbox) {
            self.tell(Command::Fail { sandbox, detail }).await;
        }
    }

    async fn bring_up(&self, state: &State, standby: &Standby) -> Result<(), String> {
        let core = &self.core;
        let sandbox = &standby.requested.sandbox;
        if standby.requested.node != core.options.node {
            return Err(format!("the node `{}`, on which it was, no longer runs it", standby.requested.node));
        }
        let spec = spec(state)?;
        let socket = core.links().open(sandbox).await?;
        let id = sandbox::Id::new(sandbox.as_str()).map_err(|error| error.to_string())?;
        let made = assign::standby_spec(core, &self.pool, id.clone(), socket, &spec);
        core.provider.create(&made).await.map_err(|error| error.to_string())?;
        if spec.standby == Mode::Paused {
            // It runs already, and stands still, if the platform ended before this was recorded.
            where_it_can(core.provider.unpause(&id).await)?;
        }
        self.linked(sandbox, core.options.limits.link_ms).await?;
        self.pause(&spec, &id).await
    }

    /// A sandbox that stood by when the platform ended: it still does if nobody has claimed it and it links again.
    async fn adopt(&self, state: &State, standby: &Standby) -> Result<(), String> {
        let core = &self.core;
        let sandbox = &standby.requested.sandbox;
        if let Some(claimed) = self.claimed(sandbox).await {
            self.tell(Command::Claimed(claimed)).await;
            return Err("it was claimed".to_owned());
        }
        if standby.requested.node != core.options.node {
            return Err(format!("the node `{}`, on which it was, no longer runs it", standby.requested.node));
        }
        let spec = spec(state)?;
        core.links().open(sandbox).await?;
        let id = sandbox::Id::new(sandbox.as_str()).map_err(|error| error.to_string())?;
        let found = core.provider.find(&id).await.map_err(|error| error.to_string())?;
        if !found.is_some_and(|found| matches!(found.state, sandbox::State::Running(_))) {
            return Err("it was gone when the platform came back".to_owned());
        }
        if spec.standby == Mode::Paused {
            where_it_can(core.provider.unpause(&id).await)?;
        }
        self.linked(sandbox, core.options.limits.adopt_ms).await?;
        self.pause(&spec, &id).await
    }

    async fn linked(&self, sandbox: &SandboxId, within_ms: u64) -> Result<(), String> {
        let linked = self.core.shelves.comes_up(sandbox);
        let late = |_| format!("its runner did not link within {within_ms} ms");
        tokio::time::timeout(Duration::from_millis(within_ms), linked).await.map_err(late)?
    }

    async fn pause(&self, spec: &PoolSpec, id: &sandbox::Id) -> Result<(), String> {
        match spec.standby {
            Mode::Running => Ok(()),
            Mode::Paused => where_it_can(self.core.provider.pause(id).await),
        }
    }

    /// Who has claimed the sandbox, by the log's own word.
    async fn claimed(&self, sandbox: &SandboxId) -> Option<Claimed> {
        self.core.answered("who has claimed a sandbox", || find_claim(&self.core, sandbox)).await
    }

    /// Waits until the incarnation is over. The agent may be another node's by then; the log tells all the same.
    async fn follow(&self, claimed: &Claimed) {
        let core = &self.core;
        let uses = |state: &agent::State| serves(state, claimed);
        let id = claimed.agent.as_str();
        let pause = Duration::from_millis(core.options.limits.effect_retry_max_ms);
        loop {
            if core.agents.wait(id, |state| !uses(state)).await.is_ok() {
                break;
            }
            match peek::<Agent>(core, id).await {
                Ok(state) if !uses(&state) => break,
                _ => tokio::time::sleep(pause).await,
            }
        }
        // What it wrote is read before it goes.
        while core.posts.get(&claimed.sandbox).is_some() {
            tokio::time::sleep(Duration::from_millis(core.options.limits.effect_retry_initial_ms)).await;
        }
        self.tell(Command::Release { sandbox: claimed.sandbox.clone() }).await;
    }

    /// Takes a sandbox away for good, and asks its provider whether it is gone.
    async fn destroy(&self, sandbox: &SandboxId) {
        let core = &self.core;
        core.shelves.decided(sandbox).await;
        let Some((_, standby)) = self.standby(sandbox).await else { return };
        if standby.phase != Phase::Spent {
            return;
        }
        // What was claimed before it was found dirty serves its agent; the pool only did not know.
        if standby.claimed.is_none()
            && let Some(claimed) = self.claimed(sandbox).await
        {
            return self.tell(Command::Claimed(claimed)).await;
        }
        let Ok(id) = sandbox::Id::new(sandbox.as_str()) else { return };
        let mut wait = core.options.limits.effect_retry_initial_ms;
        loop {
            super::agent::destroy(core, sandbox).await;
            match core.provider.find(&id).await {
                Ok(None) => break,
                Ok(Some(found)) => tracing::error!(%sandbox, state = ?found.state, "sandbox is not gone yet"),
                Err(error) => tracing::error!(%sandbox, %error, "whether a sandbox is gone cannot be told"),
            }
            if core.stop.is_cancelled() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(wait)).await;
            wait = (wait * 2).min(core.options.limits.effect_retry_max_ms);
        }
        self.tell(Command::Gone { sandbox: sandbox.clone() }).await;
    }
}

/// What a kind of sandbox cannot do is not done: then what stands by runs, and keeps the limits that it was made with.
pub(super) fn where_it_can(done: Result<(), sandbox::Error>) -> Result<(), String> {
    match done {
        Ok(()) | Err(sandbox::Error::Unsupported { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn spec(state: &State) -> Result<PoolSpec, String> {
    let applied = state.applied.as_ref().ok_or("the pool is not there")?;
    shelves::spec(applied).map_err(|error| format!("read the pool: {error}"))
}

/// Whether the agent still needs the sandbox.
fn serves(state: &agent::State, claimed: &Claimed) -> bool {
    use agent::Status as S;
    let is_over = matches!(
        state.status,
        S::Hibernating | S::Unhealthy | S::Recovering | S::Quarantined | S::Failed | S::Terminated
    );
    state.incarnation < claimed.incarnation || (state.sandbox.as_ref() == Some(&claimed.sandbox) && !is_over)
}

async fn find_claim(core: &Core, sandbox: &SandboxId) -> Result<Option<Claimed>, Problem> {
    let Some(stream) = claims::holder(core, sandbox).await? else { return Ok(None) };
    let Ok(agent) = stream.id.parse::<AgentId>() else { return Ok(None) };
    let mut after = Version(0);
    loop {
        let batch = core.store.read_stream(&stream, after, BATCH_EVENTS).await?;
        let Some(last) = batch.last() else { return Ok(None) };
        after = last.version;
        for event in &batch {
            let decoded = agent::Event::decode(&event.kind, event.schema, &event.payload);
            if let Ok(agent::Event::SandboxClaimed(claim)) = decoded
                && claim.sandbox == *sandbox
            {
                let (sandbox, incarnation) = (sandbox.clone(), claim.incarnation);
                return Ok(Some(Claimed { sandbox, agent, incarnation }));
            }
        }
    }
}

/// A sandbox that stands by is not to be trusted: it is not used any more.
pub(crate) fn suspect(core: &Arc<Core>, sandbox: &SandboxId, reason: &str) {
    let spoil = Command::Spoil { sandboxes: vec![sandbox.clone()], reason: reason.to_owned() };
    give_up(core, sandbox, reason, spoil);
}

/// A sandbox that stands by, or did, has ended by itself.
pub(crate) fn ended(core: &Arc<Core>, sandbox: &SandboxId, detail: &str) {
    let fail = Command::Fail { sandbox: sandbox.clone(), detail: detail.to_owned() };
    give_up(core, sandbox, detail, fail);
}

/// Takes a sandbox that stands by off its shelf, and tells its pool once.
fn give_up(core: &Arc<Core>, sandbox: &SandboxId, how: &str, command: Command) {
    let Some(pool) = core.shelves.pool_of(sandbox) else { return };
    if core.stop.is_cancelled() || !core.shelves.ended(sandbox, how) {
        return;
    }
    let Ok(tenure) = core.shards.holding(pool.as_str()) else { return };
    let (worker, sandbox) = (Arc::clone(core), sandbox.clone());
    core.spawn(&tenure, async move {
        let state = worker.look(&worker.pools, pool.as_str()).await;
        let Some(applied) = &state.applied else { return };
        let command_id = events::CommandId::derive(&["suspect", pool.as_str(), sandbox.as_str()]);
        let meta = worker.system_meta(&applied.tenant, PART);
        worker.instruct(&worker.pools, pool.as_str(), command, command_id, meta).await;
    });
}

/// Tells a pool that an agent has claimed its sandbox.
pub(super) async fn report_claim(
    core: &Arc<Core>,
    cause: &Cause,
    pool: &PoolId,
    agent: AgentId,
    incarnation: Incarnation,
    sandbox: SandboxId,
) {
    // Without the shard the pool finds out by itself.
    if core.shards.holding(pool.as_str()).is_err() {
        return;
    }
    let command_id = events::CommandId::derive(&["claimed", pool.as_str(), sandbox.as_str()]);
    let command = Command::Claimed(Claimed { sandbox, agent, incarnation });
    core.instruct(&core.pools, pool.as_str(), command, command_id, cause.meta(PART)).await;
}

/// Tells a pool of a claim that only the log knows of.
pub(crate) async fn learn(core: &Arc<Core>, pool: &PoolId, sandbox: &SandboxId) -> Result<(), Problem> {
    let Some(claimed) = find_claim(core, sandbox).await? else { return Ok(()) };
    let state = core.pools.read(pool.as_str()).await?;
    let Some(applied) = &state.applied else { return Ok(()) };
    let command_id = events::CommandId::derive(&["claimed", pool.as_str(), sandbox.as_str()]);
    let meta = core.system_meta(&applied.tenant, PART);
    core.command(&core.pools, pool.as_str(), Command::Claimed(claimed), command_id, meta).await?;
    Ok(())
}

/// Whether a pool that was never applied, or is another node's, is known to the log.
pub(crate) async fn exists(core: &Core, id: &PoolId) -> Result<bool, Problem> {
    let stream = events::StreamId::new(events::EntityKind::Pool, id.as_str());
    Ok(!core.store.read_stream(&stream, Version(0), 1).await?.is_empty())
}
