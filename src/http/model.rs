//! Crews, agents, tasks and the rest as the API shows them.

mod budget;
mod in_hand;

use std::collections::BTreeMap;

use events::Timestamp;
use events::domain::message::Body;
use events::domain::{crew, task};
use events::projection::{AgentView, AttemptView, AuditEntry, CrewView, MessageView, ProfileView, TaskView};
use events::seal::ERASED;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use self::budget::{BudgetModel, SpentModel, UsageModel};
use self::in_hand::InHandModel;
use super::SandboxKind;

fn time_of_ms(ms: i64) -> String {
    Timestamp(ms.saturating_mul(1_000)).rfc3339()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A crew.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CrewModel {
    id: String,
    name: String,
    labels: BTreeMap<String, String>,
    /// `assembling`, `running`, `paused`, `draining`, `disbanding`, `disbanded` or `failed`.
    status: &'static str,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The member that gets the crew's tasks.
    entry: String,
    /// Agents that it has.
    agents: usize,
    /// Agents of it that are ready.
    agents_ready: u32,
    /// Tasks of it that have not ended.
    tasks_open: u32,
    /// What it may use up; absent where nothing is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<BudgetModel>,
    /// What it has used up.
    spent: SpentModel,
    /// Its agents in start order; only where one crew is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seats: Vec<SeatModel>,
    /// Its specification in normal form; only where one crew is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Value>,
    created: u64,
    created_at: String,
    updated: u64,
    updated_at: String,
}

/// An agent's place in a crew.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SeatModel {
    agent: String,
    member: String,
    replica: u32,
    profile: String,
    profile_version: u32,
    incarnation: u64,
    /// `quarantined` or `removed`, where the crew no longer counts on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    given_up: Option<&'static str>,
}

impl CrewModel {
    pub(super) fn brief(view: CrewView) -> Self {
        Self { seats: Vec::new(), spec: None, ..Self::full(view) }
    }

    pub(super) fn full(view: CrewView) -> Self {
        let CrewView { id, lifespan, state, agents_ready, tasks_open, spent } = view;
        let budget = BudgetModel::of(&state);
        let seats: Vec<SeatModel> = state.seats.iter().map(SeatModel::of).collect();
        let started = state.started;
        let (name, labels, entry, spec) = started
            .map(|started| (started.name, started.labels, started.entry, Some(started.spec)))
            .unwrap_or_default();
        Self {
            id: id.to_string(),
            name,
            labels,
            status: state.status.as_str(),
            reason: some(&state.reason),
            entry,
            agents: seats.iter().filter(|seat| seat.given_up.is_none()).count(),
            agents_ready,
            tasks_open,
            budget,
            spent: spent.into(),
            seats,
            spec,
            created: lifespan.created.0,
            created_at: lifespan.created_at.rfc3339(),
            updated: lifespan.updated.0,
            updated_at: lifespan.updated_at.rfc3339(),
        }
    }
}

impl SeatModel {
    fn of(held: &crew::Held) -> Self {
        let seat = &held.seat;
        Self {
            agent: seat.agent.to_string(),
            member: seat.member.clone(),
            replica: seat.replica,
            profile: seat.profile.clone(),
            profile_version: seat.profile_version,
            incarnation: held.incarnation.0,
            given_up: held.given_up.map(|given_up| match given_up {
                crew::GivenUp::Quarantined => "quarantined",
                crew::GivenUp::Removed => "removed",
            }),
        }
    }
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

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TaskModel {
    id: String,
    crew: String,
    member: String,
    /// `submitted`, `working`, `input_required`, `completed`, `failed`, `canceled`, `rejected` or `dead_lettered`.
    status: &'static str,
    /// Whether nothing more happens to it by itself.
    is_terminal: bool,
    context: String,
    /// Who wants it.
    from: String,
    /// Whose personal data it is about; `[erased]` once that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    depth: u32,
    /// How often it was tried.
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_at: Option<String>,
    /// Why it did not come to a good end.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why it is being called off.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel: Option<String>,
    /// What its attempts used of models.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageModel>,
    /// What is to be done; only where one task is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input: Option<Value>,
    /// What came out; only where one task is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<Value>,
    /// Files that came out; only where one task is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) artifacts: Option<Value>,
    /// Children by key; only where one task is asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    children: BTreeMap<String, String>,
    /// Questions and answers by key; only where one task is asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    questions: BTreeMap<String, Value>,
    /// Every try; only where one task is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) history: Vec<AttemptModel>,
    created: u64,
    created_at: String,
    updated: u64,
    updated_at: String,
}

impl TaskModel {
    pub(super) fn brief(view: TaskView) -> Self {
        let full = Self::full(view);
        let (children, questions) = (BTreeMap::new(), BTreeMap::new());
        Self { input: None, output: None, artifacts: None, children, questions, ..full }
    }

