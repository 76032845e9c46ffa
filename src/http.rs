//! The HTTP API: commands and queries under `/v1`, a live feed of events, and what operations need.
//!
//! [`routes`](route::routes) is the one table of what there is: the router, the guard before each handler and the
//! OpenAPI document all follow from it. Commands go through [`crate::api`], queries read from the views;
//! nothing is decided here. Every error is problem details (RFC 9457).

mod access;
mod artifacts;
mod audit;
mod commands;
mod envelope;
mod extract;
mod feed;
mod guard;
mod keys;
mod metrics;
mod model;
mod nodes;
mod openapi;
mod operations;
mod page;
mod plan;
mod pools;
mod problem;
mod projections;
mod queries;
mod registry;
mod route;
mod secrets;
mod serve;
mod tenants;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use events::api::{Problem, ProblemKind};
use events::artifact::ArtifactStore;
use events::lease::Leases;
use events::projection::Views;
use events::{EventStore, SandboxId, TaskId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::api::Service;
use crate::room::Room;

pub(crate) use audit::ProofModel;
pub use audit::{CheckpointModel, CheckpointPage, StandingModel};
pub use envelope::Envelope;
pub use pools::Pools;
pub use projections::Stopped;
pub(crate) use registry::registry;
pub use serve::{Listener, ServeError, bind, serve};

/// The bounds that only HTTP has.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a reader may ask to wait, in milliseconds.
    pub wait_ms_max: u64,
    /// How long the head of a request may take to arrive, in milliseconds.
    pub head_ms: u64,
    /// Most connections at once; further ones wait.
    pub connections_max: usize,
    /// Most feeds at once; further ones are refused.
    pub feeds_max: usize,
    /// Events that a feed reads at once.
    pub feed_batch: usize,
    /// How long a feed may be silent before it shows that it lives, in milliseconds.
    pub keep_alive_ms: u64,
    /// How long a query that names no position waits for the views to come to the log's end, in milliseconds.
    pub catch_up_ms: u64,
    /// How often a feed looks at the log when no hint comes, in milliseconds.
    pub feed_poll_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wait_ms_max: 25_000,
            head_ms: 10_000,
            connections_max: 1_024,
            feeds_max: 256,
            feed_batch: 256,
            keep_alive_ms: 15_000,
            catch_up_ms: 1_000,
            feed_poll_ms: 1_000,
        }
    }
}

impl From<&crate::config::Config> for Limits {
    fn from(config: &crate::config::Config) -> Self {
        Self {
            wait_ms_max: config.request_ms - config.request_ms / 6,
            connections_max: config.connections_max,
            ..Self::default()
        }
    }
}

/// Gives bodies back as they were, whether an event holds them or an artifact.
#[async_trait]
pub trait Bodies: Send + Sync + 'static {
    /// The body that an event keeps as `kept`.
    async fn body(&self, kept: &Value) -> Result<Value, Problem>;
}

/// Shows what handlers write.
#[async_trait]
pub trait Logs: Send + Sync + 'static {
    /// The end of the log of the handler in this sandbox, which is on `node` where that is known; `None` where there is none (any more).
    async fn log(
        &self,
        node: Option<&str>,
        sandbox: &SandboxId,
        bytes_max: u64,
    ) -> Result<Option<String>, Problem>;
    /// What the handler that has the task in hand on this node says of it from now on to live watchers only.
    fn deltas(&self, task: &TaskId) -> broadcast::Receiver<Arc<str>>;
}

/// What kind of sandbox the platform's agents run in, and what that holds them to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxKind {
    /// Its name, such as `process`.
    pub kind: String,
    /// What it isolates, honestly; `none` for a plain process.
    pub isolation: String,
    /// What is enforced, a phrase each.
    pub held: Vec<String>,
    /// What is not enforced although one might think so, a phrase each.
    pub not_held: Vec<String>,
}

impl SandboxKind {
    /// The kind that a provider makes.
    pub fn of(provider: &dyn sandbox::Provider) -> Self {
        Self::new(provider.kind(), &provider.isolation())
    }

    pub(crate) fn new(kind: sandbox::Kind, isolation: &sandbox::Isolation) -> Self {
        let phrases = |phrases: &[&str]| phrases.iter().map(ToString::to_string).collect();
        let sandbox::Isolation { level, held, not_held } = isolation;
        Self {
            kind: kind.to_string(),
            isolation: level.to_string(),
            held: phrases(held),
            not_held: phrases(not_held),
        }
    }
}

/// A part that the platform can do without for a while.
pub trait Dependency: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What is wrong with it, if anything is.
    fn trouble(&self) -> Option<String>;
    /// Figures of it: name, meaning, value.
    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)>;
}

/// What the API stands on.
pub struct Parts {
    /// Takes commands, and knows who may give them.
    pub service: Arc<Service>,
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// Which node runs what.
    pub leases: Arc<dyn Leases>,
    /// What queries read.
    pub views: Views,
    /// Bytes by their SHA-256.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// What proves that the log is what it was.
    pub audit: events::audit::Tailer,
    /// What events keep by reference.
    pub bodies: Arc<dyn Bodies>,
    /// What handlers write.
    pub logs: Arc<dyn Logs>,
    /// The pools of this node.
    pub pools: Arc<dyn Pools>,
    /// What kind of sandbox agents run in.
    pub sandbox: SandboxKind,
    /// The room for what is to be kept, where that is on a disk of this host.
    pub room: Option<Room>,
    /// What it can do without for a while.
    pub dependencies: Vec<Arc<dyn Dependency>>,
    /// The bounds.
    pub limits: Limits,
    /// Cancelled when the platform stops: waits and feeds end.
    pub stop: CancellationToken,
}

/// The API's state, shared by all requests.
pub(crate) struct Api {
    parts: Parts,
    metrics: metrics::Metrics,
    feeds: Arc<tokio::sync::Semaphore>,
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

fn stopping() -> Problem {
    Problem::new(ProblemKind::Unavailable, "the platform is stopping")
}

/// The API as a router over these parts.
pub fn router(parts: Parts) -> Router {
    let feeds = Arc::new(tokio::sync::Semaphore::new(parts.limits.feeds_max));
    route::router(Arc::new(Api { parts, metrics: metrics::Metrics::default(), feeds }))
}

/// The OpenAPI 3.1 document.
pub fn openapi() -> Value {
    openapi::document(&route::routes())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::double;
