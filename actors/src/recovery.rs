//! After shards were taken: entities are folded, what runs is adopted, what should not run is removed.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::api::{Problem, ProblemKind};
use events::domain::agent::Agent;
use events::lease::shard_of;
use events::projection::Unfinished;
use events::{Position, SandboxId};
use sandbox::State;

use crate::core::Core;
use crate::platform::exited;
use crate::shards::Tenure;
use crate::takeover;
use crate::{hibernation, hosted};

/// Who knows what had not ended.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// What had not ended once everything up to `position` has been taken into account, of all shards.
    async fn unfinished(&self, position: Position) -> Result<Unfinished, Problem>;
}

/// Brings back what was unfinished in shards that were taken, for as long as that takes or they are held.
pub(crate) async fn take_up(core: &Arc<Core>, mut tenures: Vec<Arc<Tenure>>) {
    let limits = &core.options.limits;
    let mut wait = limits.effect_retry_initial_ms;
    // What is known here is of an earlier tenure. What stood by is looked at when its pool is taken up.
    drop(takeover::forget(core, &tenures));
    loop {
        tenures.retain(|tenure| !tenure.is_lost());
        match recover(core, &tenures).await {
            Ok(()) => return,
            Err(problem) => tracing::warn!(%problem, "what was taken over is not recovered yet"),
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        wait = (wait * 2).min(limits.effect_retry_max_ms);
    }
}

/// Brings back what was unfinished in the shards that were taken at a start.
///
/// # Errors
/// When it cannot be brought back, although all of them are still held.
pub(crate) async fn begin(core: &Arc<Core>, mut tenures: Vec<Arc<Tenure>>) -> Result<(), Problem> {
    loop {
        let outcome = recover(core, &tenures).await;
        let held = tenures.len();
        tenures.retain(|tenure| !tenure.is_lost());
        if outcome.is_ok() || tenures.len() == held {
            return outcome;
        }
    }
}

/// Brings back what was unfinished in these shards, and has them take commands. May be tried again.
async fn recover(core: &Arc<Core>, tenures: &[Arc<Tenure>]) -> Result<(), Problem> {
    if tenures.is_empty() {
        return Ok(());
    }
    let shards: HashSet<u8> = tenures.iter().map(|tenure| tenure.epoch.shard).collect();
    // Whoever held them before has written nothing behind this position, and never will.
    let head = core.store.head().await?;
    let unfinished = core.registry.unfinished(head.position).await?;
    let unfinished = unfinished.of(|id| shards.contains(&shard_of(id)));
    bring_back(core, unfinished).await?;
    tenures.iter().for_each(|tenure| tenure.open());
    reconcile(core).await;
    Ok(())
}

/// First the rosters, then the tasks, then the agents: so nobody is given work that he has in hand already.
async fn bring_back(core: &Arc<Core>, mut unfinished: Unfinished) -> Result<(), Problem> {
    // Whose a sandbox is must be known before any runner links again.
    for pool in &unfinished.pools {
        if let Some(state) = legible(pool, core.pools.read(pool.as_str()).await)? {
            core.shelves.enroll(pool, &state);
        }
    }
    let mut agents = Vec::new();
    for (crew, spent) in &unfinished.spent {
        core.meters.know(crew, spent.usage.tokens());
        core.links().know_sent(crew, spent.messages);
    }
    for crew in &unfinished.crews {
        let Some(state) = legible(crew, core.crews.read(crew.as_str()).await)? else { continue };
        hosted::enroll_crew(core, &state);
        for held in &state.seats {
            let agent = core.agents.read(held.seat.agent.as_str()).await;
            let Some(agent) = legible(&held.seat.agent, agent)? else { continue };
            if let Some(requested) = &agent.requested {
                hosted::enroll_agent(core, requested, &agent);
                agents.push(held.seat.agent.clone());
            }
        }
    }
    for (_, task) in &unfinished.tasks {
        let Some(state) = legible(task, core.tasks.read(task.as_str()).await)? else { continue };
        if let (Some(submitted), false) = (&state.submitted, state.status.is_terminal()) {
            core.tallies.note(submitted, state.status);
            if let Some(attempt) = &state.attempt {
                core.rosters.hold(&submitted.crew, &attempt.placement.agent, task);
            }
        }
    }
    let awaited: Vec<_> = unfinished
        .messages
        .iter()
        .map(|message| (message.sent.crew.clone(), message.recipient.clone()))
        .collect();
    core.links().restore(std::mem::take(&mut unfinished.messages)).await;
    for pool in &unfinished.pools {
        legible(pool, core.pools.resume(pool.as_str()).await)?;
    }
    for agent in &agents {
        legible(agent, core.agents.resume(agent.as_str()).await)?;
    }
    for crew in &unfinished.crews {
        if legible(crew, core.crews.resume(crew.as_str()).await)?.is_some() {
            hosted::check_tokens(core, crew).await;
        }
    }
    for (crew, recipient) in &awaited {
        hibernation::awaken(core, crew, recipient);
    }
    for (_, task) in &unfinished.tasks {
        legible(task, hosted::end_if_orphaned(core, task).await)?;
        legible(task, hosted::end_with_parent(core, task).await)?;
        legible(task, core.tasks.resume(task.as_str()).await)?;
    }
    Ok(())
}

/// What was found of an entity; nothing of one in whose stream stands what cannot be read. That one stays as it is until it
/// can be, and holds up no other.
fn legible<T>(entity: &impl Display, found: Result<T, Problem>) -> Result<Option<T>, Problem> {
    match found {
        Err(problem) if problem.kind == ProblemKind::Internal => {
            tracing::error!(%entity, %problem, "it is not taken up");
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// Compares what should run with what runs: removes what nobody owns (SB-3), reports what has ended unseen or is gone.
pub(crate) async fn reconcile(core: &Arc<Core>) {
    // Before the list: what comes up meanwhile is not missed in it.
    let up = core.posts.ready();
    let found = match core.provider.list().await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, "sandboxes cannot be listed; comparing again later");
            return;
        }
    };
    let there: HashSet<&str> = found.iter().map(|found| found.id.as_str()).collect();
    for gone in up.iter().filter(|sandbox| !there.contains(sandbox.as_str())) {
        if let Ok(id) = sandbox::Id::new(gone.as_str()) {
            exited(core, &sandbox::Exit { id, code: None, signal: None, oom: false, log: String::new() });
        }
    }
    let owned: HashSet<SandboxId> = core.posts.sandboxes().into_iter().collect();
    for found in found {
        let id: Option<SandboxId> = found.id.as_str().parse().ok();
        let is_owned = match &id {
            Some(id) => {
                owned.contains(id) || core.shelves.pool_of(id).is_some() || wanted(core, &found, id).await
            }
            None => false,
        };
        match (&found.state, is_owned) {
            (State::Ended(exit), true) => exited(core, exit),
            (_, true) => {}
            (_, false) => {
                tracing::info!(sandbox = %found.id, state = ?found.state, "sandbox that nobody owns is removed");
                if let Err(error) = core.provider.destroy(&found.id).await {
                    tracing::error!(sandbox = %found.id, %error, "sandbox cannot be removed");
                }
            }
        }
    }
}

/// Whether an agent of this node, whose crew has not ended, is to be served by this sandbox in its newest live
/// incarnation, though its post is not set up yet.
async fn wanted(core: &Arc<Core>, found: &sandbox::Found, id: &SandboxId) -> bool {
    use events::domain::agent::Status as S;
    let Some(agent) = &found.labels.agent else {
        // A pool that cannot be read may have it stand by, or know whom it serves.
        return match &found.labels.pool {
            Some(pool) => core.shards.holding(pool.as_str()).is_ok() && core.pools.read(pool).await.is_err(),
            None => false,
        };
    };
    let state = match core.homes.of::<Agent>(core, agent).await {
        Ok(Some(crew)) if core.shards.holding(crew.as_str()).is_ok() => core.agents.read(agent).await,
        Ok(_) => return false,
        Err(problem) => Err(problem),
    };
    // What cannot be told now is left as it is until the next comparison.
    let Ok(state) = state else { return true };
    let live = matches!(state.status, S::Provisioning | S::Warming | S::Ready | S::Draining);
    let Some(requested) = state.requested.as_ref().filter(|_| live && state.sandbox.as_ref() == Some(id))
    else {
        return false;
    };
    match core.crews.read(requested.crew.as_str()).await {
        Ok(crew) => !crew.status.has_ended(),
        Err(_) => true,
    }
}
