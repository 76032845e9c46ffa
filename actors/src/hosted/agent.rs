//! An agent's effects: its incarnation runs in its sandbox, or the sandbox is gone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use events::api::Problem;
use events::domain::agent::{self, Agent, Command, Effect, Event, Requested, State, Status};
use events::domain::{crew, task};
use events::supervision::Exit;
use events::{AgentId, CommandId, CrewId, Digest, Incarnation, SandboxId};
use gateway::Peer;
use link::handler::ShutdownReason;

use super::assign;
use super::pool::where_it_can;
use crate::core::{Core, notify};
use crate::entity::{Cause, Hosted};
use crate::hibernation;
use crate::posts::Post;
use crate::roster::Place;
use crate::watchdog::{Sign, Signal, Subject};

const PART: &str = "spawner";

impl Hosted for Agent {
    const GROWS_LONG: bool = true;

    fn crew(state: &State) -> Option<&CrewId> {
        state.requested.as_ref().map(|requested| &requested.crew)
    }

    fn observe(core: &Arc<Core>, id: &str, state: &Arc<State>, events: &[Event], cause: Option<&Cause>) {
        if let Some(requested) = state.requested.clone() {
            for event in events {
                observe_one(core, &requested, state, event, cause);
            }
        }
        notify(&core.agents, id, state);
    }

    fn takes_away(effect: &Effect) -> bool {
        matches!(effect, Effect::Destroy { .. } | Effect::Park { .. })
    }

    async fn perform(core: Arc<Core>, id: Arc<str>, cause: Cause, effect: Effect) {
        perform(&core, &id, &cause, effect).await;
    }
}

fn observe_one(
    core: &Arc<Core>,
    requested: &Requested,
    state: &Arc<State>,
    event: &Event,
    cause: Option<&Cause>,
) {
    let Requested { agent, crew, .. } = requested;
    match event {
        Event::SandboxClaimed(_) => enroll(core, requested, state),
        Event::Ready(ready) => {
            core.rosters.ready(crew, agent, ready.concurrency.max(1));
            core.links().set_ready(agent, true);
            place_waiting(core, crew);
        }
        Event::Unhealthy(down) => {
            core.links().set_ready(agent, false);
            // The next incarnation may have a sandbox by the same append.
            revoke(core, state, down.incarnation);
            core.rosters.unready(crew, agent);
            let ended = match down.exit {
                Exit::Lost | Exit::NodeLost => task::Ended::Lost,
                Exit::Hung => task::Ended::Hung,
                _ => task::Ended::Crash,
            };
            end_attempts(core, requested, down.incarnation, (ended, &down.detail), cause);
        }
        Event::Draining(_) => {
            core.links().set_ready(agent, false);
            core.rosters.set_aside(crew, agent);
            hibernation::wake_for_tasks(core, crew);
        }
        Event::Quarantined(_) | Event::Failed(_) | Event::Terminated(_) | Event::Killed(_) => {
            core.links().set_ready(agent, false);
            revoke(core, state, state.incarnation);
            core.rosters.set_aside(crew, agent);
            hibernation::wake_for_tasks(core, crew);
            let (ended, detail) = attempts_end(state);
            end_attempts(core, requested, state.incarnation, (ended, &detail), cause);
        }
        Event::Hibernating(_) => {
            // In this order a message that comes in between finds it asleep, and wakes it.
            core.rosters.sleep(crew, agent);
            core.links().set_ready(agent, false);
            hibernation::look(core, crew, agent);
        }
        Event::Requested(_)
        | Event::Warming(_)
        | Event::Recovering(_)
        | Event::SecretResolved(_)
        | Event::LogKept(_)
        | Event::LogsErased(_) => {}
    }
}

/// The incarnation has ended, and with it its token (law ID-1): its sandbox is taken away after this.
fn revoke(core: &Core, state: &State, ended: Incarnation) {
    if let Some(sandbox) = state.sandbox_of(ended) {
        core.links().revoke(sandbox);
    }
}

/// Makes the roster say where the agent sits.
pub(crate) fn enroll(core: &Core, requested: &Requested, state: &State) {
    core.rosters.seat(
        &requested.crew,
        &requested.agent,
        &requested.member,
        requested.replica,
        state.incarnation,
        state.sandbox.as_ref(),
    );
    match state.status {
        Status::Hibernating => core.rosters.sleep(&requested.crew, &requested.agent),
        Status::Draining | Status::Quarantined | Status::Failed | Status::Terminated => {
            core.rosters.set_aside(&requested.crew, &requested.agent);
        }
        _ => {}
    }
}

