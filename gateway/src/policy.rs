//! Who of a crew may send what to whom: the compiled channels. All else is denied (law CH-1).

use std::fmt;
use std::sync::Arc;

use events::store::Epoch;
use events::{AgentId, Tenant};

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Delegated tasks, and their results back.
    Task,
    /// Messages.
    Message,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task => "task",
            Self::Message => "message",
        })
    }
}

/// An allowed, directed edge between two members.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// The member that sends or delegates.
    pub from: Arc<str>,
    /// The member that receives.
    pub to: Arc<str>,
    /// What the edge carries.
    pub kinds: Vec<Kind>,
    /// How deep a chain of delegations and messages may be when it crosses this edge.
    pub max_depth: u32,
    /// How many children one task may have open over this edge, and how many agents one message may reach.
    pub fan_out: u32,
    /// How much one sending agent may put on this edge in a second.
    pub rate_per_second: f64,
}

/// A member of a crew and its agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Arc<str>,
    /// Its agents with their ordinals.
    pub agents: Vec<(u32, AgentId)>,
}

/// What the gateway must know of a crew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrewPolicy {
    /// Its tenant.
    pub tenant: Tenant,
    /// The lease under which this node appends for the crew; `None` where nothing is fenced.
    pub epoch: Option<Epoch>,
    /// Its members.
    pub members: Vec<Member>,
    /// Its channels.
    pub channels: Vec<Channel>,
    /// How many messages its agents may send in its life; any number where absent.
    pub messages_max: Option<u64>,
    /// What of its budget is used up, for a person: until it gets more, nothing crosses.
    pub exhausted: Option<Arc<str>>,
}

impl CrewPolicy {
    /// The channel from `from` to `to` that carries `kind`, if there is one.
    pub fn channel(&self, from: &str, to: &str, kind: Kind) -> Option<&Channel> {
        self.channels.iter().find(|c| *c.from == *from && *c.to == *to && c.kinds.contains(&kind))
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| *member.name == *name)
    }

    /// The member whose agent this is.
    pub fn member_of(&self, agent: &AgentId) -> Option<&Member> {
        self.members.iter().find(|member| member.agents.iter().any(|(_, id)| id == agent))
    }
}

impl Member {
    /// The agent with this ordinal.
    pub fn replica(&self, ordinal: u32) -> Option<&AgentId> {
        self.agents.iter().find(|(replica, _)| *replica == ordinal).map(|(_, agent)| agent)
    }
}
