//! `hypercode role`: who may do what.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Outcome;
use super::session::Session;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// Give somebody a role: platform_admin, tenant_admin, operator, developer, approver, auditor or viewer.
    Grant {
        /// Who, such as `user:carol`.
        principal: String,
        /// The role.
        role: String,
        /// Where: `platform`, `tenant:NAME` or `crew:ID` [default: the tenant if one is named or one's own roles name
        /// one, else the platform].
        #[arg(long)]
        scope: Option<String>,
    },
    /// Take a role from somebody; their tokens reach that much less at once.
    Revoke {
        /// Who.
        principal: String,
        /// The role.
        role: String,
        /// Where they have it; as for `grant`.
        #[arg(long)]
        scope: Option<String>,
    },
    /// List who has which roles.
    List,
}

pub(super) const COLUMNS: [Column; 3] = [
    Column::new("PRINCIPAL", "/principal"),
    Column::new("ROLES", "/roles"),
    Column::new("TOKENS", "/tokens"),
];

impl Role {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Grant { principal, role, scope } => {
                let done = change(session, "grant", &principal, &role, scope.as_deref()).await?;
                session
                    .output
                    .value(&done, |done| format!("{principal} has the role {role}{}", place(done)))?;
            }
            Self::Revoke { principal, role, scope } => {
                let done = change(session, "revoke", &principal, &role, scope.as_deref()).await?;
                let said = |done: &Value| format!("{principal} has the role {role} no longer{}", place(done));
                session.output.value(&done, said)?;
            }
            Self::List => session.output.page(&session.client.get("/v1/roles", &[]).await?, &COLUMNS)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where it was done, unless that is everywhere.
pub(super) fn place(done: &Value) -> String {
    match done["body"]["scope"].as_str() {
        None | Some("platform") => String::new(),
        Some(scope) => format!(" in {scope}"),
    }
}

async fn change(
    session: &Session,
    verb: &str,
    principal: &str,
    role: &str,
    scope: Option<&str>,
) -> Result<Value, events::api::Problem> {
    let body = json!({"principal": principal, "role": role, "scope": scope});
    session.client.post(&format!("/v1/roles/{verb}"), &body, None).await
}
