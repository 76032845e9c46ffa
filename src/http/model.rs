//! Crews, agents, tasks and the rest as the API shows them.

mod budget;
mod crew;
mod in_hand;
mod task;
mod wait;

use events::Timestamp;
use events::domain::message::Body;
use events::projection::{AgentView, AuditEntry, MessageView, ProfileView, TaskView};
use events::seal::ERASED;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use self::in_hand::InHandModel;
use super::SandboxKind;

pub(super) use self::crew::CrewModel;
pub(super) use self::task::{ApprovalModel, TaskModel};
pub(super) use self::wait::WaitModel;

fn time_of_ms(ms: i64) -> String {
    Timestamp(ms.saturating_mul(1_000)).rfc3339()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// An agent.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentModel {
    id: String,
    crew: String,
    member: String,
    replica: u32,
    /// Where it stands; `busy` and `waiting` are a ready agent with tasks in hand.
    status: String,
    incarnation: u64,
    /// The sandbox of that incarnation.
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
    /// The container that this sandbox is, by its daemon's id; absent where it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    /// The image that the container was made of, by its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// The warm pool from which it came; absent where it was made for the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    /// What kind of sandbox that is.
    sandbox_kind: String,
    /// What it isolates, honestly; `none` is a plain process.
    isolation: String,
    profile: String,
    profile_version: u32,
    profile_digest: String,
    /// Tasks in hand.
    tasks: u32,
    /// Tasks that it takes at the same time.
    concurrency: u32,
    /// The tasks in hand, and what they wait for; only where one agent is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    in_hand: Vec<InHandModel>,
    /// Why it drains, was set aside, or ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// By whom it was killed, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    killed: Option<KilledModel>,
    /// When it is woken, if it hibernates and is not needed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    wakes_at: Option<String>,
    /// Incarnations that have ended and of whose log something is kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<u64>,
    /// How the last incarnation that ended did so, and what was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_exit: Option<Value>,
    created_at: String,
    updated: u64,
    updated_at: String,
}

impl AgentModel {
    pub(super) fn new(view: AgentView, sandbox: &SandboxKind) -> Self {
        let status = view.activity().to_owned();
        let AgentView { id, lifespan, state, attempts_live, .. } = view;
        let requested = state.requested.as_ref();
        let text =
            |get: fn(&events::domain::agent::Requested) -> String| requested.map(get).unwrap_or_default();
        Self {
            id: id.to_string(),
            crew: text(|requested| requested.crew.to_string()),
            member: text(|requested| requested.member.clone()),
            replica: requested.map_or(0, |requested| requested.replica),
            status,
            incarnation: state.incarnation.0,
            sandbox: state.sandbox.as_ref().map(ToString::to_string),
            container: state.container.as_ref().map(|container| container.id.clone()),
            image: state.container.as_ref().map(|container| container.image.clone()),
            pool: state.pool.as_ref().map(ToString::to_string),
            sandbox_kind: sandbox.kind.clone(),
            isolation: sandbox.isolation.clone(),
            profile: text(|requested| requested.profile.clone()),
            profile_version: requested.map_or(0, |requested| requested.profile_version),
            profile_digest: text(|requested| requested.profile_digest.to_string()),
            tasks: attempts_live,
            concurrency: state.concurrency,
            in_hand: Vec::new(),
            reason: some(&state.reason),
            killed: state.killed.map(KilledModel::from),
            wakes_at: state
                .wake_at_ms
                .filter(|_| state.status == events::domain::agent::Status::Hibernating)
                .map(time_of_ms),
            logs: state.logs.keys().map(|incarnation| incarnation.0).collect(),
            last_exit: state.down.map(
                |down| json!({"incarnation": down.incarnation, "exit": down.exit, "detail": down.detail}),
            ),
            created_at: lifespan.created_at.rfc3339(),
            updated: lifespan.updated.0,
            updated_at: lifespan.updated_at.rfc3339(),
        }
    }

