//! What happens to a crew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::allowance::{Allowance, BudgetExhausted, BudgetRaised};
use crate::domain::killed::Killed;
use crate::id::{AgentId, CrewId, Digest, Incarnation, Tenant};
use crate::supervision::{ChildKind, Exit, Policy};

crate::domain_events! {
    /// What happens to a crew.
    pub enum Event {
        "crew_assembly_started" v 1 => AssemblyStarted,
        "crew_assembled" v 1 => Assembled,
        "crew_assembly_failed" v 1 => AssemblyFailed,
        "crew_scaled" v 1 => Scaled,
        "crew_paused" v 1 => Paused,
        "crew_resumed" v 1 => Resumed,
        "crew_draining" v 1 => Draining,
        "crew_disbanding" v 1 => Disbanding,
        "crew_disbanded" v 1 => Disbanded,
        "crew_killed" v 1 => Killed,
        "restart_scheduled" v 1 => RestartScheduled,
        "restart_completed" v 1 => RestartCompleted,
        "restarts_exhausted" v 1 => RestartsExhausted,
        "agent_let_go" v 1 => LetGo,
        "agent_condemned" v 1 => Condemned,
        "agent_set_aside" v 1 => SetAside,
        "agent_woke" v 1 => Woke,
        "budget_exhausted" v 1 => BudgetExhausted,
        "budget_raised" v 1 => BudgetRaised,
    }
}

/// One agent that the crew is to have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seat {
    /// The agent.
    pub agent: AgentId,
    /// Its role.
    pub member: String,
    /// Which of the role's replicas, from 0.
    pub replica: u32,
    /// Its profile's name.
    pub profile: String,
    /// The profile's version when the seat was made.
    pub profile_version: u32,
    /// The profile's digest.
    pub profile_digest: Digest,
    /// After which ends it is restarted.
    #[serde(default)]
    pub restart: ChildKind,
}

/// A crew is being brought up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssemblyStarted {
    /// The crew.
    pub crew: CrewId,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its name, unique in the tenant while it lives.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The checked manifest's specification in normal form.
    pub spec: Value,
    /// The member that gets the crew's tasks.
    pub entry: String,
    /// How its agents are supervised.
    pub policy: Policy,
    /// Its agents, in start order.
    pub seats: Vec<Seat>,
    /// All members must be ready by then, in milliseconds since the Unix epoch.
    pub ready_by_ms: i64,
    /// It is disbanded then; never if absent.
    pub expires_at_ms: Option<i64>,
    /// What it may use up.
    #[serde(default, skip_serializing_if = "Allowance::is_unlimited")]
    pub allowance: Allowance,
}

/// Every member is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assembled {
    /// When, in milliseconds since the Unix epoch; absent where that was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
}

/// Not every member came up: all are released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssemblyFailed {
    /// Why.
    pub reason: String,
}

/// A member has another number of replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaled {
    /// The member.
    pub member: String,
    /// Its new agents.
    pub added: Vec<Seat>,
    /// The agents that it gives up.
    pub removed: Vec<AgentId>,
}

/// No tasks are given out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paused {}

/// Tasks are given out again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resumed {}

/// No new tasks are taken; when those in hand are done, it disbands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draining {
    /// What is left in hand then is called off, in milliseconds since the Unix epoch; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

/// Its tasks are cancelled and its agents stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disbanding {
    /// Why.
    pub reason: String,
}

/// Nothing of it is left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disbanded {}

/// Agents are to be restarted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartScheduled {
    /// The agent that failed.
    pub failed: AgentId,
    /// The incarnation that ended.
    pub incarnation: Incarnation,
    /// How it ended.
    pub exit: Exit,
    /// Who is restarted, in start order.
    pub agents: Vec<AgentId>,
    /// When it was scheduled, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// How long the restart waits.
    pub delay_ms: u64,
}

/// A restarted agent is ready again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartCompleted {
    /// The agent.
    pub agent: AgentId,
    /// Its new incarnation.
    pub incarnation: Incarnation,
    /// When it was ready, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// From the failure until ready, in milliseconds.
    pub took_ms: u64,
}

/// The restart budget is spent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartsExhausted {
    /// The agent that failed.
    pub failed: AgentId,
    /// What was done with it: `quarantine` or `disband`.
    pub action: String,
}

/// An agent ended and is not restarted, by its own kind of restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LetGo {
    /// The agent.
    pub agent: AgentId,
    /// How it ended.
    pub exit: Exit,
}

/// An agent was quarantined for what it did: the crew no longer counts on it, until a person has it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetAside {
    /// The agent.
    pub agent: AgentId,
}

/// An agent is to be killed: the crew never counts on it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condemned {
    /// The agent.
    pub agent: AgentId,
    /// By whom, and why.
    pub killed: Killed,
}

/// An agent that hibernated is ready again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Woke {
    /// The agent.
    pub agent: AgentId,
    /// Its new incarnation.
    pub incarnation: Incarnation,
    /// When it was ready, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}
