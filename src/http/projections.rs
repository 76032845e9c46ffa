//! Where the views stand, and making them again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use events::api::Problem;
use events::domain::platform::ProjectionRebuilt;
use events::projection::{NAMES, ViewError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::extract::{Asker, Json as Body};
use crate::acts;
use crate::api::Refusal;

/// Where the views stand.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Projections {
    /// One entry each.
    items: Vec<Projection>,
    /// Where the log ends.
    head: u64,
}

/// Where a projection stands.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Projection {
    name: String,
    /// `ok`, `behind` or `stopped`.
    status: &'static str,
    /// The last event that it has applied.
    position: u64,
    /// Events of kinds that were unknown to it.
    skipped: u64,
    /// Why it stopped before the next event.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Json<Projections>, Refusal> {
    let head = api.store.head().await?.position;
    let found = api.views.status().await.map_err(Problem::from)?;
    let item = |projection: events::projection::Status| Projection {
        status: match &projection.error {
            Some(_) => "stopped",
            None if projection.position < head => "behind",
            None => "ok",
        },
        name: projection.name,
        position: projection.position.0,
        skipped: projection.skipped,
        error: projection.error,
    };
    Ok(Json(Projections { items: found.into_iter().map(item).collect(), head: head.0 }))
}

/// What is to be made again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rebuild {
    /// The projection; all of them when absent.
    #[serde(default)]
    name: Option<String>,
}

pub(super) async fn rebuild(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Body(Rebuild { name }): Body<Rebuild>,
) -> Result<Json<Projections>, Refusal> {
    if let Some(unknown) = name.as_deref().filter(|name| !NAMES.contains(name)) {
        return Err(Problem::from(ViewError::UnknownProjection { name: unknown.to_owned() }).into());
    }
    acts::record(&*api.store, &caller, "views", ProjectionRebuilt { name: name.clone() }).await?;
    api.views.rebuild(name.as_deref()).await.map_err(Problem::from)?;
    status(State(api)).await
}