/// Waiting work goes to an agent that is ready.
fn place_waiting(core: &Arc<Core>, crew: &CrewId) {
    let (worker, crew) = (Arc::clone(core), crew.clone());
    core.spawn_for(&crew.clone(), async move { super::task::place_waiting(&worker, &crew) });
}

/// The agent's crew hears that it is ready.
async fn report_ready(core: &Arc<Core>, cause: &Cause, id: &str, incarnation: Incarnation) {
    let state = core.look(&core.agents, id).await;
    let Some(Requested { agent, crew, .. }) = &state.requested else { return };
    let command = crew::Command::AgentReady { agent: agent.clone(), incarnation };
    let command_id = CommandId::derive(&["ready", id, &incarnation.to_string()]);
    core.instruct(&core.crews, crew.as_str(), command, command_id, cause.meta(PART)).await;
    super::crew::check_assembled(core, crew, cause).await;
}

/// How the attempts end that an agent had in hand which itself has ended. What a killed one was about is not tried again:
/// it may be what it was killed for.
pub(super) fn attempts_end(state: &State) -> (task::Ended, String) {
    match &state.killed {
        Some(killed) => (task::Ended::Killed, format!("its agent was {killed}")),
        None => (task::Ended::Crash, "its agent was ended".to_owned()),
    }
}

/// What an incarnation had in hand when it ended goes back to be tried again, or not.
fn end_attempts(
    core: &Arc<Core>,
    requested: &Requested,
    incarnation: Incarnation,
    (ended, detail): (task::Ended, &str),
    cause: Option<&Cause>,
) {
    let meta = match cause {
        Some(cause) => cause.meta("watchdog"),
        None => core.system_meta(&requested.tenant, "watchdog"),
    };
    // Every open task of the crew is looked at: what is forgotten here would never end.
    for id in core.tallies.of(&requested.crew) {
        let (worker, requested, detail) = (Arc::clone(core), requested.clone(), detail.to_owned());
        let (crew, meta) = (requested.crew.clone(), meta.clone());
        core.spawn_for(&crew, async move {
            let state = worker.look(&worker.tasks, id.as_str()).await;
            let Some(attempt) = state.attempt.as_ref().filter(|attempt| {
                attempt.placement.agent == requested.agent && attempt.placement.incarnation == incarnation
            }) else {
                worker.rosters.release(&requested.crew, &requested.agent, &id);
                return;
            };
            let command = task::Command::End { fence: attempt.fence, ended, detail };
            let command_id = CommandId::derive(&["end", id.as_str(), &attempt.fence.to_string()]);
            worker.instruct(&worker.tasks, id.as_str(), command, command_id, meta).await;
        });
    }
}

async fn perform(core: &Arc<Core>, id: &str, cause: &Cause, effect: Effect) {
    match effect {
        Effect::Run { incarnation, sandbox } => run(core, id, cause, incarnation, &sandbox).await,
        Effect::Park { sandbox } => {
            let state = core.look(&core.agents, id).await;
            ask_to_end(core, id, state.incarnation, &sandbox, ShutdownReason::Drain).await;
            put_away(core, id, &sandbox).await;
        }
        Effect::WakeAt { incarnation, at_ms } => {
            core.clock.sleep_until_ms(at_ms).await;
            let Ok(agent) = id.parse::<AgentId>() else { return };
            if core.look(&core.agents, id).await.incarnation.next() == incarnation {
                wake(core, &agent).await;
            }
        }
        Effect::Destroy { sandbox } => put_away(core, id, &sandbox).await,
        Effect::Drain { sandbox, reason } => drain(core, id, cause, &sandbox, &reason).await,
        Effect::ReportClaim { pool, incarnation, sandbox } => {
            let Ok(agent) = id.parse() else { return };
            super::pool::report_claim(core, cause, &pool, agent, incarnation, sandbox).await;
        }
        Effect::ReportReady { incarnation } => report_ready(core, cause, id, incarnation).await,
        Effect::ReportQuarantined { incarnation } => {
            let Ok(agent) = id.parse::<AgentId>() else { return };
            let state = core.look(&core.agents, id).await;
            let Some(requested) = &state.requested else { return };
            let command_id = CommandId::derive(&["quarantined", id, &incarnation.to_string()]);
            let (command, crew) =
                (crew::Command::AgentQuarantined { agent, incarnation }, requested.crew.as_str());
            core.instruct(&core.crews, crew, command, command_id, cause.meta(PART)).await;
        }
        Effect::ReportDown { incarnation, exit, detail } => {
            let Ok(agent) = id.parse::<AgentId>() else { return };
            let state = core.look(&core.agents, id).await;
            let Some(requested) = &state.requested else { return };
            let command_id = CommandId::derive(&["down", id, &incarnation.to_string()]);
            let command = crew::Command::AgentDown(crew::AgentEnd { agent, incarnation, exit, detail });
            let crew = requested.crew.as_str();
            core.instruct(&core.crews, crew, command, command_id, cause.meta("watchdog")).await;
        }
    }
}

