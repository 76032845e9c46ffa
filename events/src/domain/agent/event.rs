//! What happens to an agent.

use serde::{Deserialize, Serialize};

use crate::domain::killed::Killed;
use crate::id::{AgentId, CrewId, Digest, Incarnation, PoolId, SandboxId, Tenant};
use crate::supervision::Exit;

crate::domain_events! {
    /// What happens to an agent.
    pub enum Event {
        "agent_requested" v 1 => Requested,
        "sandbox_claimed" v 1 => SandboxClaimed,
        "agent_warming" v 1 => Warming,
        "agent_ready" v 1 => Ready,
        "agent_hibernating" v 1 => Hibernating,
        "agent_unhealthy" v 1 => Unhealthy,
        "agent_recovering" v 1 => Recovering,
        "agent_draining" v 1 => Draining,
        "agent_quarantined" v 1 => Quarantined,
        "agent_failed" v 1 => Failed,
        "agent_terminated" v 1 => Terminated,
        "agent_killed" v 1 => Killed,
        "secret_resolved" v 1 => SecretResolved,
        "agent_log_kept" v 1 => LogKept,
        "agent_logs_erased" v 1 => LogsErased,
    }
}

/// An agent is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requested {
    /// The agent.
    pub agent: AgentId,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its crew.
    pub crew: CrewId,
    /// Its role in the crew.
    pub member: String,
    /// Which of the member's replicas it is, from 0.
    pub replica: u32,
    /// Its profile's name.
    pub profile: String,
    /// The profile's version.
    pub profile_version: u32,
    /// The profile's digest.
    pub profile_digest: Digest,
}

/// A sandbox was bound to the agent's next incarnation, once and for ever (SB-1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxClaimed {
    /// The incarnation that it serves.
    pub incarnation: Incarnation,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// What kind of sandbox it is, such as `process`.
    pub sandbox_kind: String,
    /// What it isolates, in a word, such as `none`.
    pub isolation: String,
    /// The node on which it is; absent where that was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pool that it comes from; absent where it was made for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
}

/// The runner is linked and was given its agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warming {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// The container that its sandbox is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// A container that is a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The id that its daemon gave it.
    pub id: String,
    /// The image that it was made of, by its content: `sha256:…`.
    pub image: String,
}

/// The handler is up and takes work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Tasks that it takes at the same time.
    pub concurrency: u32,
}

/// It has nothing to do: its incarnation ends, and the next one begins when there is something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hibernating {
    /// The incarnation that ends.
    pub incarnation: Incarnation,
    /// It is woken then, whether there is something to do or not; in milliseconds since the Unix epoch.
    pub wake_at_ms: Option<i64>,
}

/// A secret was read, to be given to an incarnation and to nobody else. Its value is nowhere in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretResolved {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// What the agent knows it as.
    pub name: String,
    /// Where it was read: `env`, `file`, `vault_command` or `stored`.
    pub source: String,
    /// As what it is known there.
    pub reference: String,
    /// Which of its values it was, where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// The end of what an incarnation wrote is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogKept {
    /// The incarnation, which has ended.
    pub incarnation: Incarnation,
    /// The artifact that holds it.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// Nothing is kept of what its incarnations wrote up to this one, since it may have been about a data subject that was
/// erased.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogsErased {
    /// The newest incarnation, which may still write.
    pub to: Incarnation,
}

/// The incarnation cannot be counted on any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unhealthy {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// How it ended.
    pub exit: Exit,
    /// What was seen, for a person.
    pub detail: String,
}

/// The supervisor has it recovered: the next incarnation follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovering {
    /// The incarnation that comes.
    pub incarnation: Incarnation,
}

/// It takes no more work and ends when its work in hand is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draining {
    /// Why.
    pub reason: String,
}

/// It was set aside for a person to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Why.
    pub reason: String,
}

/// It was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// Why.
    pub reason: String,
}

/// It ended as it was told to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terminated {
    /// Why.
    pub reason: String,
}
