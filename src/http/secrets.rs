//! The secrets that a tenant has stored.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use events::Timestamp;
use events::domain::secrets::Sealed;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::extract::Known;
use crate::api::Refusal;

/// The secrets that are stored.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Secrets {
    /// One entry each, by name.
    items: Vec<Secret>,
}

/// A secret, without its value, which nobody is shown.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Secret {
    /// Its name.
    name: String,
    /// How often it was given a value.
    version: u32,
    /// Since when it has this one, as RFC 3339.
    set_at: String,
}

impl Secret {
    fn of((name, version, value): (&str, u32, &Sealed)) -> Self {
        Self { name: name.to_owned(), version, set_at: Timestamp(value.at_ms * 1_000).rfc3339() }
    }
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Known(admitted): Known,
) -> Result<Json<Secrets>, Refusal> {
    let state = api.service.secrets()?.state(&admitted.caller.tenant).await?;
    Ok(Json(Secrets { items: state.kept().map(Secret::of).collect() }))
}
