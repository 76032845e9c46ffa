//! `hypercode task`.

mod result;
mod submit;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use events::api::{Problem, ProblemKind};
use serde_json::{Value, json};

use super::session::{Listing, Session};
use super::sse::{self, Query};
use super::{Outcome, audit};
use crate::client::escape;
use crate::output::{self, Column, Format};

#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Give a crew a task.
    Submit(submit::Submit),
    /// List tasks.
    List {
        /// Only those of this crew: its name or id.
        #[arg(long, value_name = "CREW")]
        crew: Option<String>,
        /// Only those in this state, such as `dead_lettered`.
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a task.
    Show {
        /// Its id.
        task: String,
    },
    /// Show what happens to a task until it ends.
    Watch {
        /// Its id.
        task: String,
    },
    /// Print what came out of a task, and fetch its artifacts.
    Result {
        /// Its id.
        task: String,
        /// Write output and artifacts there.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Cancel a task, its children first.
    Cancel {
        /// Its id.
        task: String,
        /// Why, for the log and the handler.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Try a failed or dead-lettered task again.
    Retry {
        /// Its id.
        task: String,
    },
}

const COLUMNS: [Column; 7] = [
    Column::new("ID", "/id"),
    Column::new("CREW", "/crew"),
    Column::new("MEMBER", "/member"),
    Column::new("STATUS", "/status"),
    Column::new("ATTEMPTS", "/attempts"),
    Column::new("CREATED", "/createdAt"),
    Column::new("ERROR", "/error"),
];

impl Task {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Submit(submit) => return submit.run(session).await,
            Self::Watch { task } => return watch(session, &task).await,
            Self::Result { task, out } => {
                let task = get(session, &task, 0).await?;
                return result::result(session, &task, out.as_deref()).await;
            }
            Self::List { crew, status, listing } => {
                session.list("/v1/tasks", [("crew", crew), ("status", status)], &listing, &COLUMNS).await?;
            }
            Self::Show { task } => session.output.details(&get(session, &task, 0).await?)?,
            Self::Cancel { task, reason } => {
                command(session, &task, "cancel", &json!({ "reason": reason }), "is being cancelled").await?;
            }
            Self::Retry { task } => command(session, &task, "retry", &json!({}), "is tried again").await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The task, at once or when it is terminal or `wait_ms` are over.
async fn get(session: &Session, task: &str, wait_ms: u64) -> Result<Value, Problem> {
    let query = [("waitMs", wait_ms.to_string())];
    session.client.get(&format!("/v1/tasks/{}", escape(task)), &query[..usize::from(wait_ms > 0)]).await
}

async fn command(session: &Session, task: &str, verb: &str, body: &Value, did: &str) -> Result<(), Problem> {
    let done = session.client.post(&format!("/v1/tasks/{}/{verb}", escape(task)), body, None).await?;
    session.output.value(&done, |done| {
        format!("task {} {did} (position {})", done["id"].as_str().unwrap_or_default(), done["position"])
    })?;
    Ok(())
}

/// What a terminal event says of a task; `None` for every other event.
fn ending(kind: &str) -> Option<bool> {
    match kind {
        "task_completed" => Some(true),
        "task_failed" | "task_canceled" | "task_rejected" | "task_dead_lettered" => Some(false),
        _ => None,
    }
}

async fn watch(session: &Session, task: &str) -> Outcome {
    let shown = get(session, task, 0).await?;
    let query = Query {
        filter: vec![("task", shown["id"].as_str().unwrap_or(task).to_owned()), ("deltas", true.to_string())],
        ..Query::default()
    };
    // A task that was retried has ended before: only the last ending counts.
    let last = shown["updated"].as_u64().unwrap_or(0);
    let mut ended = None;
    sse::follow_live(&session.client, query, |item| {
        let event = match item {
            sse::Item::Event(event) => *event,
            sse::Item::Delta(text) => {
                session.output.item(&json!({ "delta": text }), |_| output::harmless(&text))?;
                return Ok(ControlFlow::Continue(()));
            }
        };
        session.output.item(&json!(event), |_| audit::line(&event))?;
        ended = ending(&event.kind);
        Ok(match ended.is_some() && event.position >= last {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    })
    .await?;
    Ok(ExitCode::from(u8::from(ended != Some(true))))
}

/// Exit code and last word of a task that ended.
fn verdict(session: &Session, task: &Value) -> Outcome {
    match task["status"].as_str() {
        Some("completed") => Ok(ExitCode::SUCCESS),
        status => {
            let (id, status) = (task["id"].as_str().unwrap_or_default(), status.unwrap_or("unknown"));
            if session.output.format == Format::Table {
                return Err(match task["isTerminal"].as_bool() {
                    Some(false) => {
                        let hint = format!("it has not ended yet; `hypercode task watch {id}` follows it");
                        Problem::new(ProblemKind::Conflict, format!("task {id} is {status}: {hint}"))
                    }
                    _ => {
                        let error = task["error"].as_str().unwrap_or("no reason was given");
                        Problem::new(ProblemKind::Failed, format!("task {id} is {status}: {error}"))
                    }
                });
            }
            Ok(ExitCode::from(1))
        }
    }
}
