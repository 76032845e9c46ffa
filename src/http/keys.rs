//! The keys that sign agents' tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use events::Timestamp;
use events::domain::keys::{self, Stage};
use identity::Jwks;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use crate::api::Refusal;

/// The keys that there are.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Keys {
    /// One entry each, those that are accepted no longer too.
    items: Vec<Key>,
}

/// A key, without its secret half.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Key {
    /// Its thumbprint (RFC 7638), which tokens name as `kid`.
    id: String,
    /// `next`, `active`, `retiring`, `ended` or `revoked`.
    state: &'static str,
    /// Since when it signs, as RFC 3339, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Until when it is accepted, as RFC 3339, if it signs no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Why it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Key {
    fn of(key: &keys::Key, now: Timestamp) -> Self {
        let time = |ms: i64| Some(Timestamp(ms * 1_000).rfc3339());
        let (state, since, until, reason) = match &key.stage {
            Stage::Next => ("next", None, None, None),
            Stage::Active { since_ms } => ("active", time(*since_ms), None, None),
            Stage::Retiring { until_ms } if key.is_accepted(now.millis()) => {
                ("retiring", None, time(*until_ms), None)
            }
            Stage::Retiring { until_ms } => ("ended", None, time(*until_ms), None),
            Stage::Revoked { reason } => ("revoked", None, None, Some(reason.clone())),
        };
        Self { id: key.made.key.clone(), state, since, until, reason }
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Keys>, Refusal> {
    let (state, now) = (api.service.keyring()?.state().await?, Timestamp::now());
    Ok(Json(Keys { items: state.keys.values().map(|key| Key::of(key, now)).collect() }))
}

/// The keys with which others may check agents' tokens; none where none are made.
pub(super) async fn jwks(State(api): State<Arc<Api>>) -> Json<Jwks> {
    let now_s = u64::try_from(Timestamp::now().millis() / 1_000).unwrap_or_default();
    Json(api.service.keyring().map(|keyring| keyring.agent_keys().jwks(now_s)).unwrap_or_default())
}
