//! Commands: from a request to one [`Command`] and back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use events::api::{Command, Problem, ProblemKind, Reply};
use events::domain::crew::name_reservation;
use events::{AgentId, CrewId, Digest, EntityKind, TaskId, Tenant};
use manifest::Manifest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use super::extract::{Asker, Json, ManifestBody, Segments, content, parse};
use super::manifests::{Source, crew_and_profiles, read};
use super::problem::Refusal;

/// What a command led to.
#[derive(Serialize, JsonSchema)]
pub(super) struct Done {
    /// The kind of the entity.
    kind: &'static str,
    /// Its id.
    id: String,
    /// The position to which a reader must have read to see the outcome; give it as `minPosition`.
    position: u64,
    /// The entity as it is now.
    body: Value,
}

impl From<Reply> for Done {
    fn from(reply: Reply) -> Self {
        Self { kind: reply.kind.as_str(), id: reply.id, position: reply.position.0, body: reply.body }
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        axum::Json(self).into_response()
    }
}

/// An entity that was made, and where it is.
pub(super) struct Created(Done);

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        let location = HeaderValue::try_from(format!("/v1/{}s/{}", self.0.kind, self.0.id));
        let mut response = (StatusCode::CREATED, self.0).into_response();
        if let Ok(location) = location {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

type Outcome = Result<Done, Refusal>;

/// A profile to apply.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplyProfile {
    /// The manifest, of kind `Profile`.
    manifest: Value,
    /// The SHA-256 of its packed source, which is already among the artifacts.
    #[schemars(with = "Option<String>")]
    bundle: Option<Digest>,
}

pub(super) async fn apply_profile(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Json(body): Json<ApplyProfile>,
) -> Outcome {
    let Some(Manifest::Profile(profile)) = read(Source::Field(&body.manifest), &caller.tenant)?.pop() else {
        return Err(Refusal::invalid("`manifest`: found a crew, expected a manifest of kind `Profile`"));
    };
    let name = profile.metadata.name.as_str().to_owned();
    let command = Command::ProfileApply { name, spec: normal(&profile.spec)?, bundle: body.bundle };
    Ok(api.execute(caller, command).await?.into())
}

/// A crew to assemble.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Assemble {
    /// The manifest, of kind `Crew`.
    manifest: Value,
}

pub(super) async fn assemble(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    body: ManifestBody<Assemble>,
) -> Result<Created, Refusal> {
    let manifests = match &body {
        ManifestBody::Json(body) => read(Source::Field(&body.manifest), &caller.tenant)?,
        ManifestBody::Text(text) => read(Source::Text(text), &caller.tenant)?,
    };
    let (crew, profiles) = crew_and_profiles(manifests)?;
    if !profiles.is_empty() {
        return Err(Refusal::invalid("found profiles beside the crew; apply them first, with their bundles"));
    }
    let name = crew.metadata.name.as_str().to_owned();
    let command = Command::CrewAssemble { name, spec: normal(&crew.spec)?, labels: crew.metadata.labels };
    Ok(Created(api.execute(caller, command).await?.into()))
}

/// A checked specification in normal form.
fn normal(spec: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(spec).map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()).into())
}

/// The crew that a path names: by its id, or, while it lives, by its name.
pub(super) async fn crew_id(api: &Api, tenant: &Tenant, text: &str) -> Result<CrewId, Refusal> {
    if text.starts_with("cr_") {
        return parse("crew", text);
    }
    let holder = api.store.find_reservation(&name_reservation(tenant, text)).await?;
    match holder {
        Some(stream) => parse("crew", &stream.id),
        None => {
            let shown: String = text.chars().take(80).collect();
            let detail =
                format!("no living crew has the name `{shown}`; crews that ended are known by their id");
            Err(Problem::new(ProblemKind::NotFound, detail).into())
        }
    }
}

/// A number of replicas.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Scale {
    /// The member.
    member: String,
    /// How many agents it is to have, 0 to 100.
    #[schemars(range(max = 100))]
    replicas: u32,
}

