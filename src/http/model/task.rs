//! Tasks as the API shows them.

use std::collections::BTreeMap;

use events::Timestamp;
use events::domain::task;
use events::projection::{AttemptView, TaskView};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::budget::UsageModel;
use super::time_of_ms;
use super::wait::WaitModel;

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct TaskModel {
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
    /// What it waits for while nobody works on it; only where one task is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) waits_for: Option<WaitModel>,
    /// What is to be done; only where one task is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) input: Option<Value>,
    /// What came out; only where one task is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) output: Option<Value>,
    /// Files that came out; only where one task is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) artifacts: Option<Value>,
    /// Children by key; only where one task is asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    children: BTreeMap<String, String>,
    /// Questions and answers by key; only where one task is asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    questions: BTreeMap<String, Value>,
    /// Every try; only where one task is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::http) history: Vec<AttemptModel>,
    created: u64,
    created_at: String,
    updated: u64,
    updated_at: String,
}

impl TaskModel {
    pub(in crate::http) fn brief(view: TaskView) -> Self {
        let full = Self::full(view);
        let (children, questions) = (BTreeMap::new(), BTreeMap::new());
        Self { input: None, output: None, artifacts: None, children, questions, ..full }
    }

    pub(in crate::http) fn full(view: TaskView) -> Self {
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
            waits_for: None,
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
pub(in crate::http) struct AttemptModel {
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
pub(in crate::http) struct ApprovalModel {
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
    pub(in crate::http) fn of(view: &TaskView) -> Vec<Self> {
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