/// The end of an incarnation, as the watchdog or the spawner saw it.
pub(crate) async fn down(
    core: &Arc<Core>,
    agent: &AgentId,
    incarnation: Incarnation,
    exit: Exit,
    detail: String,
) {
    let state = core.look(&core.agents, agent.as_str()).await;
    let Some(requested) = &state.requested else { return };
    let command = Command::Down { incarnation, exit, detail };
    let command_id = CommandId::derive(&["seen-down", agent.as_str(), &incarnation.to_string()]);
    let meta = core.system_meta(&requested.tenant, "watchdog");
    let answer = core.command(&core.agents, agent.as_str(), command, command_id, meta).await;
    if let Err(problem) = answer {
        tracing::debug!(%agent, %incarnation, %problem, "end of an incarnation is no news");
    }
}

/// Brings the incarnation up in its sandbox, or adopts the sandbox that still runs.
async fn run(core: &Arc<Core>, id: &str, cause: &Cause, incarnation: Incarnation, sandbox: &SandboxId) {
    let state = core.look(&core.agents, id).await;
    if state.incarnation != incarnation || !state.status.is_live() {
        return;
    }
    let Some(requested) = state.requested.clone() else { return };
    if let Err(detail) = bring_up(core, &requested, &state, cause, sandbox).await {
        down(core, &requested.agent, incarnation, Exit::StartFailed, detail).await;
    }
}

async fn bring_up(
    core: &Arc<Core>,
    requested: &Requested,
    state: &State,
    cause: &Cause,
    sandbox: &SandboxId,
) -> Result<(), String> {
    let incarnation = state.incarnation;
    if let Some(node) = state.node.as_ref().filter(|node| **node != core.options.node) {
        let detail = format!("the node `{node}`, on which it was, no longer runs it");
        down(core, &requested.agent, incarnation, Exit::NodeLost, detail).await;
        return Ok(());
    }
    let prepared = assign::prepare(core, requested, state, sandbox).await?;
    let post = Post {
        tenant: requested.tenant.clone(),
        crew: requested.crew.clone(),
        agent: requested.agent.clone(),
        incarnation,
        timeout_only: prepared.timeout_only,
        assign: Arc::new(prepared.assign),
    };
    let start_ms = post.assign.handler.start_timeout_ms();
    let liveness = post.assign.liveness;
    let frames = !post.timeout_only;
    if !core.posts.add(sandbox, post) {
        return Ok(());
    }
    let peer = Peer {
        tenant: requested.tenant.clone(),
        crew: requested.crew.clone(),
        member: requested.member.clone(),
        replica: requested.replica,
        agent: requested.agent.clone(),
        incarnation,
        sandbox: sandbox.clone(),
        origin: cause.origin(),
    };
    let subject = Subject { agent: requested.agent.clone(), incarnation };
    let socket = core.links().open(sandbox).await?;
    core.links().bind_peer(sandbox, peer, matches!(state.status, Status::Ready | Status::Draining))?;
    let id = sandbox::Id::new(sandbox.as_str()).map_err(|error| error.to_string())?;
    let limits = &core.options.limits;
    if state.status == Status::Provisioning && core.shelves.is_linked(sandbox) {
        return bind_late(core, subject, sandbox, &id, &prepared.made.resources).await;
    }
    let found = once_there(core, &subject, || core.provider.find(&id)).await?;
    let adopted = found.is_some_and(|found| matches!(found.state, sandbox::State::Running(_)));
    if adopted {
        if state.status == Status::Provisioning && state.pool.is_some() {
            // It stood by when it was claimed, and nobody came to bind it.
            where_it_can(core.provider.unpause(&id).await)?;
            where_it_can(core.provider.update(&id, &assign::limits(&prepared.made.resources)).await)?;
        }
        core.tell(Signal::Of(subject.clone(), Sign::Adopted(liveness)));
        // What it has in hand since before the restart is watched as well.
        let held = core.rosters.place(&requested.crew, &requested.agent, |place| place.held.clone());
        for task in held.unwrap_or_default() {
            core.tell(Signal::Of(subject.clone(), Sign::TaskStarted { task, frames }));
        }
    } else if state.status == Status::Provisioning && state.pool.is_none() {
        let spec = assign::sandbox_spec(core, requested, incarnation, id, socket, &prepared.made);
        once_there(core, &subject, || core.provider.create(&spec)).await?;
        core.tell(Signal::Of(subject, Sign::Adopted(liveness)));
    } else {
        let detail = "its sandbox was gone when the platform came back".to_owned();
        down(core, &requested.agent, incarnation, Exit::NodeLost, detail).await;
        return Ok(());
    }
    let wait_ms = if adopted { limits.adopt_ms.max(start_ms) } else { limits.link_ms + start_ms };
    let settled = tokio::time::timeout(Duration::from_millis(wait_ms), core.posts.settled(sandbox)).await;
    if settled.is_err() {
        let (exit, detail) = if adopted {
            (Exit::Lost, format!("its runner did not come back within {wait_ms} ms"))
        } else {
            (Exit::StartFailed, format!("its handler was not up within {wait_ms} ms"))
        };
        down(core, &requested.agent, incarnation, exit, detail).await;
    }
    Ok(())
}

