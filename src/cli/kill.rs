//! `hypercode kill`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Outcome;
use super::session::Session;
use crate::client::escape;

#[derive(Debug, Subcommand)]
pub(super) enum Kill {
    /// End an agent at once; it never comes back, and what it has in hand fails.
    Agent(Target),
    /// End all of a crew at once.
    Crew(Target),
    /// End every crew that a tenant has at the moment.
    Tenant(Target),
}

#[derive(Debug, Args)]
pub(super) struct Target {
    /// An agent's id, a crew's name or id, a tenant's name.
    name: String,
    /// Why, for the log.
    #[arg(long)]
    reason: Option<String>,
}

impl Kill {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        let (what, target) = match self {
            Self::Agent(target) => ("agent", target),
            Self::Crew(target) => ("crew", target),
            Self::Tenant(target) => ("tenant", target),
        };
        let path = format!("/v1/{what}s/{}/kill", escape(&target.name));
        // Whoever names a tenant here asks about that one.
        let client = match what {
            "tenant" => session.client.clone().about(target.name.parse().ok()),
            _ => session.client.clone(),
        };
        let done = client.post(&path, &json!({ "reason": target.reason }), None).await?;
        session.output.value(&done, |done| {
            let id = done["id"].as_str().unwrap_or_default();
            format!("{what} {id} is killed (position {})", done["position"])
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
