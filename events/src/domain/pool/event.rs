//! What happens to a pool.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{AgentId, Digest, Incarnation, SandboxId, Tenant};

crate::domain_events! {
    /// What happens to a pool.
    pub enum Event {
        "pool_applied" v 1 => Applied,
        "pool_resized" v 1 => Resized,
        "pool_drained" v 1 => Drained,
        "pool_degraded" v 1 => Degraded,
        "pool_recovered" v 1 => Recovered,
        "standby_requested" v 1 => Requested,
        "standby_ready" v 1 => Ready,
        "standby_claimed" v 1 => Claimed,
        "standby_failed" v 1 => Failed,
        "standby_dirty" v 1 => Dirty,
        "standby_released" v 1 => Released,
        "standby_destroyed" v 1 => Destroyed,
    }
}

/// How many sandboxes stand by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// The fewest.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// How many, whatever happens; as many as claims call for if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u32>,
}

/// A new version of the pool. It is filled from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Its tenant.
    pub tenant: Tenant,
    /// Its name, unique in the tenant.
    pub name: String,
    /// 1, 2, 3 …
    pub version: u32,
    /// The digest of all that a standby sandbox is made by: one of another template is replaced.
    pub template: Digest,
    /// How many stand by.
    pub size: Size,
    /// The profile whose handler is started ahead, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prestart: Option<Prestart>,
    /// The specification as checked, in its normal form.
    pub spec: Value,
    /// What the specification's image stood for when it was applied, by its content: `sha256:…`. Absent where it names
    /// none, or sandboxes are made without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// The version of a profile whose handler is started before it is known for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prestart {
    /// Its name.
    pub profile: String,
    /// Its version.
    pub version: u32,
    /// Its digest: no other may claim from the pool.
    pub digest: Digest,
}

/// Another number stands by from now on, until the next version is applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resized {
    /// How many.
    pub size: Size,
}

/// Nothing stands by any more, until it is applied or resized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// Why.
    pub reason: String,
}

/// Sandboxes do not come up or do not last, one after the other: the pool tries on, ever more slowly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Degraded {
    /// How many in a row.
    pub failures: u32,
    /// What was seen of the last.
    pub detail: String,
}

/// A sandbox came up again, and was claimed or has stood by for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovered {}

/// A sandbox is to stand by. Nothing of it names an agent or holds a secret (SB-2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requested {
    /// The sandbox, never used before.
    pub sandbox: SandboxId,
    /// The digest of what it is made by.
    pub template: Digest,
    /// What kind of sandbox it is, such as `process`.
    pub sandbox_kind: String,
    /// What it isolates, in a word, such as `none`.
    pub isolation: String,
    /// The node on which it is.
    pub node: String,
    /// When it was wanted, in milliseconds since 1970.
    pub at_ms: u64,
}

/// It is linked and waits to be claimed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
}

/// An agent has claimed it, once and for ever: derived from the agent's own event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The agent.
    pub agent: AgentId,
    /// The incarnation that it serves.
    pub incarnation: Incarnation,
}

/// It did not come up, or ended by itself soon after it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// What was seen.
    pub detail: String,
    /// How many in a row did not.
    pub failures: u32,
    /// Until then no other is made, in milliseconds since 1970.
    pub retry_at_ms: u64,
}

/// It may not be claimed any more, for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dirty {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Why.
    pub reason: String,
}

/// The incarnation that it served is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Released {
    /// The sandbox.
    pub sandbox: SandboxId,
}

/// It is gone: its provider was asked, and has no such sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destroyed {
    /// The sandbox.
    pub sandbox: SandboxId,
}
