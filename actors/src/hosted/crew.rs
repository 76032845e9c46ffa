//! A crew's effects: its agents exist, are recovered, and end with it.

use std::sync::Arc;
use std::time::Duration;

use events::api::ProblemKind;
use events::domain::agent;
use events::domain::crew::{Command, Crew, Effect, Event, GivenUp, Resource, Seat, State, Status};
use events::domain::killed::Killed;
use events::domain::task;
use events::supervision::ChildKind;
use events::{AgentId, CrewId, Incarnation, Meta, PoolId, TaskId};

use crate::channels;
use crate::claims::{Claimant, Urgency};
use crate::core::{Core, notify};
use crate::entity::{Cause, Hosted};
use crate::hibernation;

const PART: &str = "supervisor";

impl Hosted for Crew {
    fn crew(state: &State) -> Option<&CrewId> {
        state.started.as_ref().map(|started| &started.crew)
    }

    fn observe(core: &Arc<Core>, id: &str, state: &Arc<State>, events: &[Event], _: Option<&Cause>) {
        enroll(core, state);
        if matches!(state.status, Status::Disbanded)
            && let Some(started) = &state.started
        {
            core.rosters.remove(&started.crew);
            core.links().remove_crew(&started.crew);
            core.meters.remove_where(|crew| *crew == started.crew);
        }
        cut_off(core, state, events);
        notify(&core.crews, id, state);
        let goes_on =
            |event: &Event| matches!(event, Event::Resumed(_) | Event::Assembled(_) | Event::BudgetRaised(_));
        if events.iter().any(goes_on)
            && let Some(started) = &state.started
        {
            let (worker, crew) = (Arc::clone(core), started.crew.clone());
            core.spawn_for(&started.crew, async move {
                // What was used up meanwhile holds it again before anything is given out.
                check_tokens(&worker, &crew).await;
                super::task::place_waiting(&worker, &crew);
                hibernation::wake_for_tasks(&worker, &crew);
            });
        }
    }

    fn takes_away(effect: &Effect) -> bool {
        matches!(effect, Effect::Dissolve { .. } | Effect::Kill { .. })
    }

    async fn perform(core: Arc<Core>, id: Arc<str>, cause: Cause, effect: Effect) {
        perform(&core, &id, &cause, effect).await;
    }
}

/// Whoever was killed is not heard any more from this moment on, though its own end takes another append.
fn cut_off(core: &Core, state: &State, events: &[Event]) {
    let Some(started) = &state.started else { return };
    let is_killed = |agent: &AgentId| {
        events.iter().any(|event| match event {
            Event::Killed(_) => true,
            Event::Condemned(condemned) => condemned.agent == *agent,
            _ => false,
        })
    };
    for agent in state.seats.iter().map(|held| &held.seat.agent).filter(|agent| is_killed(agent)) {
        core.links().set_ready(agent, false);
        core.rosters.set_aside(&started.crew, agent);
        let sandbox = core.rosters.place(&started.crew, agent, |place| place.sandbox.clone());
        if let Some(sandbox) = sandbox.flatten() {
            core.links().revoke(&sandbox);
        }
    }
}

/// Makes the roster and the channels say what the crew's state says.
pub(crate) fn enroll(core: &Arc<Core>, state: &State) {
    let Some(started) = &state.started else { return };
    if state.status == Status::Disbanded {
        return;
    }
    let open = matches!(state.status, Status::Running | Status::Draining);
    core.rosters.add(&started.crew, &started.tenant, &started.name, open);
    core.rosters.set_hibernation(&started.crew, channels::hibernation(state));
    // Without a tenure the crew is another node's by now, and what the gateway still writes is refused.
    let epoch = core.shards.holding(started.crew.as_str()).ok().map(|tenure| tenure.epoch);
    core.links().set_crew(&started.crew, channels::compile(state, epoch));
}

