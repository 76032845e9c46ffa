//! `hypercode agent`.

mod logs;

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::session::{Listing, Session};
use crate::client::escape;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Agent {
    /// List agents.
    List {
        /// Only those of this crew.
        #[arg(long, value_name = "CREW")]
        crew: Option<String>,
        /// Only those in this state, such as `quarantined`.
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show an agent.
    Show {
        /// Its id.
        agent: String,
    },
    /// Show the end of what the agent's handler has written: its stderr, and what is no protocol on its stdout.
    Logs(logs::Logs),
    /// End the agent's incarnation and start the next.
    Restart {
        /// Its id.
        agent: String,
    },
}

const COLUMNS: [Column; 8] = [
    Column::new("ID", "/id"),
    Column::new("CREW", "/crew"),
    Column::new("MEMBER", "/member"),
    Column::new("REPLICA", "/replica"),
    Column::new("STATUS", "/status"),
    Column::new("INCARNATION", "/incarnation"),
    Column::new("TASKS", "/tasks"),
    Column::new("ISOLATION", "/isolation"),
];

impl Agent {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::List { crew, status, listing } => {
                session.list("/v1/agents", [("crew", crew), ("status", status)], &listing, &COLUMNS).await?
            }
            Self::Show { agent } => {
                let agent = session.client.get(&format!("/v1/agents/{}", escape(&agent)), &[]).await?;
                session.output.details(&agent)?;
            }
            Self::Logs(logs) => logs.run(session).await?,
            Self::Restart { agent } => {
                let path = format!("/v1/agents/{}/restart", escape(&agent));
                let done = session.client.post(&path, &json!({}), None).await?;
                session.output.value(&done, |done| {
                    format!(
                        "agent {} restarts (position {})",
                        done["id"].as_str().unwrap_or_default(),
                        done["position"]
                    )
                })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
