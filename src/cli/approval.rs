//! `hypercode approval`: what agents ask of people.

use std::process::ExitCode;

use clap::Subcommand;
use events::api::{Problem, ProblemKind};
use serde_json::{Value, json};

use super::Outcome;
use super::session::{Listing, Session};
use crate::client::escape;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Approval {
    /// List what waits for an answer.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Answer a question with a value.
    Answer {
        /// The task that asks.
        task: String,
        /// The question's key.
        key: String,
        /// The answer: JSON, else taken as text.
        value: String,
    },
    /// Grant what is asked.
    Approve {
        /// The task that asks.
        task: String,
        /// The question's key.
        key: String,
    },
    /// Refuse what is asked.
    Reject {
        /// The task that asks.
        task: String,
        /// The question's key.
        key: String,
        /// Why, for the agent.
        #[arg(long)]
        reason: Option<String>,
    },
}

const COLUMNS: [Column; 8] = [
    Column::new("TASK", "/task"),
    Column::new("KEY", "/key"),
    Column::new("KIND", "/request/kind"),
    Column::new("TITLE", "/request/title"),
    Column::new("DETAIL", "/request/detail"),
    Column::new("CHOICES", "/request/choices"),
    Column::new("SCHEMA", "/request/schema"),
    Column::new("EXPIRES", "/expiresAt"),
];

impl Approval {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::List { listing } => session.list("/v1/approvals", [], &listing, &COLUMNS).await?,
            Self::Answer { task, key, value } => {
                let content = serde_json::from_str(&value).unwrap_or(Value::String(value));
                answer(session, &task, &key, "accept", content).await?;
            }
            Self::Approve { task, key } => answer(session, &task, &key, "accept", Value::Null).await?,
            Self::Reject { task, key, reason } => {
                let content = reason.map_or(Value::Null, |reason| json!({ "reason": reason }));
                answer(session, &task, &key, "decline", content).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn answer(
    session: &Session,
    task: &str,
    key: &str,
    action: &str,
    content: Value,
) -> Result<(), Problem> {
    let path = format!("/v1/tasks/{}/inputs/{}", escape(task), escape(key));
    let done = session.client.post(&path, &json!({"action": action, "content": content}), None).await;
    let done = done.map_err(|problem| match problem.kind {
        ProblemKind::NotFound => Problem {
            detail: format!("{}; `hypercode approval list` shows what is asked", problem.detail),
            ..problem
        },
        _ => problem,
    })?;
    session.output.value(&done, |done| format!("answered (position {})", done["position"]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_may_be_answered() {
        let asked = |request: Value| json!({"task": "tk_1", "key": "k", "request": request});
        let rows = [
            asked(json!({"kind": "choice", "title": "which?", "choices": ["red", "blue"]})),
            asked(json!({"kind": "form", "title": "all of it", "schema": {"type": "object"}})),
        ];
        let table = crate::output::table(&rows, &COLUMNS, false);
        assert!(table.contains("CHOICES") && table.contains("red,blue"), "{table}");
        assert!(table.contains("SCHEMA") && table.contains(r#"{"type":"object"}"#), "{table}");
    }
}