async fn perform(core: &Arc<Core>, id: &str, cause: &Cause, effect: Effect) {
    match effect {
        Effect::Request(seat) => request(core, id, cause, seat).await,
        Effect::AssembleBy { at_ms } => {
            core.clock.sleep_until_ms(at_ms).await;
            let reason = "not every member was ready in time".to_owned();
            follow(core, id, Command::AssemblyFailed { reason }, cause, 1).await;
        }
        Effect::ExpireAt { at_ms } => {
            core.clock.sleep_until_ms(at_ms).await;
            follow(core, id, Command::Disband { reason: "its ttl has passed".to_owned() }, cause, 2).await;
        }
        Effect::SpendTime { used_ms, at_ms } => {
            core.clock.sleep_until_ms(at_ms).await;
            // The platform may have been away when it was used up.
            let since_ms = core.clock.now().millis().saturating_sub(at_ms);
            let used = used_ms.saturating_add(u64::try_from(since_ms).unwrap_or_default());
            follow(core, id, Command::Spend { what: Resource::WallTime, used }, cause, 6).await;
        }
        Effect::Recover { agent, incarnation, at_ms } => {
            core.clock.sleep_until_ms(at_ms).await;
            begin(core, cause.meta(PART), &agent, incarnation).await;
        }
        Effect::Quarantine { agent, reason } => {
            let command = agent::Command::Quarantine { reason };
            core.follow(&core.agents, agent.as_str(), command, cause, PART, 3).await;
        }
        Effect::Release { agent } => {
            let Ok(crew) = id.parse::<CrewId>() else { return };
            super::reach::end_unreachable(core, cause, &crew).await;
            release(core, cause, &agent).await;
        }
        Effect::Kill { agent, killed } => kill(core, cause, &agent, &killed).await,
        Effect::DisbandWhenIdle { until_ms } => {
            let Ok(crew) = id.parse::<CrewId>() else { return };
            let is_late = || until_ms.is_some_and(|until_ms| core.clock.now().millis() >= until_ms);
            while !core.tallies.of(&crew).is_empty() && !is_late() {
                tokio::time::sleep(Duration::from_millis(core.options.limits.effect_retry_initial_ms)).await;
            }
            let how = if is_late() { "the grace of its drain is over" } else { "it was drained" };
            follow(core, id, Command::Disband { reason: how.to_owned() }, cause, 4).await;
        }
        Effect::Dissolve { agents, reason, killed } => {
            if let Some(killed) = &killed {
                // First of all, for a handler takes its time with what is called off.
                let kills = agents.iter().map(|agent| kill(core, cause, agent, killed));
                futures_util::future::join_all(kills).await;
            }
            dissolve(core, id, cause, &agents, &reason).await;
        }
    }
}

/// Whether the crew has used more tokens than it may, and nobody has said so yet.
pub(crate) async fn is_out_of_tokens(core: &Arc<Core>, crew: &CrewId) -> bool {
    let state = core.look(&core.crews, crew.as_str()).await;
    let is_over = state.allowance.tokens.is_some_and(|limit| limit <= core.meters.tokens(crew));
    is_over && !state.exhausted.contains_key(&Resource::Tokens)
}

/// Has it said if the crew has used more tokens than it may.
pub(crate) async fn check_tokens(core: &Arc<Core>, crew: &CrewId) {
    if is_out_of_tokens(core, crew).await {
        spend(core, crew, Resource::Tokens, core.meters.tokens(crew)).await;
    }
}

/// So much of the crew's budget is used; whether that is too much, it decides itself.
pub(crate) async fn spend(core: &Arc<Core>, crew: &CrewId, what: Resource, used: u64) {
    let Some((tenant, _)) = core.rosters.crew(crew) else { return };
    let (command_id, meta) = (core.clock.fresh_command(), core.system_meta(&tenant, "meter"));
    let command = Command::Spend { what, used };
    if let Err(problem) = core.command(&core.crews, crew.as_str(), command, command_id, meta).await {
        tracing::warn!(%crew, %what, %problem, "a budget that is used up is not recorded");
    }
}

async fn follow(core: &Arc<Core>, id: &str, command: Command, cause: &Cause, ordinal: u32) {
    core.follow(&core.crews, id, command, cause, PART, ordinal).await;
}

/// The pool from which the crew's agents claim.
fn pool(state: &State) -> Option<PoolId> {
    let started = state.started.as_ref()?;
    let name = channels::spec(state)?.sandbox.pool?;
    Some(PoolId::of(&started.tenant, name.as_str()))
}

