//! The pool: standby sandboxes, ready to be claimed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ApiVersion, Metadata, Millis, Name, Resources};

/// A warm pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// The version of the manifest's form.
    pub api_version: ApiVersion,
    /// What the pool is called and who owns it.
    pub metadata: Metadata,
    /// What stands by in it, and how many.
    #[serde(default)]
    pub spec: PoolSpec,
}

/// What stands by in a pool, and how many.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PoolSpec {
    /// The image of container and native sandboxes. Absent: the platform's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The runtime that runs its container, by the name that the Docker daemon lists, such as `runsc`. Absent: the
    /// platform's default. Other kinds of sandboxes have none to choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    pub runtime_class: Option<String>,
    /// What a standby sandbox may use. Where sandboxes can be changed as they run, a claim gives it what the agent's
    /// profile says.
    pub resources: Resources,
    /// How many stand by.
    pub size: PoolSize,
    /// Whether what stands by runs or is stopped until it is claimed.
    pub standby: Standby,
    /// The profile whose handler's process is started ahead, of its newest version when the pool is applied; only agents
    /// of this version claim from the pool then. Its handler speaks `stdio` or `pull`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prestart: Option<Name>,
    /// How the pool is filled again.
    pub refill: Refill,
    /// Who waits, and for how long, while nothing stands by.
    pub queue: Queue,
    /// A sandbox that has stood by for so long is replaced. Absent: never for its age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Millis>,
}

/// How many sandboxes stand by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PoolSize {
    /// The fewest, however quiet it is.
    #[schemars(range(max = 1000))]
    pub min: u32,
    /// The most, however busy it is, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
    /// How many, whatever happens. Absent: as many as the claims of late call for, within `min` and `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub target: Option<u32>,
}

impl PoolSize {
    /// The most sandboxes that one pool may keep.
    pub const MAX: u32 = 1_000;
}

impl Default for PoolSize {
    fn default() -> Self {
        Self { min: 1, max: 10, target: None }
    }
}

/// Whether what stands by runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standby {
    /// It runs and waits: the fastest claim.
    #[default]
    Running,
    /// Its processes are stopped, so that it uses no processor time, and go on at the claim.
    Paused,
}

/// How a pool is filled again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Refill {
    /// How many sandboxes are made at once, 1 to 64.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u32,
    /// The chance that a claim that comes while the pool is filled again finds a sandbox, 0.5 to 0.9999.
    #[schemars(range(min = 0.5, max = 0.9999))]
    pub coverage: f64,
    /// How long the pool remembers claims: after so long without one it has shrunk to its fewest.
    pub idle: Millis,
}

impl Refill {
    /// The most sandboxes that may be made at once.
    pub const CONCURRENCY_MAX: u32 = 64;
    /// The least coverage.
    pub const COVERAGE_MIN: f64 = 0.5;
    /// The greatest coverage.
    pub const COVERAGE_MAX: f64 = 0.9999;
    /// The shortest memory of claims.
    pub const IDLE_MIN: Millis = Millis::from_secs(1);
    /// The longest memory of claims.
    pub const IDLE_MAX: Millis = Millis::from_secs(24 * 3_600);
}

impl Default for Refill {
    fn default() -> Self {
        Self { concurrency: 2, coverage: 0.99, idle: Millis::from_secs(300) }
    }
}

/// Who waits while nothing stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Queue {
    /// What becomes of a claim that finds nothing.
    pub when_empty: WhenEmpty,
    /// The most claims that wait; a further one is refused, 0 to 10000.
    #[schemars(range(max = 10_000))]
    pub length: u32,
    /// How long a claim waits before it is refused.
    pub deadline: Millis,
}

impl Queue {
    /// The most claims that may be let wait.
    pub const LENGTH_MAX: u32 = 10_000;
    /// The longest wait.
    pub const DEADLINE_MAX: Millis = Millis::from_secs(600);
}

impl Default for Queue {
    fn default() -> Self {
        Self { when_empty: WhenEmpty::Cold, length: 100, deadline: Millis::from_secs(10) }
    }
}

/// What becomes of a claim that finds nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenEmpty {
    /// Its sandbox is made at once, as many at a time as the pool makes; those beyond wait.
    #[default]
    Cold,
    /// It waits for the next that stands by.
    Wait,
}
