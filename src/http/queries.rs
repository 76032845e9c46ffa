//! Queries over the views.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use events::api::{Problem, ProblemKind};
use events::artifact::ArtifactError;
use events::domain::message::{Body, MessageId};
use events::domain::task::Status;
use events::projection::{
    AgentFilter, AuditFilter, CrewFilter, Direction, MessageFilter, Outcome, PAGE_ITEMS_MAX, PageRequest,
    TaskFilter, TaskView,
};
use events::{AgentId, Digest, EntityKind, Incarnation, Principal, TaskId, Timestamp};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::Api;
use super::extract::{Asker, Params, Seer, Segments};
use super::model::{
    AgentModel, ApprovalModel, AuditModel, CrewModel, MessageModel, ProfileModel, TaskModel, WaitModel,
};
use super::page::{Items, Listing, Order, listing};
use crate::api::{Refusal, event_kind, parse};

type Answer<T> = Result<Json<T>, Refusal>;

/// How long a waiting reader rests between two looks, so that a busy log does not keep it busy, in milliseconds.
const LOOK_MS: u64 = 10;

/// A state by its name.
fn named<T: DeserializeOwned>(field: &str, name: &str) -> Result<T, Refusal> {
    serde_json::from_value(Value::from(name)).map_err(|error| Refusal::invalid(format!("`{field}`: {error}")))
}

macro_rules! optional {
    ($field:literal, $value:expr, $read:ident) => {
        $value.as_deref().map(|text| $read($field, text)).transpose()?
    };
}

listing! {
    /// Which crews.
    Crews {
        /// Its name.
        name: Option<String>,
        /// Its status.
        status: Option<String>,
    }
}

pub(super) async fn crews(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Params(query): Params<Crews>,
) -> Answer<Items<CrewModel>> {
    api.settle(query.min_position()).await?;
    let filter = CrewFilter { status: optional!("status", query.status, named), name: query.name.clone() };
    let page = api.views.crews(seer.within(), filter, query.page()?).await.map_err(Problem::from)?;
    Ok(Json(api.items(page, CrewModel::brief)))
}

/// How one entity is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct One {
    /// The answer waits until everything up to this position can be seen in it.
    #[serde(alias = "min_position")]
    min_position: Option<u64>,
}

impl One {
    pub(super) fn min_position(&self) -> Option<u64> {
        self.min_position
    }
}

pub(super) async fn crew(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Segments(crew): Segments<String>,
    Params(query): Params<One>,
) -> Answer<CrewModel> {
    let settled = api.settle(query.min_position).await?;
    let id = seer.crew(&api, &crew).await?;
    let view = settled.found(api.views.crew(seer.within(), &id).await, EntityKind::Crew, id.as_str())?;
    Ok(Json(CrewModel::full(view)))
}

listing! {
    /// Which agents.
    Agents {
        /// Its crew: id or name.
        crew: Option<String>,
        /// Its member.
        member: Option<String>,
        /// Its status in the log: `busy` and `waiting` are `ready` there.
        status: Option<String>,
    }
}

pub(super) async fn agents(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Params(query): Params<Agents>,
) -> Answer<Items<AgentModel>> {
    api.settle(query.min_position()).await?;
    let filter = AgentFilter {
        crew: optional_crew(&api, &seer, query.crew.as_deref()).await?,
        member: query.member.clone(),
        status: optional!("status", query.status, named),
    };
    let page = api.views.agents(seer.within(), filter, query.page()?).await.map_err(Problem::from)?;
    Ok(Json(api.items(page, |view| AgentModel::new(view, &api.sandbox))))
}

async fn optional_crew(
    api: &Api,
    seer: &Seer,
    crew: Option<&str>,
) -> Result<Option<events::CrewId>, Refusal> {
    match crew {
        Some(crew) => seer.crew(api, crew).await.map(Some),
        None => Ok(None),
    }
}

