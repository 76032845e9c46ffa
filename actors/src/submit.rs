//! How a task comes into being, whoever wants it.

use std::sync::Arc;

use events::api::{Problem, ProblemKind};
use events::domain::task::{Command, Event, Placement, RetryPolicy, State, Submitted, Task};
use events::{CommandId, CrewId, Digest, Meta, TaskId, Tenant};
use manifest::{ProfileSpec, RetryClass};
use serde_json::Value;

use crate::core::Core;
use crate::entity::{Outcome, Request};
use crate::hosted;
use crate::roster::Routed;

/// A task that is wanted.
pub(crate) struct Order {
    pub(crate) task: TaskId,
    pub(crate) tenant: Tenant,
    pub(crate) crew: CrewId,
    pub(crate) member: String,
    pub(crate) replica: Option<u32>,
    pub(crate) input: Value,
    pub(crate) subject: Option<String>,
    pub(crate) context: String,
    pub(crate) from: String,
    pub(crate) from_member: Option<String>,
    pub(crate) parent: Option<TaskId>,
    pub(crate) depth: u32,
    pub(crate) deadline_ms: Option<i64>,
    pub(crate) request_digest: Digest,
    /// Its id was made for this order: nobody can have given the same one before.
    pub(crate) is_first: bool,
}

/// Accepts the task: one append where an agent is free, a place in the member's queue where none is.
pub(crate) async fn submit(
    core: &Arc<Core>,
    order: Order,
    command_id: CommandId,
    meta: Meta,
) -> Result<Outcome<Task>, Problem> {
    let (id, is_first) = (order.task.clone(), order.is_first);
    let earlier = if is_first { None } else { core.tasks.read(id.as_str()).await?.submitted.clone() };
    let exists = earlier.is_some();
    let traceparent = meta.traceparent.as_deref().map(str::to_owned);
    let submitted = match earlier {
        // Its crew may be no more: what it was is all that is needed to find that it is the same.
        Some(earlier) => Submitted { request_digest: order.request_digest, ..earlier },
        None => Submitted { traceparent, ..complete(core, order).await? },
    };
    let placement = if exists { None } else { route(core, &submitted)? };
    let request = Request {
        command: Command::Submit { submitted: submitted.clone(), placement: placement.clone() },
        command_id,
        digest: Some(submitted.request_digest),
        meta,
        is_first,
    };
    let answer = core.tasks.execute(id.as_str(), request).await;
    let started = answer
        .as_ref()
        .is_ok_and(|outcome| outcome.events.iter().any(|event| matches!(event, Event::AttemptStarted(_))));
    if let Some(placement) = placement.filter(|_| !started) {
        give_back(core, &submitted, &placement, answer.as_ref().ok().map(|outcome| &outcome.state));
    }
    answer
}

/// The place was not taken after all, unless a repeated command had taken the very same.
fn give_back(core: &Arc<Core>, submitted: &Submitted, placement: &Placement, state: Option<&Arc<State>>) {
    let held =
        state.and_then(|state| state.attempt.as_ref()).is_some_and(|live| live.placement == *placement);
    if !held {
        core.rosters.release(&submitted.crew, &placement.agent, &submitted.task);
        hosted::place_waiting(core, &submitted.crew);
    }
}

fn route(core: &Arc<Core>, submitted: &Submitted) -> Result<Option<Placement>, Problem> {
    match hosted::route(core, submitted) {
        Routed::Placed(placement) => Ok(Some(placement)),
        Routed::Wait => check_room(core, &submitted.crew, &submitted.member).map(|()| None),
    }
}

/// Refuses a further task for a member for whom too many wait.
pub(crate) fn check_room(core: &Core, crew: &CrewId, member: &str) -> Result<(), Problem> {
    let most = core.options.limits.member_queue_tasks_max;
    if core.rosters.has_room(crew, member, most) {
        return Ok(());
    }
    let detail = format!("{most} tasks wait for `{member}` already; try again later");
    Err(Problem::new(ProblemKind::Busy, detail))
}

/// Adds what the member's profile says about its tasks.
async fn complete(core: &Arc<Core>, order: Order) -> Result<Submitted, Problem> {
    let crew = core.crews.read(order.crew.as_str()).await?;
    let seat = crew.seats.iter().map(|held| &held.seat).find(|seat| seat.member == order.member);
    let seat = seat.ok_or_else(|| {
        Problem::new(ProblemKind::NotFound, format!("crew `{}` has no member `{}`", order.crew, order.member))
    })?;
    let profile = core.profiles.get(&*core.store, &order.tenant, &seat.profile, seat.profile_digest).await?;
    Ok(Submitted {
        task: order.task,
        tenant: order.tenant,
        crew: order.crew,
        member: order.member,
        replica: order.replica,
        input: order.input,
        subject: order.subject,
        context: order.context,
        from: order.from,
        from_member: order.from_member,
        parent: order.parent,
        depth: order.depth,
        deadline_ms: order.deadline_ms,
        attempt_timeout_ms: profile.spec.handler.timeout.map(manifest::Millis::as_millis),
        retry: retry(&profile.spec),
        request_digest: order.request_digest,
        traceparent: None,
    })
}

fn retry(spec: &ProfileSpec) -> RetryPolicy {
    RetryPolicy {
        max_attempts: spec.retry.max_attempts,
        unclassified_is_transient: matches!(spec.retry.unclassified, RetryClass::Transient),
    }
}