async fn request(core: &Arc<Core>, id: &str, cause: &Cause, seat: Seat) {
    let Ok(crew) = id.parse::<CrewId>() else { return };
    let Some((tenant, _)) = core.rosters.crew(&crew) else { return };
    let agent = seat.agent.clone();
    let state = core.look(&core.crews, id).await;
    if is_removed(&state, &agent) {
        return;
    }
    // Every restart of the platform asks again, and what is there already claims nothing.
    let pool = pool(&state);
    if pool.is_some() && core.look(&core.agents, agent.as_str()).await.requested.is_some() {
        return;
    }
    let is_new = state.status == Status::Assembling;
    let claimant = Claimant {
        agent: agent.clone(),
        incarnation: Incarnation(1),
        tenant: tenant.clone(),
        profile: (seat.profile.clone(), seat.profile_digest),
        pool,
        urgency: if is_new { Urgency::New } else { Urgency::Promised },
    };
    let requested = agent::Requested {
        agent: seat.agent,
        tenant,
        crew,
        member: seat.member,
        replica: seat.replica,
        profile: seat.profile,
        profile_version: seat.profile_version,
        profile_digest: seat.profile_digest,
    };
    let make = |claim| agent::Command::Request { requested: requested.clone(), claim };
    let command_id = events::CommandId::derive(&["request", agent.as_str()]);
    match claimant.claim(core, make, command_id, cause.meta(PART)).await {
        Ok(_) => {
            // The crew may have ended, or been scaled down, while a claim waited for its turn; whoever was not there yet
            // was then neither ended nor released.
            let state = core.look(&core.crews, id).await;
            if matches!(state.status, Status::Failed | Status::Disbanding | Status::Disbanded) {
                end(core, id, cause, &agent, &state.reason).await;
            } else if let Some(killed) = killed(&state, &agent) {
                kill(core, cause, &agent, &killed).await;
            } else if is_removed(&state, &agent) {
                release(core, cause, &agent).await;
            }
        }
        Err(problem) => {
            tracing::error!(%agent, %problem, "agent cannot be requested");
            if is_new {
                let reason = format!("{}[{}]: {problem}", requested.member, requested.replica);
                follow(core, id, Command::AssemblyFailed { reason }, cause, 7).await;
            }
        }
    }
}

/// Has an agent begin this incarnation.
pub(super) async fn begin(core: &Arc<Core>, meta: Meta, agent: &AgentId, incarnation: Incarnation) {
    let state = core.look(&core.agents, agent.as_str()).await;
    let Some(requested) = &state.requested else { return };
    if state.incarnation >= incarnation {
        return;
    }
    let crew = core.look(&core.crews, requested.crew.as_str()).await;
    let claimant = Claimant {
        agent: agent.clone(),
        incarnation,
        tenant: requested.tenant.clone(),
        profile: (requested.profile.clone(), requested.profile_digest),
        pool: pool(&crew),
        urgency: Urgency::Promised,
    };
    let make = |claim| agent::Command::Recover { incarnation, claim };
    let command_id = events::CommandId::derive(&["recover", agent.as_str(), &incarnation.to_string()]);
    if let Err(problem) = claimant.claim(core, make, command_id, meta).await {
        tracing::warn!(%agent, %incarnation, %problem, "agent is not recovered");
    }
}

/// Whether the agent has no seat in the crew any more.
fn is_removed(state: &State, agent: &AgentId) -> bool {
    let seat = state.seats.iter().find(|held| held.seat.agent == *agent);
    seat.is_none_or(|held| held.given_up == Some(GivenUp::Removed))
}

/// A replica that is no longer wanted finishes what it has, then ends.
async fn release(core: &Arc<Core>, cause: &Cause, agent: &AgentId) {
    let reason = "the member was scaled down".to_owned();
    core.follow(&core.agents, agent.as_str(), agent::Command::Drain { reason }, cause, PART, 5).await;
}