pub(super) async fn agent(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Segments(agent): Segments<String>,
    Params(query): Params<One>,
) -> Answer<AgentModel> {
    let settled = api.settle(query.min_position).await?;
    let id: AgentId = parse("agent", &agent)?;
    let view = settled.found(api.views.agent(seer.within(), &id).await, EntityKind::Agent, id.as_str())?;
    let in_hand = api.views.in_hand(&seer.tenant, &id).await.map_err(Problem::from)?;
    Ok(Json(AgentModel::new(view, &api.sandbox).with_tasks(&in_hand)))
}

/// How much of a log is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LogEnd {
    /// At most so many bytes, from its end.
    #[schemars(range(max = 1_048_576))]
    tail_bytes: Option<u64>,
    /// Which incarnation's log; the newest's when absent.
    incarnation: Option<u64>,
}

/// The end of what an agent's handler has written.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentLog {
    /// The agent.
    agent: String,
    /// The incarnation whose log it is.
    incarnation: u64,
    /// The log's end; absent where nothing of it is kept.
    log: Option<String>,
}

/// Bytes of a log that are shown unless asked otherwise.
const LOG_BYTES: u64 = 64 * 1024;
/// Most bytes of a log that are shown.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

pub(super) async fn agent_log(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Segments(agent): Segments<String>,
    Params(query): Params<LogEnd>,
) -> Answer<AgentLog> {
    let settled = api.settle(None).await?;
    let id: AgentId = parse("agent", &agent)?;
    let view = settled.found(api.views.agent(seer.within(), &id).await, EntityKind::Agent, id.as_str())?;
    let bytes = query.tail_bytes.unwrap_or(LOG_BYTES).min(LOG_BYTES_MAX);
    let state = &view.state;
    let incarnation = query.incarnation.map_or(state.incarnation, Incarnation);
    let live = match state.sandbox.as_ref().filter(|_| incarnation == state.incarnation) {
        Some(sandbox) => api.logs.log(state.node.as_deref(), sandbox, bytes).await?,
        None => None,
    };
    let log = match (live, state.logs.get(&incarnation)) {
        (Some(log), _) => Some(log),
        (None, Some(kept)) => kept_log(&api, kept.digest, bytes).await?,
        (None, None) => None,
    };
    Ok(Json(AgentLog { agent: id.to_string(), incarnation: incarnation.0, log }))
}

/// The end of a log that is kept as an artifact.
async fn kept_log(api: &Api, digest: Digest, bytes_max: u64) -> Result<Option<String>, Problem> {
    let unavailable = |error: ArtifactError| Problem::new(ProblemKind::Unavailable, error.to_string());
    let Some(bytes) = api.artifacts.get(digest).await.map_err(unavailable)? else { return Ok(None) };
    let from = bytes.len().saturating_sub(usize::try_from(bytes_max).unwrap_or(usize::MAX));
    Ok(Some(String::from_utf8_lossy(&bytes[from..]).into_owned()))
}

listing! {
    /// Which tasks.
    Tasks {
        /// Its crew: id or name.
        crew: Option<String>,
        /// The member that gets it.
        member: Option<String>,
        /// The task that waits for it.
        parent: Option<String>,
        /// The conversation that it belongs to.
        context: Option<String>,
        /// Its status.
        status: Option<String>,
    }
}

pub(super) async fn tasks(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Params(query): Params<Tasks>,
) -> Answer<Items<TaskModel>> {
    api.settle(query.min_position()).await?;
    let filter = TaskFilter {
        crew: optional_crew(&api, &seer, query.crew.as_deref()).await?,
        member: query.member.clone(),
        parent: optional!("parent", query.parent, parse),
        context: query.context.clone(),
        status: optional!("status", query.status, named),
    };
    let page = api.views.tasks(seer.within(), filter, query.page()?).await.map_err(Problem::from)?;
    Ok(Json(api.items(page, TaskModel::brief)))
}

/// How a task is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OneTask {
    /// The answer waits until everything up to this position can be seen in it.
    #[serde(alias = "min_position")]
    min_position: Option<u64>,
    /// The answer waits until the task is terminal, or so many milliseconds are over.
    wait_ms: Option<u64>,
}

