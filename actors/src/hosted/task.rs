//! A task's effects: it is queued, dispatched, timed, and called off.

use std::sync::Arc;
use std::time::Duration;

use events::api::Problem;
use events::domain::agent;
use events::domain::task::Ended;
use events::domain::task::{Answer, Attempt, Command, Effect, Event, State, Submitted, Task};
use events::{AgentId, CommandId, CrewId, SandboxId, TaskId, Timestamp};
use serde_json::Value;

use super::agent::{attempts_end, grace_ms};
use super::{questions, reach};
use crate::contents;
use crate::core::{Core, notify};
use crate::entity::{Cause, Hosted};
use crate::hibernation;
use crate::links::NotSent;
use crate::roster::{Place, Routed, Wish};
use crate::watchdog::{Sign, Signal, Subject};

const PART: &str = "router";
/// Why an attempt is over whose agent moved on.
const ORPHANED: &str = "its agent's incarnation had ended";

impl Hosted for Task {
    fn crew(state: &State) -> Option<&CrewId> {
        state.submitted.as_ref().map(|submitted| &submitted.crew)
    }

    fn observe(core: &Arc<Core>, id: &str, state: &Arc<State>, events: &[Event], _: Option<&Cause>) {
        if let Some(submitted) = &state.submitted {
            core.tallies.note(submitted, state.status);
            for event in events {
                observe_one(core, submitted, event);
            }
            if state.attempt.is_none() {
                released(core, submitted, state, events);
            }
            if state.status.is_terminal() {
                core.rosters.unqueue(&submitted.crew, &submitted.task);
            }
        }
        notify(&core.tasks, id, state);
    }

    async fn perform(core: Arc<Core>, id: Arc<str>, cause: Cause, effect: Effect) {
        perform(&core, &id, &cause, effect).await;
    }
}

fn observe_one(core: &Arc<Core>, submitted: &Submitted, event: &Event) {
    let subject = |agent: &events::AgentId, incarnation| Subject { agent: agent.clone(), incarnation };
    match event {
        Event::AttemptStarted(started) => {
            core.rosters.unqueue(&submitted.crew, &submitted.task);
            core.rosters.hold(&submitted.crew, &started.agent, &submitted.task);
            let frames = core
                .rosters
                .place(&submitted.crew, &started.agent, |place| place.sandbox.clone())
                .flatten()
                .and_then(|sandbox| core.posts.get(&sandbox))
                .is_none_or(|post| !post.timeout_only);
            let sign = Sign::TaskStarted { task: submitted.task.clone(), frames };
            core.tell(Signal::Of(subject(&started.agent, started.incarnation), sign));
        }
        // A parked attempt is over: nobody holds the task while it waits.
        Event::InputRequested(requested) if !requested.parks => {
            tell_holder(core, submitted, Sign::InputOpened { task: submitted.task.clone() });
        }
        Event::InputAnswered(_) => {
            tell_holder(core, submitted, Sign::InputClosed { task: submitted.task.clone() });
        }
        _ => {}
    }
}

fn tell_holder(core: &Arc<Core>, submitted: &Submitted, sign: Sign) {
    if let Some((agent, incarnation)) = core.rosters.holder(&submitted.crew, &submitted.task) {
        core.tell(Signal::Of(Subject { agent, incarnation }, sign));
    }
}

/// Nobody has the task in hand any more: its place is free for the next, unless it was taken from a handler that is
/// still at it.
fn released(core: &Arc<Core>, submitted: &Submitted, state: &State, events: &[Event]) {
    let (crew, task) = (&submitted.crew, &submitted.task);
    let Some((agent, incarnation)) = core.rosters.holder(crew, task) else { return };
    core.rosters.release(crew, &agent, task);
    let sandbox = core.rosters.place(crew, &agent, |place| place.sandbox.clone());
    let was_sent =
        sandbox.flatten().is_some_and(|sandbox| core.posts.forget_send(&sandbox, task, state.fence));
    if was_sent && events.iter().any(takes_away) {
        core.rosters.linger(crew, &agent, task, state.fence);
    }
    let sign = Sign::TaskEnded { task: submitted.task.clone() };
    core.tell(Signal::Of(Subject { agent, incarnation }, sign));
    place_waiting(core, &submitted.crew);
}

/// Whether it ends an attempt without a word of the handler that has it.
fn takes_away(event: &Event) -> bool {
    let Event::AttemptEnded(ended) = event else { return false };
    matches!(ended.ended, Ended::Deadline | Ended::Timeout | Ended::Hung)
}

