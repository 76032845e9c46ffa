//! What commands on tokens and roles take.

use std::collections::BTreeSet;

use events::api::Problem;
use events::{EntityKind, Principal};
use identity::{Role, Scope, UnknownRole, UnknownScope};
use manifest::{Millis, Name};
use schemars::JsonSchema;
use serde::Deserialize;

use super::crews::crew_id;
use super::operation::{Body, Deed};
use super::problem::Refusal;
use super::service::{Admitted, Service};
use crate::access::Change;

/// Longest life of a token, in milliseconds.
const LIFETIME_MS_MAX: u64 = 365 * 24 * 3_600_000;
/// Longest purpose or reason, in bytes.
const TEXT_BYTES_MAX: usize = 400;

/// A token to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MintToken {
    /// Who is to come in by it, such as `user:carol`.
    principal: String,
    /// The roles that it is for, at least one. Its holder gets those that they do not have yet; the token reaches no
    /// further, whatever else its holder has.
    roles: Vec<String>,
    /// What it is for, in words for people.
    #[serde(default)]
    purpose: String,
    /// How far it reaches, whatever its roles: `platform`, `tenant:NAME` or `crew:ID`; by default what the request is about.
    #[serde(default)]
    scope: Option<String>,
    /// How long it lives, such as `30d`; 30 days by default, a year at most.
    #[serde(default = "thirty_days")]
    expires: String,
}

fn thirty_days() -> String {
    "30d".to_owned()
}

impl Body for MintToken {
    async fn deed(self, service: &Service, admitted: &Admitted) -> Result<Deed, Refusal> {
        let roles = self.roles.iter().map(|name| role(name)).collect::<Result<BTreeSet<_>, _>>()?;
        if roles.is_empty() {
            return Err(Refusal::invalid("`roles`: expected at least one role"));
        }
        let lifetime = self.expires.parse::<Millis>().map(|life| life.as_millis());
        let lifetime =
            lifetime.ok().filter(|life| (1..=LIFETIME_MS_MAX).contains(life)).ok_or_else(|| {
                let found = shown(&self.expires);
                Refusal::invalid(format!(
                    "`expires`: found `{found}`, expected a duration such as `30d`, at most `365d`"
                ))
            })?;
        let minted = Change::Mint {
            holder: holder(&self.principal)?,
            purpose: text("purpose", self.purpose)?,
            roles,
            scope: scope(service, admitted, self.scope).await?,
            lifetime_ms: lifetime.cast_signed(),
        };
        Ok(Deed::Change(minted))
    }
}

/// A token to end.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RevokeToken {
    /// Its id.
    token: String,
    /// Why.
    #[serde(default)]
    reason: String,
}

impl Body for RevokeToken {
    async fn deed(self, _: &Service, _: &Admitted) -> Result<Deed, Refusal> {
        let token = text("token", self.token)?;
        Ok(Deed::Change(Change::Revoke { token, reason: text("reason", self.reason)? }))
    }
}

macro_rules! of_a_role {
    ($($(#[$doc:meta])* $name:ident => $change:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            /// Who, such as `user:carol`.
            principal: String,
            /// The role, such as `auditor`.
            role: String,
            /// Where: `platform`, `tenant:NAME` or `crew:ID`; by default what the request is about.
            #[serde(default)]
            scope: Option<String>,
        }

        impl Body for $name {
            async fn deed(self, service: &Service, admitted: &Admitted) -> Result<Deed, Refusal> {
                let (principal, role) = (holder(&self.principal)?, role(&self.role)?);
                let scope = scope(service, admitted, self.scope).await?;
                Ok(Deed::Change(Change::$change { principal, role, scope }))
            }
        }
    )+};
}
of_a_role! {
    /// A role that somebody is to have.
    GrantRole => Grant,
    /// A role that somebody is to lose.
    RevokeRole => Withdraw,
}

fn role(name: &str) -> Result<Role, Refusal> {
    name.parse().map_err(|error: UnknownRole| Refusal::invalid(format!("`role`: {error}")))
}

/// How far something is to reach; a crew may be named without its tenant, which then is the request's.
async fn scope(service: &Service, admitted: &Admitted, text: Option<String>) -> Result<Scope, Refusal> {
    let Some(text) = text else { return Ok(admitted.at.clone()) };
    if let Some(crew) = text.strip_prefix("crew:").filter(|crew| !crew.contains('/')) {
        let tenant = &admitted.caller.tenant;
        let crew = crew_id(service.store(), tenant, &admitted.sight, crew).await?;
        if super::crews::tenant_of(service.store(), &crew).await?.as_ref() != Some(tenant) {
            return Err(Problem::not_found(EntityKind::Crew, crew.as_str()).into());
        }
        return Ok(Scope::Crew(tenant.clone(), crew));
    }
    let scope: Scope =
        text.parse().map_err(|error: UnknownScope| Refusal::invalid(format!("`scope`: {error}")))?;
    // No request names a tenant that is called otherwise.
    match scope.tenant().map(|tenant| tenant.as_str().parse::<Name>()) {
        Some(Err(error)) => Err(Refusal::invalid(format!("`scope`: {error}"))),
        _ => Ok(scope),
    }
}

/// Somebody who can have roles: not an agent and not a part of the platform, whose rights are fixed. The name of the
/// administrator of a data directory is its token's alone.
fn holder(text: &str) -> Result<Principal, Refusal> {
    let name = text.strip_prefix("user:").filter(|name| *name != "admin");
    let principal = name.and_then(|_| text.parse().ok());
    principal.ok_or_else(|| {
        let found = shown(text);
        Refusal::invalid(format!(
            "`principal`: found `{found}`, expected `user:` and a name other than `admin`"
        ))
    })
}

/// A text for people to read.
pub(super) fn text(field: &str, text: String) -> Result<String, Refusal> {
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let expected = format!("expected at most {TEXT_BYTES_MAX} bytes without control characters");
        return Err(Refusal::invalid(format!("`{field}`: {expected}")));
    }
    Ok(text)
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
