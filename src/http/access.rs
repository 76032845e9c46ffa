//! The tokens that there are, and who has which role.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use events::domain::access::{self, Held, Scope, Token as Kept};
use events::{Principal, Timestamp};
use identity::is_permitted;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::extract::{Known, Params};
use crate::api::{Admitted, Refusal};

/// The tokens that were made.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Tokens {
    /// One entry each, those that were revoked or have ended too.
    items: Vec<Token>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Token {
    /// Its id.
    id: String,
    /// Who comes in by it.
    principal: String,
    /// What it is for.
    purpose: String,
    /// The roles beyond which it does not reach.
    roles: Vec<String>,
    /// How far it reaches at most: `platform`, `tenant:NAME` or `crew:TENANT/ID`.
    scope: String,
    /// `live`, `ended` or `revoked`.
    state: &'static str,
    /// When it ends, as RFC 3339.
    expires_at: String,
}

impl Token {
    fn of(kept: &Kept, now: Timestamp) -> Self {
        let minted = &kept.minted;
        let state = match &kept.revoked {
            Some(_) => "revoked",
            None if kept.is_live(now.millis()) => "live",
            None => "ended",
        };
        Self {
            id: minted.token.clone(),
            principal: minted.holder.to_string(),
            purpose: minted.purpose.clone(),
            roles: minted.roles.iter().cloned().collect(),
            scope: minted.scope.to_string(),
            state,
            expires_at: Timestamp(minted.expires_at_ms * 1_000).rfc3339(),
        }
    }
}

/// Whether whoever asks is told of what is in this scope.
fn is_told(admitted: &Admitted, permission: &str, scope: &Scope) -> bool {
    admitted.at.covers(scope) && is_permitted(&admitted.identity.grants, permission, scope)
}

pub(super) async fn tokens(
    State(api): State<Arc<Api>>,
    Known(admitted): Known,
) -> Result<Json<Tokens>, Refusal> {
    let (state, now) = (api.service.access().state().await?, Timestamp::now());
    let told = state.tokens.values().filter(|kept| is_told(&admitted, "token:read", &kept.minted.scope));
    Ok(Json(Tokens { items: told.map(|kept| Token::of(kept, now)).collect() }))
}

/// Which roles.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RolesQuery {
    /// Those of this moment, as RFC 3339; those of now if absent.
    at: Option<String>,
}

/// Who has which role.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Roles {
    /// One entry for each principal that has any.
    items: Vec<Holder>,
}

/// Somebody who has roles.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Holder {
    /// Who.
    principal: String,
    /// Their roles; where not in all of the platform, behind an `@`, such as `operator@tenant:acme`.
    roles: Vec<String>,
    /// Their tokens that opened something at that time.
    tokens: Vec<String>,
}

pub(super) async fn roles(
    State(api): State<Arc<Api>>,
    Known(admitted): Known,
    Params(query): Params<RolesQuery>,
) -> Result<Json<Roles>, Refusal> {
    let access = api.service.access();
    let Some(at) = query.at else {
        return Ok(Json(holders(&*access.state().await?, &admitted, Timestamp::now())));
    };
    let expected = || Refusal::invalid("`at`: expected a time such as `2026-11-23T04:00:00Z`");
    let at = Timestamp::parse_rfc3339(&at).ok_or_else(expected)?;
    Ok(Json(holders(&access.state_at(at).await?, &admitted, at)))
}

fn holders(state: &access::State, admitted: &Admitted, at: Timestamp) -> Roles {
    let is_told = |scope: &Scope| is_told(admitted, "role:read", scope);
    let tokens = |holder: &Principal| {
        let live = |token: &&Kept| {
            token.minted.holder == *holder && token.is_live(at.millis()) && is_told(&token.minted.scope)
        };
        state.tokens.values().filter(live).map(|token| token.minted.token.clone()).collect()
    };
    let shown = |Held { role, scope }: &Held| match scope {
        Scope::Platform => role.clone(),
        scope => format!("{role}@{scope}"),
    };
    let items = state.roles.iter().filter_map(|(principal, roles)| {
        let roles: Vec<String> = roles.iter().filter(|held| is_told(&held.scope)).map(shown).collect();
        let is_told_of = !roles.is_empty();
        is_told_of.then(|| Holder { principal: principal.to_string(), roles, tokens: tokens(principal) })
    });
    Roles { items: items.collect() }
}