/// A handler is no longer at an attempt that was taken away from it.
pub(crate) fn let_go(core: &Arc<Core>, crew: &CrewId, agent: &AgentId, task: &TaskId, fence: u64) {
    if core.rosters.let_go(crew, agent, task, fence) {
        place_waiting(core, crew);
    }
}

/// Gives waiting tasks to agents that have become free.
pub(crate) fn place_waiting(core: &Arc<Core>, crew: &CrewId) {
    for (wish, placement) in core.rosters.next(crew) {
        let (worker, of) = (Arc::clone(core), crew.clone());
        core.spawn_for(crew, async move {
            let Some((tenant, _)) = worker.rosters.crew(&of) else { return };
            let meta = worker.system_meta(&tenant, PART);
            let command = Command::Start { placement: placement.clone() };
            let id = wish.task.as_str();
            let command_id = worker.clock.fresh_command();
            let answer = worker.command(&worker.tasks, id, command, command_id, meta).await;
            let Err(problem) = answer else { return };
            // A start whose answer was lost is refused when it is repeated: the place is taken all the same.
            let state = worker.look(&worker.tasks, id).await;
            if state.attempt.as_ref().is_none_or(|live| live.placement != placement) {
                // Cancelled or expired while it waited: the place goes to the next.
                tracing::debug!(task = id, %problem, "task is not started");
                worker.rosters.release(&of, &placement.agent, &wish.task);
                place_waiting(&worker, &of);
            }
        });
    }
}

/// What the roster has to know to route a task.
pub(crate) fn wish(submitted: &Submitted) -> Wish {
    Wish {
        task: submitted.task.clone(),
        member: submitted.member.clone(),
        replica: submitted.replica,
        context: submitted.context.clone(),
    }
}

async fn perform(core: &Arc<Core>, id: &str, cause: &Cause, effect: Effect) {
    match effect {
        Effect::Queue { not_before_ms, .. } => queue(core, id, cause, not_before_ms).await,
        Effect::Dispatch(attempt) => dispatch(core, id, Some(cause), &attempt).await,
        Effect::Stop { attempt, children, reason } => {
            stop(core, id, cause, attempt.as_ref(), &children, &reason).await;
        }
        Effect::ExpireAt { at_ms } => {
            core.clock.sleep_until_ms(at_ms).await;
            let stale = core.look(&core.tasks, id).await.attempt.clone();
            core.follow(&core.tasks, id, Command::Expire, cause, PART, 1).await;
            if let Some(attempt) = stale {
                halt(core, id, &attempt, "its deadline passed").await;
            }
        }
        Effect::TimeoutAt { fence, at_ms } => {
            core.clock.sleep_until_ms(at_ms).await;
            let stale = core.look(&core.tasks, id).await.attempt.clone();
            let detail = "the attempt took longer than it may".to_owned();
            let command = Command::End { fence, ended: Ended::Timeout, detail };
            core.follow(&core.tasks, id, command, cause, PART, 2).await;
            if let Some(attempt) = stale.filter(|attempt| attempt.fence == fence) {
                halt(core, id, &attempt, "the attempt took longer than it may").await;
            }
        }
        Effect::AnswerBy { key, at_ms } => answer_by(core, id, cause, key, at_ms).await,
        Effect::Abandon { children, reason } => {
            let reason = format!("its parent {id} is over: {reason}");
            for child in &children {
                let command = Command::Cancel { reason: reason.clone(), by_parent: true };
                core.follow(&core.tasks, child.as_str(), command, cause, PART, 5).await;
            }
        }
    }
}

async fn queue(core: &Arc<Core>, id: &str, cause: &Cause, not_before_ms: i64) {
    core.clock.sleep_until_ms(not_before_ms).await;
    let state = core.look(&core.tasks, id).await;
    let Some(submitted) = state.submitted.as_ref().filter(|_| state.attempt.is_none()) else { return };
    if state.status != events::domain::task::Status::Submitted {
        return;
    }
    // Whether the crew ended before or after it got the task: one of the two sees the other, and calls it off.
    let crew = core.look(&core.crews, submitted.crew.as_str()).await;
    if crew.status.has_ended() {
        let command = Command::Cancel { reason: format!("its crew is {}", crew.status), by_parent: false };
        core.follow(&core.tasks, id, command, cause, PART, 4).await;
        return;
    }
    if let Some(reason) = reach::unreachable(&crew, submitted) {
        let command = Command::Cancel { reason, by_parent: false };
        core.follow(&core.tasks, id, command, cause, PART, 4).await;
        return;
    }
    core.rosters.queue(&submitted.crew, wish(submitted));
    place_waiting(core, &submitted.crew);
    hibernation::wake_for_tasks(core, &submitted.crew);
}

