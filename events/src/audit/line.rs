//! An event as a line of evidence: every column, and the payload as a JSON string, so that its bytes survive any reader.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Meta, Recorded};
use crate::id::{CommandId, Digest, EventId, Position, Timestamp, Version};

/// An event of the log as JSON: these fields, each once, and no others, since what is not hashed is no evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Line {
    /// Its place in the log.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Its place in the stream.
    pub version: u64,
    /// Its kind.
    pub kind: String,
    /// The version of its payload's schema.
    pub schema: u16,
    /// Its own id.
    pub event_id: Uuid,
    /// The command that made it.
    pub command_id: Uuid,
    /// Which of its command's events it is.
    pub ordinal: u32,
    /// The tenant.
    pub tenant: String,
    /// Who acted.
    pub principal: String,
    /// What belongs together.
    #[serde(deserialize_with = "Option::deserialize")]
    pub correlation_id: Option<String>,
    /// What caused it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub causation_id: Option<String>,
    /// W3C trace context.
    #[serde(deserialize_with = "Option::deserialize")]
    pub traceparent: Option<String>,
    /// When it was decided, in RFC 3339 with microseconds.
    pub recorded_at: String,
    /// The epoch of the lease.
    pub epoch: u64,
    /// The payload's JSON text as it was written.
    pub payload: String,
    /// The hash of the log up to and including the event.
    pub hash: Digest,
}

/// A field of a line does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the event at position {position}: `{field}` is not legal")]
pub struct LineError {
    /// The event's position.
    pub position: u64,
    /// The field.
    pub field: &'static str,
}

impl From<&Recorded> for Line {
    fn from(event: &Recorded) -> Self {
        let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            position: event.position.0,
            stream: event.stream.to_string(),
            version: event.version.0,
            kind: event.kind.as_ref().to_owned(),
            schema: event.schema,
            event_id: event.event_id.0,
            command_id: event.command_id.0,
            ordinal: event.ordinal,
            tenant: event.meta.tenant.to_string(),
            principal: event.meta.principal.to_string(),
            correlation_id: owned(&event.meta.correlation_id),
            causation_id: owned(&event.meta.causation_id),
            traceparent: owned(&event.meta.traceparent),
            recorded_at: event.recorded_at.rfc3339(),
            epoch: event.epoch,
            payload: event.payload.as_ref().to_owned(),
            hash: event.hash,
        }
    }
}

impl TryFrom<&Line> for Recorded {
    type Error = LineError;

    fn try_from(line: &Line) -> Result<Self, LineError> {
        let faulty = |field| LineError { position: line.position, field };
        Ok(Self {
            position: Position(line.position),
            stream: line.stream.parse().map_err(|_| faulty("stream"))?,
            version: Version(line.version),
            kind: line.kind.as_str().into(),
            schema: line.schema,
            event_id: EventId(line.event_id),
            command_id: CommandId(line.command_id),
            ordinal: line.ordinal,
            meta: Meta {
                tenant: line.tenant.parse().map_err(|_| faulty("tenant"))?,
                principal: line.principal.parse().map_err(|_| faulty("principal"))?,
                correlation_id: line.correlation_id.as_deref().map(Into::into),
                causation_id: line.causation_id.as_deref().map(Into::into),
                traceparent: line.traceparent.as_deref().map(Into::into),
            },
            recorded_at: Timestamp::parse_rfc3339(&line.recorded_at).ok_or_else(|| faulty("recordedAt"))?,
            epoch: line.epoch,
            payload: line.payload.as_str().into(),
            hash: line.hash,
        })
    }
}
