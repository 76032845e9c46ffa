//! The tenants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use events::Tenant;
use events::api::Problem;
use events::projection::Within;
use identity::{Sight, sight};
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::extract::Known;
use crate::api::Refusal;

/// What somebody must be allowed to do with crews to be told how many there are.
const SEES: &str = "crew:read";

/// The tenants of which whoever asks sees crews.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Tenants {
    /// One entry each, by name.
    items: Vec<Item>,
}

/// A tenant.
#[derive(Debug, Serialize, JsonSchema)]
struct Item {
    /// Its name.
    name: String,
    /// Crews that it ever had.
    crews: u64,
    /// Crews that are not disbanded.
    living: u64,
}

/// A tenant is there as soon as it has crews or somebody has a role in it.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Known(admitted): Known,
) -> Result<Json<Tenants>, Refusal> {
    api.settle(None).await?;
    let grants = &admitted.identity.grants;
    let named = grants.iter().filter_map(|grant| grant.scope.tenant().cloned());
    let mut tenants: BTreeSet<Tenant> = named.collect();
    let counts: BTreeMap<Tenant, _> = api.views.tenants().await.map_err(Problem::from)?;
    tenants.extend(counts.keys().cloned());
    let mut items = Vec::new();
    for tenant in tenants {
        let (crews, living) = match sight(grants, SEES, &tenant) {
            Sight::Nothing => continue,
            Sight::All => counts.get(&tenant).copied().unwrap_or_default(),
            Sight::Crews(crews) => {
                let within = Within { tenant: &tenant, crews: Some(&crews) };
                api.views.crew_counts(within).await.map_err(Problem::from)?
            }
        };
        items.push(Item { name: tenant.to_string(), crews, living });
    }
    Ok(Json(Tenants { items }))
}