/// Hands the attempt to its agent's runner, now if the handler is up, else as soon as it is.
pub(crate) async fn dispatch(core: &Arc<Core>, id: &str, cause: Option<&Cause>, attempt: &Attempt) {
    let state = core.look(&core.tasks, id).await;
    let live = state.attempt.as_ref().is_some_and(|live| live.fence == attempt.fence);
    let Some(submitted) = state.submitted.as_ref().filter(|_| live) else { return };
    // The agent may have ended between the choice of it and the append: then nobody else ends the attempt.
    let agent = core.look(&core.agents, attempt.placement.agent.as_str()).await;
    let Some(sandbox) = serving(&agent, attempt) else {
        return end_orphan(core, id, submitted, attempt, &agent).await;
    };
    let params = match until_readable(core, &state, submitted, attempt).await {
        Ok(Some(params)) => params,
        Ok(None) => return,
        Err(problem) => return end(core, id, submitted, attempt, Ended::Transient, &problem.detail).await,
    };
    if !core.posts.take_send(&sandbox, &submitted.task, attempt.fence) {
        return;
    }
    let frame = link::TaskFrame {
        id: link::Id::try_from(format!("{id}.{}", attempt.fence))
            .expect("a task's id and a number fit an id"),
        attempt: attempt.number,
        fence: attempt.fence,
        params,
    };
    match core.links().send_task(&sandbox, frame, cause.map(Cause::origin)).await {
        Ok(()) => {}
        Err(NotSent::Ever(reason)) => {
            end(core, id, submitted, attempt, Ended::Permanent, &reason).await;
        }
        Err(NotSent::Yet(reason)) => {
            tracing::debug!(task = id, %sandbox, %reason, "attempt is sent again when the link is back");
            core.posts.forget_send(&sandbox, &submitted.task, attempt.fence);
        }
    }
}

fn submitted_id(submitted: &Submitted) -> link::Id {
    link::Id::try_from(submitted.task.as_str()).expect("a task's id fits the link's")
}

/// Ends an attempt that does not reach its agent.
async fn end(
    core: &Arc<Core>,
    id: &str,
    submitted: &Submitted,
    attempt: &Attempt,
    ended: Ended,
    detail: &str,
) {
    let command = Command::End { fence: attempt.fence, ended, detail: detail.to_owned() };
    let command_id = CommandId::derive(&["end", id, &attempt.fence.to_string()]);
    let meta = core.system_meta(&submitted.tenant, PART);
    core.instruct(&core.tasks, id, command, command_id, meta).await;
}

