//! Warm pools: what stands by, and how that does.

use std::fmt::Write as _;
use std::sync::Arc;

use actors::PoolFigures;
use axum::Json;
use axum::extract::State;
use events::EntityKind;
use events::api::Problem;
use events::domain::pool::{Phase, Prestart, Size, Standby};
use events::projection::PoolView;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use super::extract::{Asker, Params, Segments};
use super::page::{Items, Listing, Order, listing};
use super::queries::One;
use crate::api::Refusal;

/// The pools of this node.
pub trait Pools: Send + Sync + 'static {
    /// How they do.
    fn figures(&self) -> Vec<PoolFigures>;
}

/// A warm pool.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoolModel {
    id: String,
    name: String,
    version: u32,
    /// `active`, `degraded` (sandboxes do not come up) or `drained`.
    status: &'static str,
    /// Why it is degraded or drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    size: SizeModel,
    /// The profile whose handler is started ahead: only its agents claim from the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    prestart: Option<PrestartModel>,
    /// What its image stood for when it was applied, by its content: all its sandboxes are made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// Sandboxes that can be claimed.
    ready: u32,
    /// Sandboxes that come up.
    warming: u32,
    /// Sandboxes that serve agents.
    claimed: u32,
    /// Sandboxes that are being destroyed.
    spent: u32,
    /// Sandboxes that it ever had.
    created: u64,
    /// Sandboxes that agents have claimed.
    claims: u64,
    /// Sandboxes that did not come up.
    failed: u64,
    /// Sandboxes that are known to be gone.
    destroyed: u64,
    /// How it does; only at the node that keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<LiveModel>,
    /// Its sandboxes; only where one pool is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sandboxes: Vec<StandbyModel>,
    /// Its specification in normal form; only where one pool is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Value>,
    created_at: String,
    updated_at: String,
}

/// How many sandboxes stand by.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SizeModel {
    min: u32,
    max: u32,
    /// How many, whatever happens; as claims call for if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<u32>,
}

impl From<Size> for SizeModel {
    fn from(Size { min, max, target }: Size) -> Self {
        Self { min, max, target }
    }
}

/// A handler that is started before it is known for whom.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PrestartModel {
    profile: String,
    version: u32,
    digest: String,
}

impl From<&Prestart> for PrestartModel {
    fn from(prestart: &Prestart) -> Self {
        let Prestart { profile, version, digest } = prestart;
        Self { profile: profile.clone(), version: *version, digest: digest.to_string() }
    }
}

/// How a pool does.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct LiveModel {
    /// How many should stand by now.
    target: u64,
    /// Claims that wait.
    waiting: u64,
    /// Claims of late, a second.
    claims_per_second: f64,
    /// How long a sandbox takes to come up, in milliseconds.
    refill_ms: f64,
    /// Claims that got a sandbox that stood by.
    warm: u64,
    /// Claims that started cold.
    cold: u64,
    /// Claims that were refused since too many waited.
    refused: u64,
    /// Claims whose turn did not come in time.
    late: u64,
    /// How long claims waited, all together, in milliseconds.
    waited_ms: u64,
}

impl From<&PoolFigures> for LiveModel {
    fn from(figures: &PoolFigures) -> Self {
        let counts = figures.counts;
        Self {
            target: figures.target,
            waiting: figures.waiting,
            claims_per_second: figures.claims_per_second,
            refill_ms: figures.refill_ms,
            warm: counts.warm,
            cold: counts.cold,
            refused: counts.refused,
            late: counts.late,
            waited_ms: counts.waited_ms,
        }
    }
}

/// A sandbox of a pool.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct StandbyModel {
    sandbox: String,
    /// `warming`, `ready`, `claimed` or `spent`.
    phase: &'static str,
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl From<&Standby> for StandbyModel {
    fn from(standby: &Standby) -> Self {
        let claimed = standby.claimed.as_ref();
        Self {
            sandbox: standby.requested.sandbox.to_string(),
            phase: standby.phase.as_str(),
            node: standby.requested.node.clone(),
            agent: claimed.map(|(agent, _)| agent.to_string()),
            incarnation: claimed.map(|(_, incarnation)| incarnation.0),
            reason: standby.reason.clone(),
        }
    }
}