pub(super) async fn task(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Segments(task): Segments<String>,
    Params(query): Params<OneTask>,
) -> Answer<TaskModel> {
    let settled = api.settle(query.min_position).await?;
    let id: TaskId = parse("task", &task)?;
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0).min(api.limits.wait_ms_max));
    let until = Instant::now() + wait;
    let mut view = settled.found(api.views.task(seer.within(), &id).await, EntityKind::Task, id.as_str())?;
    while !view.state.status.is_terminal() && Instant::now() < until && !api.stop.is_cancelled() {
        changed(&api, until).await;
        view = settled.found(api.views.task(seer.within(), &id).await, EntityKind::Task, id.as_str())?;
    }
    Ok(Json(whole(&api, &seer.tenant, view).await?))
}

/// Waits until the views have moved, the time is up or the platform stops.
async fn changed(api: &Api, until: Instant) {
    let next = api.views.position().next();
    tokio::select! {
        // That they did not move in time is seen by the clock.
        _ = api.views.wait_for(next, until - Instant::now()) => {}
        () = api.stop.cancelled() => {}
    }
    tokio::time::sleep_until(until.min(Instant::now() + Duration::from_millis(LOOK_MS))).await;
}

/// A task with its bodies and every try.
async fn whole(api: &Api, tenant: &events::Tenant, view: TaskView) -> Result<TaskModel, Refusal> {
    let attempts = api.views.attempts(tenant, &view.id).await.map_err(Problem::from)?;
    let waits_for = waits_for(api, tenant, &view).await?;
    let mut model = TaskModel::full(view);
    model.waits_for = waits_for;
    for body in [&mut model.input, &mut model.output, &mut model.artifacts].into_iter().flatten() {
        *body = api.bodies.body(body).await?;
    }
    model.history = attempts.into_iter().map(Into::into).collect();
    Ok(model)
}

/// What a task waits for while nobody works on it.
async fn waits_for(
    api: &Api,
    tenant: &events::Tenant,
    view: &TaskView,
) -> Result<Option<WaitModel>, Problem> {
    let Some(submitted) = view.state.submitted.as_ref().filter(|_| view.state.status == Status::Submitted)
    else {
        return Ok(None);
    };
    let Some(crew) = api.views.crew(tenant, &submitted.crew).await? else { return Ok(None) };
    let (crew_id, member) = (Some(submitted.crew.clone()), Some(submitted.member.clone()));
    let filter = AgentFilter { crew: crew_id, member, status: None };
    let page = PageRequest { items_max: PAGE_ITEMS_MAX, direction: Direction::Newest, cursor: None };
    let agents = api.views.agents(tenant, filter, page).await?;
    Ok(WaitModel::of(&view.state, &crew.state, &agents.items, Timestamp::now()))
}

listing! {
    /// Which questions: those of a page of tasks that wait for an answer.
    Approvals {}
}

pub(super) async fn approvals(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Params(query): Params<Approvals>,
) -> Answer<Items<ApprovalModel>> {
    api.settle(query.min_position()).await?;
    let filter = TaskFilter { status: Some(Status::InputRequired), ..TaskFilter::default() };
    let page = api.views.tasks(seer.within(), filter, query.page()?).await.map_err(Problem::from)?;
    let items = api.items(page, |task| ApprovalModel::of(&task));
    Ok(Json(Items {
        items: items.items.into_iter().flatten().collect(),
        next: items.next,
        position: items.position,
    }))
}

listing! {
    /// Which profiles: the newest version of each.
    Profiles {}
}

pub(super) async fn profiles(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Params(query): Params<Profiles>,
) -> Answer<Items<ProfileModel>> {
    api.settle(query.min_position()).await?;
    let page = api.views.profiles(&caller.tenant, query.page()?).await.map_err(Problem::from)?;
    Ok(Json(api.items(page, ProfileModel::from)))
}

