//! Agents that have nothing to do are parked without a sandbox, and woken by a task, a message or a timer.
//!
//! The agent's own events say whether it is parked. Who is to be parked or woken is seen in memory: what is missed by a
//! crash in between is seen again after it.

use std::sync::Arc;
use std::time::Duration;

use events::domain::agent::Command;
use events::domain::message::Recipient;
use events::{AgentId, CommandId, CrewId};

use crate::core::Core;
use crate::hosted;
use crate::roster::Idle;

/// Parks agents that have had nothing to do for long enough, for as long as the node runs.
pub(crate) async fn keep(core: Arc<Core>) {
    loop {
        tokio::time::sleep(Duration::from_millis(core.options.limits.hibernate_every_ms)).await;
        for idle in core.rosters.take_idle() {
            let worker = Arc::clone(&core);
            core.spawn_for(&idle.crew.clone(), async move { park(&worker, &idle).await });
        }
    }
}

async fn park(core: &Arc<Core>, idle: &Idle) {
    let Idle { crew, agent, incarnation, wake_every_ms } = idle;
    let state = core.look(&core.agents, agent.as_str()).await;
    let Some(requested) = &state.requested else { return };
    if !core.links().has_messages(crew, agent) {
        let wake_at_ms = wake_every_ms.map(|ms| core.clock.now().plus_ms(ms).millis());
        let command = Command::Hibernate { incarnation: *incarnation, wake_at_ms };
        let command_id = CommandId::derive(&["hibernate", agent.as_str(), &incarnation.to_string()]);
        let meta = core.system_meta(&requested.tenant, "spawner");
        if core.command(&core.agents, agent.as_str(), command, command_id, meta).await.is_ok() {
            return;
        }
    } else {
        core.rosters.stir(crew, agent);
    }
    // It has something to do after all, or is no longer what it was: then this says nothing new of it.
    let now = core.look(&core.agents, agent.as_str()).await;
    if now.incarnation == *incarnation && now.status == events::domain::agent::Status::Ready {
        core.rosters.ready(crew, agent, now.concurrency.max(1));
        hosted::place_waiting(core, crew);
    }
}

/// The agent is parked now: what came for it meanwhile wakes it.
pub(crate) fn look(core: &Arc<Core>, crew: &CrewId, agent: &AgentId) {
    wake_for_tasks(core, crew);
    if core.links().has_messages(crew, agent) {
        awaken(core, crew, &Recipient::Agent(agent.clone()));
    }
}

/// Tasks wait: those who are needed for them are woken.
pub(crate) fn wake_for_tasks(core: &Arc<Core>, crew: &CrewId) {
    for agent in core.rosters.take_sleepers(crew) {
        wake(core, crew, agent);
    }
}

/// A message waits: whoever is to get it is woken, if need be.
pub(crate) fn awaken(core: &Arc<Core>, crew: &CrewId, recipient: &Recipient) {
    let sleeper = match recipient {
        Recipient::Agent(agent) => {
            core.rosters.stir(crew, agent);
            core.rosters.take_sleeper(crew, agent).then(|| agent.clone())
        }
        Recipient::Member(member) => core.rosters.take_sleeper_of(crew, member),
    };
    if let Some(agent) = sleeper {
        wake(core, crew, agent);
    }
}

fn wake(core: &Arc<Core>, crew: &CrewId, agent: AgentId) {
    let worker = Arc::clone(core);
    core.spawn_for(crew, async move { hosted::wake(&worker, &agent).await });
}
