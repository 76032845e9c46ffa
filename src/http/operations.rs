//! What operations need: who one is, whether it lives, what it counts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use events::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::extract::Known;
use super::{Api, SandboxKind};
use crate::api::{Admitted, Refusal};

/// Who asks.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    /// The principal.
    principal: String,
    /// The tenant in which it acts.
    tenant: String,
    /// What it is to the platform, by this token; where not in all of it, behind an `@`, such as `operator@tenant:acme`.
    roles: Vec<String>,
    /// The token's id; absent for the administrator's of the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// When the token ends, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

pub(super) async fn whoami(Known(admitted): Known) -> Json<Identity> {
    let Admitted { caller, identity, .. } = admitted;
    Json(Identity {
        principal: caller.principal.to_string(),
        tenant: caller.tenant.to_string(),
        roles: identity.grants.iter().map(ToString::to_string).collect(),
        token: identity.token.map(|token| token.to_string()),
        expires_at: identity.expires_at.map(Timestamp::rfc3339),
    })
}

/// How it stands.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    /// `ok`, or `degraded`: it serves, but something that it can do without for a while is not there.
    status: &'static str,
    /// The version of the program.
    version: &'static str,
    /// What is not there, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    troubles: Vec<Trouble>,
}

/// A part that is not there.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Trouble {
    /// The part, such as `nats`.
    part: &'static str,
    /// What is wrong with it.
    reason: String,
}

impl Health {
    fn with(troubles: Vec<Trouble>) -> Json<Self> {
        let status = if troubles.is_empty() { "ok" } else { "degraded" };
        Json(Self { status, version: env!("CARGO_PKG_VERSION"), troubles })
    }
}

pub(super) async fn health() -> Json<Health> {
    Health::with(Vec::new())
}

pub(super) async fn readiness(State(api): State<Arc<Api>>) -> Result<Json<Health>, Refusal> {
    if api.stop.is_cancelled() {
        return Err(super::stopping().into());
    }
    api.store.head().await?;
    if let Some(room) = &api.room {
        room.check().await?;
    }
    let trouble =
        |part: &Arc<dyn super::Dependency>| Some(Trouble { part: part.name(), reason: part.trouble()? });
    Ok(Health::with(api.dependencies.iter().filter_map(trouble).collect()))
}

pub(super) async fn isolation(State(api): State<Arc<Api>>) -> Json<SandboxKind> {
    Json(api.sandbox.clone())
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, Refusal> {
    let head = api.store.head().await?;
    let feeds = api.limits.feeds_max - api.feeds.available_permits();
    let mut gauges = vec![
        ("hypercode_log_position", "The position of the log's last event.", head.position.0),
        ("hypercode_views_position", "The position that the views have come to.", api.views.position().0),
        ("hypercode_http_feeds", "Feeds that are open.", feeds as u64),
    ];
    gauges.extend(api.dependencies.iter().flat_map(|part| part.gauges()));
    let text =
        api.metrics.render(&gauges, api.service.limited()) + &super::pools::metrics(&api.pools.figures());
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

pub(super) async fn openapi() -> Json<Value> {
    Json(super::openapi())
}
