//! What operations need: who one is, whether it lives, what it counts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Api;
use super::extract::Asker;
use super::problem::Refusal;

/// Who asks.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    /// The principal.
    principal: String,
    /// The tenant in which it acts.
    tenant: String,
}

pub(super) async fn whoami(Asker(caller): Asker) -> Json<Identity> {
    Json(Identity { principal: caller.principal.to_string(), tenant: caller.tenant.to_string() })
}

/// How it stands.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
    /// The version of the program.
    version: &'static str,
}

const OK: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

pub(super) async fn health() -> Json<Health> {
    Json(OK)
}

pub(super) async fn readiness(State(api): State<Arc<Api>>) -> Result<Json<Health>, Refusal> {
    if api.stop.is_cancelled() {
        return Err(super::stopping().into());
    }
    api.store.head().await?;
    Ok(Json(OK))
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, Refusal> {
    let head = api.store.head().await?;
    let feeds = api.limits.feeds_max - api.feeds.available_permits();
    let text = api.metrics.render(&[
        ("hypercode_log_position", "The position of the log's last event.", head.position.0),
        ("hypercode_views_position", "The position that the views have come to.", api.views.position().0),
        ("hypercode_http_feeds", "Feeds that are open.", feeds as u64),
    ]);
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

pub(super) async fn openapi() -> Json<Value> {
    Json(super::openapi())
}
