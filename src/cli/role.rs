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
    },
    /// Take a role from somebody; their tokens reach that much less at once.
    Revoke {
        /// Who.
        principal: String,
        /// The role.
        role: String,
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
            Self::Grant { principal, role } => {
                let done = change(session, "grant", &principal, &role).await?;
                session.output.value(&done, |_| format!("{principal} has the role {role}"))?;
            }
            Self::Revoke { principal, role } => {
                let done = change(session, "revoke", &principal, &role).await?;
                session.output.value(&done, |_| format!("{principal} has the role {role} no longer"))?;
            }
            Self::List => session.output.page(&session.client.get("/v1/roles", &[]).await?, &COLUMNS)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn change(
    session: &Session,
    verb: &str,
    principal: &str,
    role: &str,
) -> Result<Value, events::api::Problem> {
    let body = json!({"principal": principal, "role": role});
    session.client.post(&format!("/v1/roles/{verb}"), &body, None).await
}