    pub(super) fn full(view: TaskView) -> Self {
        let TaskView { id, lifespan, state } = view;
        let submitted = state.submitted.as_ref();
        let text = |get: fn(&task::Submitted) -> String| submitted.map(get).unwrap_or_default();
        Self {
            id: id.to_string(),
            crew: text(|submitted| submitted.crew.to_string()),
            member: text(|submitted| submitted.member.clone()),
            status: state.status.as_str(),
            is_terminal: state.status.is_terminal(),
            context: text(|submitted| submitted.context.clone()),
            from: text(|submitted| submitted.from.clone()),
            subject: submitted.and_then(|submitted| submitted.subject.clone()),
            parent: submitted.and_then(|submitted| submitted.parent.as_ref()).map(ToString::to_string),
            depth: submitted.map_or(0, |submitted| submitted.depth),
            attempts: state.attempts,
            deadline_at: submitted.and_then(|submitted| submitted.deadline_ms).map(time_of_ms),
            error: state.error,
            cancel: state.cancel,
            usage: UsageModel::of(state.usage),
            input: submitted.map(|submitted| submitted.input.clone()),
            output: state.output,
            artifacts: Some(state.artifacts).filter(|artifacts| !artifacts.is_null()),
            children: state.children.into_iter().map(|(key, child)| (key, child.task.to_string())).collect(),
            questions: state
                .questions
                .into_iter()
                .map(|(key, question)| (key, question_value(&question)))
                .collect(),
            history: Vec::new(),
            created: lifespan.created.0,
            created_at: lifespan.created_at.rfc3339(),
            updated: lifespan.updated.0,
            updated_at: lifespan.updated_at.rfc3339(),
        }
    }
}

fn question_value(question: &task::Question) -> Value {
    json!({
        "request": question.request,
        "expiresAt": question.expires_at_ms.map(time_of_ms),
        "answer": question.answer,
    })
}

/// One try at a task.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AttemptModel {
    number: u32,
    fence: u64,
    agent: String,
    incarnation: u64,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// How it ended; absent while it is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl From<AttemptView> for AttemptModel {
    fn from(view: AttemptView) -> Self {
        Self {
            number: view.number,
            fence: view.fence,
            agent: view.agent.to_string(),
            incarnation: view.incarnation.0,
            started_at: view.started_at.rfc3339(),
            ended_at: view.ended_at.map(Timestamp::rfc3339),
            outcome: view.outcome,
            detail: view.detail,
        }
    }
}

/// A question that waits for an answer.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApprovalModel {
    /// The task that asks.
    task: String,
    /// The question's key.
    key: String,
    crew: String,
    member: String,
    /// What is asked, as the handler put it.
    request: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl ApprovalModel {
    /// The open questions of a task.
    pub(super) fn of(view: &TaskView) -> Vec<Self> {
        let submitted = view.state.submitted.as_ref();
        let open = view.state.questions.iter().filter(|(_, question)| question.answer.is_none());
        open.map(|(key, question)| Self {
            task: view.id.to_string(),
            key: key.clone(),
            crew: submitted.map(|submitted| submitted.crew.to_string()).unwrap_or_default(),
            member: submitted.map(|submitted| submitted.member.clone()).unwrap_or_default(),
            request: question.request.clone(),
            expires_at: question.expires_at_ms.map(time_of_ms),
        })
        .collect()
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