/// Asks who makes sandboxes until they answer, for as long as the incarnation lives: that they are away, as while the Docker
/// daemon is restarted, is not the agent's doing and costs its crew nothing.
async fn once_there<T, F>(core: &Arc<Core>, subject: &Subject, ask: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, sandbox::Error>>,
{
    let limits = &core.options.limits;
    let (mut wait_ms, mut is_told) = (limits.effect_retry_initial_ms, false);
    loop {
        let error = match ask().await {
            Err(error) if error.is_away() => error,
            answer => return answer.map_err(|error| error.to_string()),
        };
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(agent = %subject.agent, %error, "agent waits until its sandbox can be made");
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        wait_ms = (wait_ms * 2).min(limits.effect_retry_max_ms);
        let state = core.look(&core.agents, subject.agent.as_str()).await;
        if state.incarnation != subject.incarnation || !state.status.is_live() {
            return Err(error.to_string());
        }
    }
}

/// Tells a runner that stands by whom it serves: identity, environment, secrets and handler go over its link (SB-2).
async fn bind_late(
    core: &Arc<Core>,
    subject: Subject,
    sandbox: &SandboxId,
    id: &sandbox::Id,
    resources: &manifest::Resources,
) -> Result<(), String> {
    let Some(post) = core.posts.get(sandbox) else { return Ok(()) };
    // What the pool is told to do by now says nothing of what stood by before: what runs is not harmed.
    where_it_can(core.provider.unpause(id).await)?;
    if core.shelves.resources(sandbox).is_some_and(|made_with| made_with != *resources) {
        where_it_can(core.provider.update(id, &assign::limits(resources)).await)?;
    }
    core.links().grant(sandbox, &post.assign).await?;
    // From here on it has to be heard, at the pace that it is told of without delay.
    core.tell(Signal::Of(subject.clone(), Sign::Adopted(post.assign.liveness)));
    core.tell(Signal::Of(subject, Sign::Linked));
    core.posts.linked(sandbox, []);
    core.links().assign(sandbox, (*post.assign).clone()).await?;
    let wait_ms = core.options.limits.link_ms + post.assign.handler.start_timeout_ms();
    let settled = tokio::time::timeout(Duration::from_millis(wait_ms), core.posts.settled(sandbox)).await;
    settled.map(drop).map_err(|_| format!("its handler was not up within {wait_ms} ms"))
}

/// Takes the sandbox away, with everything in it; tries until it is gone.
pub(crate) async fn destroy(core: &Arc<Core>, sandbox: &SandboxId) {
    if let Some(post) = core.posts.remove(sandbox) {
        let subject = Subject { agent: post.agent, incarnation: post.incarnation };
        core.tell(Signal::Of(subject, Sign::Removed));
    }
    core.links().close(sandbox).await;
    let Ok(id) = sandbox::Id::new(sandbox.as_str()) else { return };
    let mut wait = core.options.limits.effect_retry_initial_ms;
    while let Err(error) = core.provider.destroy(&id).await {
        tracing::error!(%sandbox, %error, "sandbox is not gone yet; trying again");
        if core.stop.is_cancelled() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        wait = (wait * 2).min(core.options.limits.effect_retry_max_ms);
    }
}

/// Has the handler end, and gives it the grace to do so.
async fn ask_to_end(
    core: &Arc<Core>,
    id: &str,
    incarnation: Incarnation,
    sandbox: &SandboxId,
    reason: ShutdownReason,
) {
    let poll = Duration::from_millis(core.options.limits.effect_retry_initial_ms);
    let grace_ms = grace_ms(core, id).await;
    let frame = link::DrainFrame { id: assign::frame_id("drain", incarnation), reason, grace_ms };
    if core.links().drain(sandbox, frame).await.is_ok() {
        let gone = async {
            while core.posts.get(sandbox).is_some() {
                tokio::time::sleep(poll).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(grace_ms), gone).await;
    }
}

/// How long the agent's handler has between being told to end or to stop and being killed.
pub(super) async fn grace_ms(core: &Core, id: &str) -> u64 {
    let fallback = core.options.limits.grace_ms;
    let asked = async {
        let state = core.agents.read(id).await?;
        let Some(Requested { tenant, profile, profile_digest, .. }) = &state.requested else {
            return Ok(fallback);
        };
        let checked = core.profiles.get(&*core.store, tenant, profile, *profile_digest).await?;
        Ok::<_, Problem>(checked.spec.handler.grace.as_millis())
    };
    // Whoever is to be stopped is, also while the log cannot be read.
    asked.await.unwrap_or_else(|problem| {
        tracing::warn!(agent = id, %problem, grace_ms = fallback, "its profile's grace is not known");
        fallback
    })
}

/// Takes the sandbox away and keeps the end of what was written in it.
async fn put_away(core: &Arc<Core>, id: &str, sandbox: &SandboxId) {
    // Before it takes its time: the agent may have further incarnations meanwhile.
    let served = core.look(&core.agents, id).await.served_in(sandbox);
    let written = written(core, sandbox).await;
    destroy(core, sandbox).await;
    let state = core.look(&core.agents, id).await;
    let (Some(requested), Some(incarnation)) = (&state.requested, served) else { return };
    let Some(text) = written.filter(|_| state.may_keep_log(incarnation)) else { return };
    let is_anothers = core.artifacts.has(Digest::of(text.as_bytes())).await.unwrap_or(true);
    let kept = match core.artifacts.put(Bytes::from(text)).await {
        Ok(artifact) => agent::Kept { digest: artifact.digest, bytes: artifact.size },
        Err(error) => {
            tracing::warn!(agent = id, %incarnation, %error, "what it wrote is not kept");
            return;
        }
    };
    let command_id = CommandId::derive(&["log", id, &incarnation.to_string()]);
    let meta = core.system_meta(&requested.tenant, PART);
    let command = Command::KeepLog { incarnation, kept };
    let answer = core.command(&core.agents, id, command, command_id, meta).await;
    // A log that was erased meanwhile is not left behind without anything that refers to it. Another agent may have written
    // the same before.
    if answer.is_ok_and(|outcome| incarnation <= outcome.state.logs_erased_to)
        && !is_anothers
        && let Err(error) = core.artifacts.delete(kept.digest).await
    {
        tracing::error!(agent = id, digest = %kept.digest, %error, "a log that was erased is still kept; delete it");
    }
}

/// The end of what was written in the sandbox, if anything was.
async fn written(core: &Core, sandbox: &SandboxId) -> Option<String> {
    let id = sandbox::Id::new(sandbox.as_str()).ok()?;
    let log = core.provider.log(&id, core.options.limits.log_kept_bytes_max).await;
    log.ok().flatten().filter(|text| !text.is_empty())
}

/// Has an agent that hibernates begin its next incarnation.
pub(crate) async fn wake(core: &Arc<Core>, agent: &AgentId) {
    let state = core.look(&core.agents, agent.as_str()).await;
    if let (Some(requested), Status::Hibernating) = (&state.requested, state.status) {
        let meta = core.system_meta(&requested.tenant, PART);
        super::crew::begin(core, meta, agent, state.incarnation.next()).await;
    }
}

/// Waits for the work in hand, has the handler end, and ends the agent.
async fn drain(core: &Arc<Core>, id: &str, cause: &Cause, sandbox: &SandboxId, reason: &str) {
    let state = core.look(&core.agents, id).await;
    let Some(requested) = state.requested.clone() else { return };
    let poll = Duration::from_millis(core.options.limits.effect_retry_initial_ms);
    let is_busy = |place: &Place| !place.held.is_empty();
    while core.rosters.place(&requested.crew, &requested.agent, is_busy).unwrap_or(false) {
        tokio::time::sleep(poll).await;
    }
    ask_to_end(core, id, state.incarnation, sandbox, ShutdownReason::ScaleDown).await;
    let command = Command::Terminate { reason: reason.to_owned() };
    core.follow(&core.agents, id, command, cause, PART, 1).await;
    core.rosters.leave(&requested.crew, &requested.agent);
}
