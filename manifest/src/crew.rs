//! The crew manifest: members, the channels between them, and how they are kept alive.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ApiVersion, Metadata, Millis, Name, Rate};

/// A crew manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Crew {
    /// The version of the manifest's form.
    pub api_version: ApiVersion,
    /// What the crew is called and who owns it.
    pub metadata: Metadata,
    /// What the crew is.
    pub spec: CrewSpec,
}

/// What a crew is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CrewSpec {
    /// The member that receives the crew's tasks.
    pub entry: Name,
    /// The roles, 1 to 64; names are unique.
    #[schemars(length(min = 1, max = 64))]
    pub members: Vec<Member>,
    /// The allowed edges, at most 1024. All other communication is denied.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub channels: Vec<Channel>,
    /// How agents that die are brought back.
    #[serde(default)]
    pub supervision: Supervision,
    /// When an agent is held to be lost or hung.
    #[serde(default)]
    pub liveness: Liveness,
    /// Where the sandboxes come from.
    #[serde(default)]
    pub sandbox: SandboxChoice,
    /// Which certificates the agents must hold. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gym: Option<Gym>,
    /// What the crew may use up in its life.
    #[serde(default)]
    pub budget: Budget,
    /// The crew disbands this long after its assembly. Absent: it lives until it is disbanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Millis>,
}

impl CrewSpec {
    /// The most members.
    pub const MEMBERS_MAX: usize = 64;
    /// The most channels.
    pub const CHANNELS_MAX: usize = 1024;

    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| &member.name == name)
    }

    /// The channel that carries `kind` from one member to another, if the manifest allows it.
    pub fn channel(&self, from: &str, to: &str, kind: ChannelKind) -> Option<&Channel> {
        let carries = |c: &&Channel| &c.from == from && &c.to == to && c.kinds.contains(&kind);
        self.channels.iter().find(carries)
    }
}

/// A role in a crew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    /// The role's name, unique in the crew.
    pub name: Name,
    /// The name of the profile that its agents are made from.
    pub profile: Name,
    /// How many agents play the role, 1 to 100.
    #[serde(default = "Member::default_replicas")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: u32,
    /// Whether an agent that ended is started again.
    #[serde(default)]
    pub restart: Restart,
    /// When its agents are parked without a sandbox. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hibernate: Option<Hibernate>,
    /// Environment variables, over those of the profile.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^(?!HYPERCODE_)[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub env: BTreeMap<String, String>,
}

impl Member {
    /// The most replicas of one member.
    pub const REPLICAS_MAX: u32 = 100;

    /// The number of replicas where none is given: 1.
    pub const fn default_replicas() -> u32 {
        1
    }
}

/// When an agent that has nothing to do is parked without a sandbox. A task or a message for it wakes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hibernate {
    /// After so long without a task or a message.
    pub after: Millis,
    /// It is woken after so long, whether there is something to do or not. Absent: only when there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_every: Option<Millis>,
}

/// Whether an agent that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// Only where it ended abnormally.
    Transient,
    /// Never.
    Temporary,
}

/// An allowed, directed edge between two members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    /// The member that sends or delegates.
    pub from: Name,
    /// The member that receives.
    pub to: Name,
    /// What the edge carries; at least one. No other channel of the same two members may repeat one.
    #[schemars(length(min = 1, max = 2))]
    pub kinds: Vec<ChannelKind>,
    /// How deep a chain of delegations may be when it crosses this edge, 1 to 32.
    #[serde(default = "Channel::default_max_depth")]
    #[schemars(range(min = 1, max = 32))]
    pub max_depth: u32,
    /// How many children one task may have open over this edge at once, and how many agents one
    /// message may reach, 1 to 1000.
    #[serde(default = "Channel::default_max_fan_out")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_fan_out: u32,
    /// How much one sending agent may put on this edge.
    #[serde(default = "Channel::default_rate")]
    pub rate: Rate,
}

impl Channel {
    /// The greatest depth of delegation that may be allowed.
    pub const DEPTH_MAX: u32 = 32;
    /// The greatest fan-out that may be allowed.
    pub const FAN_OUT_MAX: u32 = 1_000;
    /// The greatest rate that may be allowed, per second.
    pub const RATE_MAX: u64 = 100_000;

