//! The envelope of an event, before and after it was recorded.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{CommandId, Digest, EventId, InvalidId, Position, StreamId, Tenant, Timestamp, Version};

/// Who acts: `user:…`, `agent:…`, `node:…` or `system:…`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal(Arc<str>);

impl Principal {
    /// A part of the platform itself, such as `system:watchdog`.
    pub fn system(part: &str) -> Self {
        Self(format!("system:{part}").into())
    }
    /// An agent, by its id.
    pub fn agent(id: &crate::id::AgentId) -> Self {
        Self(format!("agent:{id}").into())
    }
    /// A person or a service that came in by a token.
    pub fn user(name: &str) -> Self {
        Self(format!("user:{name}").into())
    }
    /// The principal as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Principal {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId { found: text.chars().take(64).collect() };
        let (kind, name) = text.split_once(':').ok_or_else(invalid)?;
        let legal = matches!(kind, "user" | "agent" | "node" | "system")
            && !name.is_empty()
            && text.len() <= 128
            && !name.chars().any(char::is_control);
        if legal { Ok(Self(text.into())) } else { Err(invalid()) }
    }
}
impl TryFrom<String> for Principal {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.0.as_ref().to_owned()
    }
}
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who did it and why: what every event of one append shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The tenant in which it happened.
    pub tenant: Tenant,
    /// Who acted.
    pub principal: Principal,
    /// What belongs together: usually the id of the first command of a chain.
    pub correlation_id: Option<Arc<str>>,
    /// What caused it: usually `<stream>@<version>` of the event that led here.
    pub causation_id: Option<Arc<str>>,
    /// W3C trace context of the platform's span.
    pub traceparent: Option<Arc<str>>,
}

/// An event that is to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its kind in snake_case, without dots.
    pub kind: Arc<str>,
    /// The version of its payload's schema: 1, 2, …
    pub schema: u16,
    /// Its payload: UTF-8 JSON text, kept exactly so.
    pub payload: Arc<str>,
}

/// An event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the log.
    pub position: Position,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Its kind.
    pub kind: Arc<str>,
    /// The version of its payload's schema.
    pub schema: u16,
    /// Its own id.
    pub event_id: EventId,
    /// The command that made it.
    pub command_id: CommandId,
    /// Which of its command's events it is: 0, 1, …
    pub ordinal: u32,
    /// Who did it and why.
    pub meta: Meta,
    /// When it was decided.
    pub recorded_at: Timestamp,
    /// The epoch of the lease under which it was appended.
    pub epoch: u64,
    /// Its payload as it was written.
    pub payload: Arc<str>,
    /// The hash of the log up to and including this event.
    pub hash: Digest,
}