/// Cancels the crew's tasks, ends its agents, and says so when nothing of it is left.
async fn dissolve(core: &Arc<Core>, id: &str, cause: &Cause, agents: &[AgentId], reason: &str) {
    let Ok(crew) = id.parse::<CrewId>() else { return };
    for task in core.tallies.of(&crew) {
        cancel(core, cause, &task, reason).await;
    }
    let ends = agents.iter().map(|agent| end(core, id, cause, agent, reason));
    futures_util::future::join_all(ends).await;
    // A task that was accepted while the agents ended is not left behind.
    for task in core.tallies.of(&crew) {
        cancel(core, cause, &task, reason).await;
        core.until(&core.tasks, task.as_str(), |state| state.status.is_terminal()).await;
    }
    let command_id = events::CommandId::derive(&["disbanded", id]);
    let answer = core.command(&core.crews, id, Command::Disbanded, command_id, cause.meta(PART)).await;
    if let Err(problem) = answer {
        tracing::error!(crew = id, %problem, "crew cannot be disbanded");
    }
}

async fn cancel(core: &Arc<Core>, cause: &Cause, task: &TaskId, reason: &str) {
    let reason = format!("its crew was disbanded: {reason}");
    let command = task::Command::Cancel { reason, by_parent: false };
    let command_id = events::CommandId::derive(&["disband", task.as_str()]);
    core.instruct(&core.tasks, task.as_str(), command, command_id, cause.meta(PART)).await;
}

/// By whom the agent was killed, alone or with all of its crew.
fn killed(state: &State, agent: &AgentId) -> Option<Killed> {
    state.seat(agent).and_then(|held| held.killed.clone()).or_else(|| state.killed.clone())
}

/// Ends an agent at once. Its sandbox is taken away by its own obligation.
async fn kill(core: &Arc<Core>, cause: &Cause, agent: &AgentId, killed: &Killed) {
    let command_id = events::CommandId::derive(&["kill", agent.as_str()]);
    let command = agent::Command::Kill(killed.clone());
    core.instruct(&core.agents, agent.as_str(), command, command_id, cause.meta(PART)).await;
}

async fn end(core: &Arc<Core>, crew: &str, cause: &Cause, agent: &AgentId, reason: &str) {
    let state = core.look(&core.crews, crew).await;
    let (command, how) = match killed(&state, agent) {
        Some(killed) => (agent::Command::Kill(killed), "kill"),
        None => (agent::Command::Terminate { reason: reason.to_owned() }, "terminate"),
    };
    let command_id = events::CommandId::derive(&[how, agent.as_str()]);
    let answer = core.command(&core.agents, agent.as_str(), command, command_id, cause.meta(PART)).await;
    match answer {
        // Failed before it ended: there is nothing left to end.
        Err(problem) if !matches!(problem.kind, ProblemKind::Conflict | ProblemKind::NotFound) => {
            tracing::error!(%agent, %problem, "agent cannot be ended");
        }
        _ => {}
    }
    let state = core.look(&core.agents, agent.as_str()).await;
    for sandbox in state.sandbox.iter().chain(&state.retired) {
        super::agent::destroy(core, sandbox).await;
    }
}

/// Seats for a member's replicas `0..replicas`; those that exist keep their agents.
pub(crate) fn seats(
    crew: &CrewId,
    member: &str,
    replicas: u32,
    existing: &[&Seat],
    generation: usize,
    (name, version, digest): (&str, u32, events::Digest),
    restart: ChildKind,
) -> Vec<Seat> {
    (0..replicas)
        .map(|replica| {
            let kept = existing.iter().find(|seat| seat.replica == replica);
            kept.map_or_else(
                || Seat {
                    agent: AgentId::derive(&[
                        "agent",
                        crew.as_str(),
                        member,
                        &replica.to_string(),
                        &generation.to_string(),
                    ]),
                    member: member.to_owned(),
                    replica,
                    profile: name.to_owned(),
                    profile_version: version,
                    profile_digest: digest,
                    restart,
                },
                |seat| (*seat).clone(),
            )
        })
        .collect()
}

/// A crew is assembled once every agent that it counts on is ready; the last became so by `cause`.
pub(crate) async fn check_assembled(core: &Arc<Core>, crew: &CrewId, cause: &Cause) {
    let state = core.look(&core.crews, crew.as_str()).await;
    if state.status != Status::Assembling {
        return;
    }
    let ready = |agent: &AgentId| core.rosters.place(crew, agent, |place| place.ready).unwrap_or(false);
    if state.seats.iter().all(|held| ready(&held.seat.agent)) {
        let command_id = events::CommandId::derive(&["assembled", crew.as_str()]);
        core.instruct(&core.crews, crew.as_str(), Command::Assembled, command_id, cause.meta(PART)).await;
    }
}
