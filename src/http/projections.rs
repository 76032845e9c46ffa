//! Where the views stand, and making them again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use events::api::Problem;
use events::domain::platform::ProjectionRebuilt;
use events::projection::{NAMES, Rebuilding, Status, ViewError, Views};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::{Asker, Json as Body};
use super::{Api, Dependency};
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

/// The views as a part of which the platform can do without what has stopped.
pub struct Stopped(pub Views);

impl Dependency for Stopped {
    fn name(&self) -> &'static str {
        "views"
    }

    fn trouble(&self) -> Option<String> {
        let stopped = self.0.stopped();
        let told =
            stopped.iter().map(|status| format!("`{}` after position {}", status.name, status.position));
        let told: Vec<String> = told.collect();
        // What stands in an event is shown to those who may read it.
        (!told.is_empty()).then(|| {
            let told = told.join(", ");
            let why = match stopped.iter().any(Status::is_outdated) {
                true => "a newer version has written events that this one does not know: upgrade this node; ",
                false => "",
            };
            format!(
                "projections have stopped: {told}; {why}`hypercode projection status` says at which event"
            )
        })
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let stopped = self.0.stopped().len() as u64;
        vec![("hypercode_projections_stopped", "Projections that an event has stopped.", stopped)]
    }
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
    /// Events of the log that it has not applied yet.
    lag: u64,
    /// Events that it could not read and has passed over.
    skipped: u64,
    /// Why it stopped before the next event.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The rebuild that was begun last on this node, if it makes this one again or has tried to.
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuild: Option<RebuildModel>,
}

/// How far a rebuild is. Until it is done, the rows that were there before serve queries.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RebuildModel {
    /// `running`, `done` or `failed`.
    status: &'static str,
    /// The last event that was applied to the new rows.
    position: u64,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<&Rebuilding> for RebuildModel {
    fn from(rebuilding: &Rebuilding) -> Self {
        let (status, error) = match &rebuilding.ended {
            None => ("running", None),
            Some(Ok(())) => ("done", None),
            Some(Err(error)) => ("failed", Some(error.to_string())),
        };
        Self { status, position: rebuilding.position.0, error }
    }
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Json<Projections>, Refusal> {
    let head = api.store.head().await?.position;
    let found = api.views.status().await.map_err(Problem::from)?;
    let rebuilding = api.views.rebuilding();
    let item = |projection: Status| Projection {
        status: match &projection.error {
            Some(_) => "stopped",
            None if projection.position < head => "behind",
            None => "ok",
        },
        rebuild: rebuilding
            .as_ref()
            .filter(|rebuilding| rebuilding.names.contains(&&*projection.name))
            .map(RebuildModel::from),
        name: projection.name,
        position: projection.position.0,
        lag: head.0.saturating_sub(projection.position.0),
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
    // An act that is refused anyhow is not written down as one.
    if api.views.rebuilding().is_some_and(|rebuilding| rebuilding.ended.is_none()) {
        return Err(Problem::from(ViewError::Busy).into());
    }
    acts::record(&*api.store, &caller, "views", ProjectionRebuilt { name: name.clone() }).await?;
    api.views.rebuild(name.as_deref()).map_err(Problem::from)?;
    status(State(api)).await
}
