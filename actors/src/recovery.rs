//! After a start: entities are folded, what runs is adopted, what should not run is removed.

use std::collections::HashSet;
use std::sync::Arc;

use events::SandboxId;
use events::api::Problem;
use events::projection::Unfinished;
use sandbox::State;

use crate::core::Core;
use crate::hosted;
use crate::platform::exited;

/// Brings back what was unfinished. First the rosters, then the tasks, then the agents: so nobody is given work that
/// he has in hand already.
pub(crate) async fn recover(core: &Arc<Core>, unfinished: &Unfinished) -> Result<(), Problem> {
    let mut agents = Vec::new();
    for crew in &unfinished.crews {
        let state = core.crews.read(crew.as_str()).await?;
        hosted::enroll_crew(core, &state);
        for held in &state.seats {
            let agent = core.agents.read(held.seat.agent.as_str()).await?;
            if let Some(requested) = &agent.requested {
                hosted::enroll_agent(core, requested, &agent);
                agents.push(held.seat.agent.clone());
            }
        }
    }
    for task in &unfinished.tasks {
        let state = core.tasks.read(task.as_str()).await?;
        if let (Some(submitted), false) = (&state.submitted, state.status.is_terminal()) {
            core.tallies.note(submitted, state.status);
            if let Some(attempt) = &state.attempt {
                core.rosters.hold(&submitted.crew, &attempt.placement.agent, task);
            }
        }
    }
    for agent in &agents {
        core.agents.resume(agent.as_str()).await?;
    }
    for crew in &unfinished.crews {
        core.crews.resume(crew.as_str()).await?;
    }
    for task in &unfinished.tasks {
        hosted::end_if_orphaned(core, task).await?;
        hosted::end_with_parent(core, task).await?;
        core.tasks.resume(task.as_str()).await?;
    }
    reconcile(core).await;
    Ok(())
}

/// Compares what should run with what runs: removes what nobody owns (SB-3), reports what has ended unseen.
pub(crate) async fn reconcile(core: &Arc<Core>) {
    let found = match core.provider.list().await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, "sandboxes cannot be listed; comparing again later");
            return;
        }
    };
    let owned: HashSet<SandboxId> = core.posts.sandboxes().into_iter().collect();
    for found in found {
        let id: Option<SandboxId> = found.id.as_str().parse().ok();
        let is_owned = match &id {
            Some(id) => owned.contains(id) || wanted(core, &found, id).await,
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

/// Whether an agent's newest live incarnation is to be served by this sandbox, though its post is not set up yet.
async fn wanted(core: &Arc<Core>, found: &sandbox::Found, id: &SandboxId) -> bool {
    let Some(agent) = &found.labels.agent else { return false };
    use events::domain::agent::Status as S;
    let state = core.look(&core.agents, agent).await;
    let live = matches!(state.status, S::Provisioning | S::Warming | S::Ready | S::Draining);
    live && state.sandbox.as_ref() == Some(id)
}