/// The parameters of `task/execute`, asked for until the store of bodies answers; nothing if the attempt is over by then.
async fn until_readable(
    core: &Arc<Core>,
    state: &State,
    submitted: &Submitted,
    attempt: &Attempt,
) -> Result<Option<link::handler::Execute>, Problem> {
    let mut wait = core.options.limits.effect_retry_initial_ms;
    loop {
        match execute_params(core, state, submitted, attempt).await {
            Ok(params) => return Ok(Some(params)),
            // Nothing is wrong with the handler: the attempt is not spent on that.
            Err(problem) if problem.kind.is_retryable() => {
                tracing::warn!(task = %submitted.task, %problem, "attempt waits for the task's bodies");
            }
            Err(problem) => return Err(problem),
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        wait = (wait * 2).min(core.options.limits.effect_retry_max_ms);
        let now = core.look(&core.tasks, submitted.task.as_str()).await;
        if now.attempt.as_ref().is_none_or(|live| live.fence != attempt.fence) {
            return Ok(None);
        }
    }
}

/// The parameters of `task/execute` for this attempt, with bodies as they were.
async fn execute_params(
    core: &Core,
    state: &State,
    submitted: &Submitted,
    attempt: &Attempt,
) -> Result<link::handler::Execute, Problem> {
    let input = contents::get(core, &submitted.input).await?;
    let checkpoint = match &state.checkpoint {
        Some(kept) => Some(contents::get(core, kept).await?),
        None => None,
    };
    let answers = questions::answers(core, submitted.task.as_str(), state).await?;
    let kind = if submitted.from_member.is_some() {
        link::handler::OriginKind::Member
    } else {
        link::handler::OriginKind::Principal
    };
    Ok(link::handler::Execute {
        task_id: submitted_id(submitted),
        attempt: attempt.number,
        context_id: link::Id::try_from(submitted.context.as_str())
            .unwrap_or_else(|_| submitted_id(submitted)),
        input: content(&input),
        from: link::handler::Origin {
            kind,
            name: submitted.from_member.clone().unwrap_or_else(|| submitted.from.clone()),
        },
        parent_task_id: submitted.parent.as_ref().and_then(|id| link::Id::try_from(id.as_str()).ok()),
        depth: submitted.depth,
        deadline: submitted.deadline_ms.map(|at_ms| Timestamp(at_ms.saturating_mul(1_000)).rfc3339()),
        timeout_ms: submitted.attempt_timeout_ms,
        traceparent: submitted.traceparent.clone(),
        dir: String::new(),
        checkpoint,
        answers,
    })
}

/// Stored content as the handler gets it. It was checked when it came in.
pub(crate) fn content(stored: &Value) -> link::Content {
    serde_json::from_value(stored.clone()).unwrap_or_else(|_| link::Content::data(stored.clone()))
}

/// Calls off the children, and then the attempt.
async fn stop(
    core: &Arc<Core>,
    id: &str,
    cause: &Cause,
    attempt: Option<&Attempt>,
    children: &[TaskId],
    reason: &str,
) {
    for child in children {
        let reason = format!("its parent {id} was canceled: {reason}");
        let command = Command::Cancel { reason, by_parent: true };
        let command_id = CommandId::derive(&["cancel-child", id, child.as_str()]);
        core.instruct(&core.tasks, child.as_str(), command, command_id, cause.meta(PART)).await;
    }
    for child in children {
        // One that was wanted but never accepted has nothing to end; whoever would accept it now looks at its parent.
        core.until(&core.tasks, child.as_str(), |state| {
            state.submitted.is_none() || state.status.is_terminal()
        })
        .await;
    }
    match attempt {
        Some(attempt) => halt(core, id, attempt, reason).await,
        None => {
            core.follow(&core.tasks, id, Command::CancelNow, cause, PART, 3).await;
        }
    }
}

/// Has the runner stop an attempt. If nothing comes of it within the grace and some, the attempt is ended here.
async fn halt(core: &Arc<Core>, id: &str, attempt: &Attempt, reason: &str) {
    let state = core.look(&core.tasks, id).await;
    let Some(submitted) = state.submitted.clone() else { return };
    let (crew, agent) = (&submitted.crew, &attempt.placement.agent);
    let grace_ms = grace_ms(core, agent.as_str()).await;
    let serving =
        |place: &Place| place.sandbox.clone().filter(|_| place.incarnation == attempt.placement.incarnation);
    let sandbox = core.rosters.place(crew, agent, serving);
    if let Some(sandbox) = sandbox.flatten() {
        let frame = link::CancelFrame {
            task_id: submitted_id(&submitted),
            attempt: attempt.number,
            reason: reason.to_owned(),
            grace_ms,
        };
        match core.links().cancel_task(&sandbox, frame).await {
            Ok(gateway::Withdrawn::Asked) => {}
            Ok(gateway::Withdrawn::Unsent) => {
                end_canceled(core, id, &submitted, attempt.fence, reason).await;
                return let_go(core, crew, agent, &submitted.task, attempt.fence);
            }
            Err(reason) => tracing::debug!(task = id, %reason, "attempt cannot be told to stop"),
        }
    }
    let fence = attempt.fence;
    let patience = Duration::from_millis(grace_ms.saturating_mul(2));
    if core.rosters.lingers(crew, agent, &submitted.task, fence) {
        // The attempt is over already; its place is free once the handler lets go, or should have.
        tokio::time::sleep(patience).await;
        return let_go(core, crew, agent, &submitted.task, fence);
    }
    let over = core
        .until(&core.tasks, id, move |state| state.attempt.as_ref().is_none_or(|live| live.fence != fence));
    if tokio::time::timeout(patience, over).await.is_err() {
        end_canceled(core, id, &submitted, fence, reason).await;
    }
}

async fn end_canceled(core: &Arc<Core>, id: &str, submitted: &Submitted, fence: u64, reason: &str) {
    let command = Command::End { fence, ended: Ended::Canceled, detail: reason.to_owned() };
    let command_id = CommandId::derive(&["halt", id, &fence.to_string()]);
    let meta = core.system_meta(&submitted.tenant, PART);
    core.instruct(&core.tasks, id, command, command_id, meta).await;
}

/// Ends the attempt at a task of which its agent was not heard for too long, while it got on with others.
pub(crate) async fn end_hung(core: &Arc<Core>, subject: &Subject, task: &TaskId) {
    let state = core.look(&core.tasks, task.as_str()).await;
    let theirs = |live: &&Attempt| {
        live.placement.agent == subject.agent && live.placement.incarnation == subject.incarnation
    };
    let (Some(submitted), Some(attempt)) = (&state.submitted, state.attempt.as_ref().filter(theirs)) else {
        return;
    };
    let detail = "its handler said nothing of it for too long, while it worked at others";
    end(core, task.as_str(), submitted, attempt, Ended::Hung, detail).await;
    halt(core, task.as_str(), attempt, detail).await;
}

/// Answers a question by its timeout.
async fn answer_by(core: &Arc<Core>, id: &str, cause: &Cause, key: String, at_ms: i64) {
    core.clock.sleep_until_ms(at_ms).await;
    let state = core.look(&core.tasks, id).await;
    let Some(question) = state.questions.get(&key).filter(|question| question.answer.is_none()) else {
        return;
    };
    let default = question.request.get("default").cloned().unwrap_or(Value::Null);
    let by_default = question.request.get("onTimeout").and_then(Value::as_str) == Some("default");
    // A `false` to an approval is a no, not a yes with a content.
    let is_no = question.request.get("kind").and_then(Value::as_str) == Some("approval")
        && default != Value::Bool(true);
    let (action, content) = match by_default {
        true if is_no => ("decline", Value::Null),
        true => ("accept", default),
        false => ("timeout", Value::Null),
    };
    let answer = Answer { action: action.to_owned(), content, by: "system:timeout".to_owned() };
    let command_id = CommandId::derive(&["answer-timeout", id, &key]);
    core.instruct(&core.tasks, id, Command::Answer { key, answer }, command_id, cause.meta(PART)).await;
}

/// Routes a task that is about to be submitted.
pub(crate) fn route(core: &Core, submitted: &Submitted) -> Routed {
    core.rosters.reserve(&submitted.crew, &wish(submitted))
}

/// Ends an attempt whose agent's incarnation has ended.
async fn end_orphan(
    core: &Arc<Core>,
    id: &str,
    submitted: &Submitted,
    attempt: &Attempt,
    agent: &agent::State,
) {
    let (ended, detail) = match &agent.killed {
        Some(_) => attempts_end(agent),
        None => (Ended::Crash, ORPHANED.to_owned()),
    };
    end(core, id, submitted, attempt, ended, &detail).await;
}

/// The sandbox of the incarnation that has the attempt, while that incarnation lives.
fn serving(agent: &agent::State, attempt: &Attempt) -> Option<SandboxId> {
    use agent::Status as S;
    let lives = matches!(agent.status, S::Provisioning | S::Warming | S::Ready | S::Draining | S::Paused);
    let serves = lives && agent.incarnation == attempt.placement.incarnation;
    agent.sandbox.clone().filter(|_| serves)
}

/// An attempt whose agent has moved on to another incarnation while nobody looked is over.
pub(crate) async fn end_if_orphaned(core: &Arc<Core>, id: &TaskId) -> Result<(), events::api::Problem> {
    let state = core.tasks.read(id.as_str()).await?;
    let (Some(submitted), Some(attempt)) = (&state.submitted, &state.attempt) else { return Ok(()) };
    let agent = core.agents.read(attempt.placement.agent.as_str()).await?;
    if serving(&agent, attempt).is_none() {
        end_orphan(core, id.as_str(), submitted, attempt, &agent).await;
    }
    Ok(())
}

/// A child that was accepted while its parent was called off or ended badly is called off too.
pub(crate) async fn end_with_parent(core: &Arc<Core>, id: &TaskId) -> Result<(), Problem> {
    let state = core.tasks.read(id.as_str()).await?;
    let Some((submitted, parent)) =
        state.submitted.as_ref().and_then(|submitted| Some((submitted, submitted.parent.as_ref()?)))
    else {
        return Ok(());
    };
    let above = core.tasks.read(parent.as_str()).await?;
    if above.abandons_children() {
        let reason = format!("its parent {parent} is {}", above.status);
        let command = Command::Cancel { reason, by_parent: true };
        let command_id = CommandId::derive(&["end-with-parent", id.as_str(), &above.fence.to_string()]);
        let meta = core.system_meta(&submitted.tenant, PART);
        core.instruct(&core.tasks, id.as_str(), command, command_id, meta).await;
    }
    Ok(())
}
