//! What assembling a crew would do.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use events::Tenant;
use events::api::{Problem, ProblemKind};
use events::projection::PageRequest;
use manifest::{Fault, Name, ProfileSpec, ProfileSummary};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::extract::{Asker, ManifestBody};
use crate::api::Refusal;
use crate::api::{Source, crew_and_profiles, read};

/// A crew to plan.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PlanCrew {
    /// The manifest, of kind `Crew`.
    manifest: Value,
    /// Manifests of profiles that are planned with as if they were applied.
    #[serde(default)]
    profiles: Vec<Value>,
}

pub(super) async fn plan(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    body: ManifestBody<PlanCrew>,
) -> Result<Json<Value>, Refusal> {
    let mut manifests = Vec::new();
    match body {
        ManifestBody::Text(text) => manifests = read(Source::Text(&text), &caller.tenant)?,
        ManifestBody::Json(body) => {
            for value in std::iter::once(&body.manifest).chain(&body.profiles) {
                manifests.extend(read(Source::Field(value), &caller.tenant)?);
            }
        }
    }
    let (crew, own) = crew_and_profiles(manifests)?;
    let mut profiles = applied(&api, &caller.tenant).await?;
    for profile in own {
        profiles.insert(profile.metadata.name.clone(), ProfileSummary::of(&profile));
    }
    let plan = manifest::plan(&crew, &profiles);
    let mut value = json!(plan);
    value["faults"] = plan.faults.iter().map(Fault::to_json).collect();
    Ok(Json(value))
}

/// The newest versions of all profiles.
async fn applied(api: &Api, tenant: &Tenant) -> Result<BTreeMap<Name, ProfileSummary>, Refusal> {
    // A profile that was applied a moment ago is there to be planned with.
    api.settle(None).await?;
    let mut profiles = BTreeMap::new();
    let mut page = PageRequest { items_max: 1_000, ..PageRequest::default() };
    loop {
        let found = api.views.profiles(tenant, page).await.map_err(Problem::from)?;
        for view in found.items {
            let applied = view.applied;
            let damaged = |reason: String| {
                Problem::new(ProblemKind::Internal, format!("read profile `{}`: {reason}", applied.name))
            };
            let spec: ProfileSpec =
                serde_json::from_value(applied.spec.clone()).map_err(|error| damaged(error.to_string()))?;
            let name: Name =
                applied.name.parse().map_err(|error: manifest::NameError| damaged(error.to_string()))?;
            let summary = ProfileSummary {
                version: u64::from(applied.version),
                digest: applied.bundle.map(|digest| digest.to_string()),
                protocol: spec.handler.protocol,
                concurrency: spec.handler.concurrency,
                resources: spec.resources,
                runtime_class: spec.runtime_class,
            };
            profiles.insert(name, summary);
        }
        match found.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(profiles),
        }
    }
}
