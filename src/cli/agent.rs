//! `hypercode agent`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::session::Session;
use crate::client::escape;
use crate::output::{Column, harmless};

#[derive(Debug, Subcommand)]
pub(super) enum Agent {
    /// List agents.
    List {
        /// Only those of this crew.
        #[arg(long, value_name = "CREW")]
        crew: Option<String>,
        /// Also those that ended.
        #[arg(long)]
        all: bool,
    },
    /// Show an agent.
    Show {
        /// Its id.
        agent: String,
    },
    /// Show what an agent's handler wrote to its standard error.
    Logs {
        /// Its id.
        agent: String,
        /// The last so many lines.
        #[arg(long, default_value_t = 200)]
        lines: usize,
    },
    /// End the agent's incarnation and start the next.
    Restart {
        /// Its id.
        agent: String,
    },
}

const COLUMNS: [Column; 7] = [
    Column::new("ID", "/id"),
    Column::new("CREW", "/crew"),
    Column::new("MEMBER", "/member"),
    Column::new("REPLICA", "/replica"),
    Column::new("STATUS", "/status"),
    Column::new("INCARNATION", "/incarnation"),
    Column::new("ISOLATION", "/isolation"),
];

impl Agent {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::List { crew, all } => {
                let mut query = vec![("all", all.to_string())];
                query.extend(crew.map(|crew| ("crew", crew)));
                session.output.page(&session.client.get("/v1/agents", &query).await?, &COLUMNS);
            }
            Self::Show { agent } => {
                let agent = session.client.get(&format!("/v1/agents/{}", escape(&agent)), &[]).await?;
                session.output.details(&agent);
            }
            Self::Logs { agent, lines } => {
                let path = format!("/v1/agents/{}/logs", escape(&agent));
                let logs = session.client.get(&path, &[("limit", lines.to_string())]).await?;
                session.output.value(&logs, |logs| {
                    let lines = logs["items"].as_array().into_iter().flatten();
                    lines.map(|line| harmless(line["text"].as_str().unwrap_or_default()) + "\n").collect()
                });
            }
            Self::Restart { agent } => {
                let path = format!("/v1/agents/{}/restart", escape(&agent));
                let done = session.client.post(&path, &json!({}), None).await?;
                session.output.value(&done, |done| {
                    format!(
                        "agent {} restarts (position {})",
                        done["id"].as_str().unwrap_or_default(),
                        done["position"]
                    )
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
