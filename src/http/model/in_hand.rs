//! What an agent has in hand, as the API shows it.

use events::projection::TaskView;
use schemars::JsonSchema;
use serde::Serialize;

/// A task that an agent has in hand.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InHandModel {
    task: String,
    attempt: u32,
    /// `working`, or `input_required` while it waits.
    status: &'static str,
    /// The questions whose answers it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<WaitModel>,
}

/// An open question.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WaitModel {
    /// Its key, by which it is answered.
    key: String,
    /// What is asked, in a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
}

impl InHandModel {
    pub(super) fn of(view: &TaskView) -> Self {
        let state = &view.state;
        let wait = |(key, question): (&String, &events::domain::task::Question)| WaitModel {
            key: key.clone(),
            title: question.request.get("title").and_then(|title| title.as_str()).map(str::to_owned),
        };
        Self {
            task: view.id.to_string(),
            attempt: state.attempts,
            status: state.status.as_str(),
            waits_for: state.open_questions().map(wait).collect(),
        }
    }
}