    /// The depth where none is given: 8.
    pub const fn default_max_depth() -> u32 {
        8
    }

    /// The fan-out where none is given: 100.
    pub const fn default_max_fan_out() -> u32 {
        100
    }

    /// The rate where none is given: 100 per second.
    pub const fn default_rate() -> Rate {
        Rate::per_second(100)
    }
}

/// What a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Delegated tasks, and their results back.
    Task,
    /// Messages.
    Message,
}

impl ChannelKind {
    /// The kind as a manifest writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChannelKind::Task => "task",
            ChannelKind::Message => "message",
        }
    }
}

/// How agents that die are brought back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Supervision {
    /// Who else is restarted with an agent that died.
    pub strategy: Strategy,
    /// How many restarts within `within` are borne, 0 to 1000.
    #[schemars(range(max = 1000))]
    pub max_restarts: u32,
    /// The window in which restarts are counted.
    pub within: Millis,
    /// How long to wait before a restart.
    pub backoff: Backoff,
    /// What happens when the restarts are used up.
    pub on_exhausted: OnExhausted,
}

impl Supervision {
    /// The most restarts that may be allowed within the window.
    pub const RESTARTS_MAX: u32 = 1_000;
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            max_restarts: 5,
            within: Millis::from_secs(60),
            backoff: Backoff::default(),
            on_exhausted: OnExhausted::default(),
        }
    }
}

/// Who else is restarted with an agent that died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody.
    #[default]
    OneForOne,
    /// Every agent of the crew.
    OneForAll,
    /// The agents of the members listed after it.
    RestForOne,
}

/// Exponential backoff: the wait doubles from `initial` to `max`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Backoff {
    /// The first wait.
    pub initial: Millis,
    /// The longest wait.
    pub max: Millis,
    /// The share by which a wait varies at random in either direction, 0 to 1, to three decimals.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Millis::new(100), max: Millis::from_secs(10), jitter: 0.2 }
    }
}

/// What happens when the restarts are used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// The agent is set aside; the crew goes on without it.
    #[default]
    Quarantine,
    /// The crew disbands.
    Disband,
    /// The failure goes up to whoever supervises the crew.
    Escalate,
}

/// When an agent is held to be lost or hung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Liveness {
    /// How often the runner reports.
    pub heartbeat: Millis,
    /// How many heartbeats in a row may be missing before the agent is lost, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub missed: u32,
    /// How long a busy agent may show no progress before it is hung.
    pub progress: Millis,
    /// How long a runner that cannot reach the platform keeps its handler working.
    pub orphan_grace: Millis,
}

impl Liveness {
    /// The most missed heartbeats that may be allowed.
    pub const MISSED_MAX: u32 = 100;
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            heartbeat: Millis::from_secs(1),
            missed: 3,
            progress: Millis::from_secs(15 * 60),
            orphan_grace: Millis::from_secs(10 * 60),
        }
    }
}

/// Where a crew's sandboxes come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SandboxChoice {
    /// The warm pool to claim from; a cold start where it is empty. Absent: always a cold start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
}

/// Which certificates a crew's agents must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gym {
    /// The suites that every profile of the crew must have passed.
    #[schemars(length(min = 1, max = 64))]
    pub require: Vec<Name>,
    /// How old a certificate may be. Absent: any age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Millis>,
}

impl Gym {
    /// The most suites.
    pub const REQUIRE_MAX: usize = 64;
}

/// What a crew may use up in its life. What is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Budget {
    /// Model tokens, in and out together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens: Option<u64>,
    /// Time since the crew was assembled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time: Option<Millis>,
    /// Messages between members.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub messages: Option<u64>,
    /// What happens when any of them is used up.
    pub on_breach: OnBreach,
}

impl Budget {
    /// The greatest number of tokens or messages.
    pub const COUNT_MAX: u64 = 1_000_000_000_000_000;
}

/// What happens when a budget is used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBreach {
    /// The crew pauses until a person decides.
    #[default]
    Suspend,
    /// The crew disbands.
    Disband,
}