impl PoolModel {
    /// As a list shows it.
    pub(super) fn brief(view: &PoolView, figures: &[PoolFigures]) -> Self {
        let (state, lifespan) = (&view.state, view.lifespan);
        let applied = state.applied.as_ref();
        let name = applied.map(|applied| applied.name.clone()).unwrap_or_default();
        let tenant = applied.map(|applied| applied.tenant.to_string()).unwrap_or_default();
        let own = figures.iter().find(|figures| figures.name == name && figures.tenant == tenant);
        Self {
            id: view.id.to_string(),
            name,
            version: applied.map_or(0, |applied| applied.version),
            status: state.status.as_str(),
            reason: (!state.reason.is_empty()).then(|| state.reason.clone()),
            size: state.size.into(),
            prestart: applied.and_then(|applied| applied.prestart.as_ref()).map(PrestartModel::from),
            image: applied.and_then(|applied| applied.image.clone()),
            ready: state.count(Phase::Ready),
            warming: state.count(Phase::Warming),
            claimed: state.count(Phase::Claimed),
            spent: state.count(Phase::Spent),
            created: state.totals.created,
            claims: state.totals.claimed,
            failed: state.totals.failed,
            destroyed: state.totals.destroyed,
            live: own.map(LiveModel::from),
            sandboxes: Vec::new(),
            spec: None,
            created_at: lifespan.created_at.rfc3339(),
            updated_at: lifespan.updated_at.rfc3339(),
        }
    }

    fn full(view: &PoolView, figures: &[PoolFigures]) -> Self {
        Self {
            sandboxes: view.state.standbys.values().map(StandbyModel::from).collect(),
            spec: view.state.applied.as_ref().map(|applied| applied.spec.clone()),
            ..Self::brief(view, figures)
        }
    }
}

listing! {
    /// Which pools.
    PoolList {}
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Params(query): Params<PoolList>,
) -> Result<Json<Items<PoolModel>>, Refusal> {
    api.settle(query.min_position()).await?;
    let page = api.views.pools(&caller.tenant, query.page()?).await.map_err(Problem::from)?;
    let figures = api.pools.figures();
    Ok(Json(api.items(page, |view| PoolModel::brief(&view, &figures))))
}

pub(super) async fn read(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Segments(name): Segments<String>,
    Params(query): Params<One>,
) -> Result<Json<PoolModel>, Refusal> {
    let settled = api.settle(query.min_position()).await?;
    let shown: String = name.chars().take(80).collect();
    let view = settled.found(api.views.pool(&caller.tenant, &name).await, EntityKind::Pool, &shown)?;
    Ok(Json(PoolModel::full(&view, &api.pools.figures())))
}

type Column = (&'static str, &'static str, &'static str, fn(&PoolFigures) -> f64);

const COLUMNS: [Column; 12] = [
    ("hypercode_pool_ready", "gauge", "Sandboxes that can be claimed.", |pool| pool.ready as f64),
    ("hypercode_pool_warming", "gauge", "Sandboxes that come up.", |pool| pool.warming as f64),
    ("hypercode_pool_claimed", "gauge", "Sandboxes that serve agents.", |pool| pool.claimed as f64),
    ("hypercode_pool_target", "gauge", "Sandboxes that should stand by.", |pool| pool.target as f64),
    ("hypercode_pool_waiting", "gauge", "Claims that wait.", |pool| pool.waiting as f64),
    ("hypercode_pool_claims_per_second", "gauge", "Claims of late.", |pool| pool.claims_per_second),
    ("hypercode_pool_refill_seconds", "gauge", "Time for a sandbox to come up.", |pool| {
        pool.refill_ms / 1_000.0
    }),
    ("hypercode_pool_claims_warm_total", "counter", "Claims of what stood by.", |pool| {
        pool.counts.warm as f64
    }),
    ("hypercode_pool_claims_cold_total", "counter", "Claims that started cold.", |pool| {
        pool.counts.cold as f64
    }),
    ("hypercode_pool_claims_refused_total", "counter", "Claims refused.", |pool| pool.counts.refused as f64),
    ("hypercode_pool_claims_late_total", "counter", "Claims not in time.", |pool| pool.counts.late as f64),
    ("hypercode_pool_wait_seconds_total", "counter", "Time that claims waited.", |pool| {
        pool.counts.waited_ms as f64 / 1_000.0
    }),
];

/// The figures in the text format of Prometheus.
pub(super) fn metrics(pools: &[PoolFigures]) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in COLUMNS.iter().filter(|_| !pools.is_empty()) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for pool in pools {
            let PoolFigures { tenant, name: pool_name, .. } = pool;
            let _ = writeln!(text, "{name}{{tenant=\"{tenant}\",pool=\"{pool_name}\"}} {}", value(pool));
        }
    }
    text
}
