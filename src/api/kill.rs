//! What the kill switch takes.

use events::AgentId;
use events::api::Command;
use schemars::JsonSchema;
use serde::Deserialize;

use super::access::text;
use super::bodies::asked_for;
use super::crews::meant;
use super::input::parse;
use super::operation::{Body, Deed};
use super::problem::Refusal;
use super::service::{Admitted, Service};

/// The reason as it goes into the log.
fn why(reason: Option<String>) -> Result<String, Refusal> {
    text("reason", reason.unwrap_or_else(asked_for))
}

/// An agent that is to end at once.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KillAgent {
    /// The agent.
    agent: String,
    /// Why, for the log.
    #[serde(default)]
    reason: Option<String>,
}

impl Body for KillAgent {
    async fn deed(self, _: &Service, _: &Admitted) -> Result<Deed, Refusal> {
        let agent: AgentId = parse("agent", &self.agent)?;
        Ok(Command::AgentKill { agent, reason: why(self.reason)? }.into())
    }
}

/// A crew that is to end at once.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KillCrew {
    /// The crew: its id or its name.
    crew: String,
    /// Why, for the log.
    #[serde(default)]
    reason: Option<String>,
}

impl Body for KillCrew {
    async fn deed(self, service: &Service, admitted: &Admitted) -> Result<Deed, Refusal> {
        let crew = meant(service.store(), admitted, &self.crew).await?;
        Ok(Command::CrewKill { crew, reason: why(self.reason)? }.into())
    }
}

/// A tenant all of whose crews are to end at once.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KillTenant {
    /// The tenant's name.
    tenant: String,
    /// Why, for the log.
    #[serde(default)]
    reason: Option<String>,
}

impl Body for KillTenant {
    async fn deed(self, _: &Service, _: &Admitted) -> Result<Deed, Refusal> {
        let tenant = parse("tenant", &self.tenant)?;
        Ok(Command::TenantKill { tenant, reason: why(self.reason)? }.into())
    }
}