pub(super) async fn scale(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(crew): Segments<String>,
    Json(Scale { member, replicas }): Json<Scale>,
) -> Outcome {
    let crew = crew_id(&api, &caller.tenant, &crew).await?;
    Ok(api.execute(caller, Command::CrewScale { crew, member, replicas }).await?.into())
}

pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(crew): Segments<String>,
) -> Outcome {
    let crew = crew_id(&api, &caller.tenant, &crew).await?;
    Ok(api.execute(caller, Command::CrewPause { crew }).await?.into())
}

pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(crew): Segments<String>,
) -> Outcome {
    let crew = crew_id(&api, &caller.tenant, &crew).await?;
    Ok(api.execute(caller, Command::CrewResume { crew }).await?.into())
}

pub(super) async fn drain(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(crew): Segments<String>,
) -> Outcome {
    let crew = crew_id(&api, &caller.tenant, &crew).await?;
    Ok(api.execute(caller, Command::CrewDrain { crew }).await?.into())
}

/// Why something is to end.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Reason {
    /// Why, for the log.
    #[serde(default)]
    reason: Option<String>,
}

impl Reason {
    fn text(self) -> String {
        self.reason.unwrap_or_else(|| "asked for".to_owned())
    }
}

pub(super) async fn disband(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(crew): Segments<String>,
    Json(reason): Json<Reason>,
) -> Outcome {
    let crew = crew_id(&api, &caller.tenant, &crew).await?;
    Ok(api.execute(caller, Command::CrewDisband { crew, reason: reason.text() }).await?.into())
}

pub(super) async fn restart(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(agent): Segments<String>,
) -> Outcome {
    let agent: AgentId = parse("agent", &agent)?;
    Ok(api.execute(caller, Command::AgentRestart { agent }).await?.into())
}

/// A task to do.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Submit {
    /// The crew: its id or its name.
    crew: String,
    /// The member or agent that gets it; the crew's entry when absent.
    #[serde(default)]
    to: Option<String>,
    /// What is to be done: content `{"parts": […]}`, a string (one text part) or any other JSON (one data part).
    input: Value,
    /// The conversation it belongs to.
    #[serde(default)]
    context: Option<String>,
    /// It must be finished in so many milliseconds.
    #[serde(default)]
    deadline_ms: Option<u64>,
}

pub(super) async fn submit(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Json(body): Json<Submit>,
) -> Result<Created, Refusal> {
    if let Some(to) = &body.to {
        parse::<link::Address>("to", to)?;
    }
    if body.context.as_ref().is_some_and(|context| !(1..=64).contains(&context.len())) {
        return Err(Refusal::invalid("`context`: expected 1 to 64 characters"));
    }
    let crew = crew_id(&api, &caller.tenant, &body.crew).await?;
    let input = content("input", body.input)?;
    let (to, context, deadline_ms) = (body.to, body.context, body.deadline_ms);
    let command = Command::TaskSubmit { crew, to, input, context, deadline_ms };
    Ok(Created(api.execute(caller, command).await?.into()))
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(task): Segments<String>,
    Json(reason): Json<Reason>,
) -> Outcome {
    let task: TaskId = parse("task", &task)?;
    Ok(api.execute(caller, Command::TaskCancel { task, reason: reason.text() }).await?.into())
}

pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(task): Segments<String>,
) -> Outcome {
    let task: TaskId = parse("task", &task)?;
    Ok(api.execute(caller, Command::TaskRetry { task }).await?.into())
}

/// An answer to an input request.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Answer {
    /// Whether what is asked is granted.
    action: Action,
    /// What is answered, as the request's schema describes it.
    #[serde(default)]
    content: Value,
}

/// Whether what is asked is granted.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// It is.
    Accept,
    /// It is not.
    Decline,
}

pub(super) async fn answer(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments((task, key)): Segments<(String, String)>,
    Json(Answer { action, content }): Json<Answer>,
) -> Outcome {
    let task: TaskId = parse("task", &task)?;
    if key.len() > 128 {
        return Err(Problem::not_found(EntityKind::Task, &format!("{task}/inputs/…")).into());
    }
    let command = Command::InputAnswer { task, key, accept: action == Action::Accept, content };
    Ok(api.execute(caller, command).await?.into())
}