    pub(super) fn with_tasks(self, tasks: &[TaskView]) -> Self {
        Self { in_hand: tasks.iter().map(InHandModel::of).collect(), ..self }
    }
}

/// Somebody's decision to end something at once.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KilledModel {
    by: String,
    reason: String,
    at: String,
}

impl From<events::domain::killed::Killed> for KilledModel {
    fn from(killed: events::domain::killed::Killed) -> Self {
        Self { by: killed.by.to_string(), reason: killed.reason, at: time_of_ms(killed.at_ms) }
    }
}

/// A version of a profile.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProfileModel {
    name: String,
    version: u32,
    /// The digest of the specification, the bundle and the image.
    digest: String,
    /// The digest of the packed source.
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    /// What its image stood for when it was applied, by its content: all agents of this version are made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// The specification in normal form.
    spec: Value,
    position: u64,
    created_at: String,
}

impl From<ProfileView> for ProfileModel {
    fn from(view: ProfileView) -> Self {
        let applied = view.applied;
        Self {
            name: applied.name,
            version: applied.version,
            digest: applied.digest.to_string(),
            bundle: applied.bundle.map(|digest| digest.to_string()),
            image: applied.image,
            spec: applied.spec,
            position: view.position.0,
            created_at: view.applied_at.rfc3339(),
        }
    }
}

/// A message and what became of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageModel {
    id: String,
    position: u64,
    sent_at: String,
    crew: String,
    /// Who sent it: stamped by the platform.
    from: PartyModel,
    /// The address as it was given.
    to: String,
    /// Its parts. In a list, one that is larger than 4 KiB is told by its size (`bytes`) alone.
    pub(super) body: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    deliveries: Vec<DeliveryModel>,
}

/// An agent in one of its lives.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PartyModel {
    agent: String,
    member: String,
    replica: u32,
    incarnation: u64,
}

/// What became of a message at one recipient.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DeliveryModel {
    recipient: String,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    at: String,
}

impl From<MessageView> for MessageModel {
    fn from(view: MessageView) -> Self {
        let sent = view.sent;
        let delivery = |delivery: events::projection::Delivery| DeliveryModel {
            recipient: delivery.recipient,
            status: delivery.status,
            detail: delivery.detail,
            at: delivery.at.rfc3339(),
        };
        Self {
            id: sent.message.to_string(),
            position: view.position.0,
            sent_at: view.sent_at.rfc3339(),
            crew: sent.crew.to_string(),
            from: PartyModel {
                agent: sent.from.agent.to_string(),
                member: sent.from.member.to_string(),
                replica: sent.from.replica,
                incarnation: sent.from.incarnation.0,
            },
            to: sent.to,
            body: match sent.body {
                Body::Inline(body) => body,
                Body::Stored(stored) if stored.is_erased() => ERASED.into(),
                Body::Stored(stored) => json!({ "bytes": stored.bytes }),
            },
            context: sent.context,
            task: sent.task,
            reply_to: sent.reply_to,
            deliveries: view.deliveries.into_iter().map(delivery).collect(),
        }
    }
}

/// One line of the audit.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditModel {
    position: u64,
    recorded_at: String,
    principal: String,
    kind: String,
    /// The stream that it happened to.
    entity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    crew: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation: Option<String>,
    /// `ok`, `failed` or `denied`.
    outcome: String,
    /// What happened, for a person.
    summary: String,
}

impl From<AuditEntry> for AuditModel {
    fn from(entry: AuditEntry) -> Self {
        Self {
            position: entry.position.0,
            recorded_at: entry.recorded_at.rfc3339(),
            principal: entry.principal.to_string(),
            kind: entry.kind,
            entity: entry.entity,
            crew: entry.crew,
            correlation: entry.correlation,
            causation: entry.causation,
            outcome: entry.outcome,
            summary: entry.summary,
        }
    }
}