/// Which version of a profile.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProfileVersion {
    /// The answer waits until everything up to this position can be seen in it.
    #[serde(alias = "min_position")]
    min_position: Option<u64>,
    /// The version; the newest when absent.
    version: Option<u32>,
}

pub(super) async fn profile(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(name): Segments<String>,
    Params(query): Params<ProfileVersion>,
) -> Answer<ProfileModel> {
    let settled = api.settle(query.min_position).await?;
    let shown: String = name.chars().take(80).collect();
    let view = settled.found(
        api.views.profile(&caller.tenant, &name, query.version).await,
        EntityKind::Profile,
        &shown,
    )?;
    Ok(Json(view.into()))
}

listing! {
    /// Which messages.
    Messages {
        /// The crew: id or name.
        crew: Option<String>,
        /// The agent that sent it.
        sender: Option<String>,
    }
}

pub(super) async fn messages(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Params(query): Params<Messages>,
) -> Answer<Items<MessageModel>> {
    api.settle(query.min_position()).await?;
    let filter = MessageFilter {
        crew: optional_crew(&api, &seer, query.crew.as_deref()).await?,
        sender: optional!("sender", query.sender, parse),
        message: None,
    };
    let page = api.views.messages(seer.within(), filter, query.page()?).await.map_err(Problem::from)?;
    Ok(Json(api.items(page, MessageModel::from)))
}

pub(super) async fn message(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Segments(message): Segments<String>,
    Params(query): Params<One>,
) -> Answer<MessageModel> {
    let settled = api.settle(query.min_position).await?;
    let id = MessageId::from(message.as_str());
    let filter = MessageFilter { message: Some(id), ..MessageFilter::default() };
    let page = api.views.messages(seer.within(), filter, PageRequest::default()).await;
    let shown: String = message.chars().take(80).collect();
    let view = settled.found(page.map(|mut page| page.items.pop()), "message", &shown)?;
    let stored = match &view.sent.body {
        Body::Stored(stored) => Some(stored.clone().reference()),
        Body::Inline(_) => None,
    };
    let mut model = MessageModel::from(view);
    if let Some(reference) = stored {
        model.body = api.bodies.body(&reference).await?;
    }
    Ok(Json(model))
}

listing! {
    /// Which lines of the audit.
    AuditLines {
        /// The stream, such as `task/tk_…`.
        entity: Option<String>,
        /// The crew: id or name.
        crew: Option<String>,
        /// The event's kind.
        kind: Option<String>,
        /// Who did it, such as `user:admin`.
        principal: Option<String>,
        /// What it belongs together with.
        correlation: Option<String>,
        /// `ok`, `failed` or `denied`.
        outcome: Option<OutcomeName>,
    }
}

/// How an audited event came out.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutcomeName {
    /// As it was meant.
    Ok,
    /// Something broke or was given up.
    Failed,
    /// Something was not allowed.
    Denied,
}

pub(super) async fn audit(
    State(api): State<Arc<Api>>,
    seer: Seer,
    Params(query): Params<AuditLines>,
) -> Answer<Items<AuditModel>> {
    api.settle(query.min_position()).await?;
    let principal: Option<Principal> = optional!("principal", query.principal, parse);
    query.kind.as_deref().map(|kind| event_kind("kind", kind)).transpose()?;
    let filter = AuditFilter {
        entity: query.entity.clone(),
        crew: optional_crew(&api, &seer, query.crew.as_deref()).await?,
        kind: query.kind.clone(),
        principal,
        correlation: query.correlation.clone(),
        outcome: query.outcome.map(|outcome| match outcome {
            OutcomeName::Ok => Outcome::Ok,
            OutcomeName::Failed => Outcome::Failed,
            OutcomeName::Denied => Outcome::Denied,
        }),
    };
    let page = api.views.audit(seer.within(), filter, query.page()?).await.map_err(Problem::from)?;
    Ok(Json(api.items(page, AuditModel::from)))
}
