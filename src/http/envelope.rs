//! An event as it goes over the wire: whole, so that whoever receives it can verify the chain.

use events::{CommandId, EventId, Meta, Position, Recorded, Timestamp, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// An event of the log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Its place in the log.
    pub position: u64,
    /// Its stream, `<entity kind>/<id>`.
    pub stream: String,
    /// Its place in the stream.
    pub version: u64,
    /// Its kind.
    pub kind: String,
    /// The version of its payload's schema.
    pub schema: u16,
    /// Its own id.
    #[schemars(with = "String")]
    pub event_id: Uuid,
    /// The command that made it.
    #[schemars(with = "String")]
    pub command_id: Uuid,
    /// Which of its command's events it is: 0, 1, …
    pub ordinal: u32,
    /// The tenant in which it happened.
    pub tenant: String,
    /// Who acted.
    pub principal: String,
    /// What belongs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// What caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// When it was decided, RFC 3339 in UTC with microseconds.
    pub recorded_at: String,
    /// The epoch of the lease under which it was appended.
    pub epoch: u64,
    /// Its payload as it was written, byte for byte.
    #[schemars(with = "serde_json::Value")]
    pub payload: Box<RawValue>,
    /// The hash of the log up to and including this event.
    pub hash: String,
}

/// A field of an envelope does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the event at position {position}: `{field}` is not legal")]
pub struct EnvelopeError {
    /// The event's position.
    pub position: u64,
    /// The field.
    pub field: &'static str,
}

impl TryFrom<&Recorded> for Envelope {
    type Error = EnvelopeError;

    fn try_from(event: &Recorded) -> Result<Self, EnvelopeError> {
        let payload = RawValue::from_string(event.payload.as_ref().to_owned())
            .map_err(|_| EnvelopeError { position: event.position.0, field: "payload" })?;
        let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Ok(Self {
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
            payload,
            hash: event.hash.to_string(),
        })
    }
}

impl TryFrom<&Envelope> for Recorded {
    type Error = EnvelopeError;

    fn try_from(envelope: &Envelope) -> Result<Self, EnvelopeError> {
        let faulty = |field| EnvelopeError { position: envelope.position, field };
        Ok(Self {
            position: Position(envelope.position),
            stream: envelope.stream.parse().map_err(|_| faulty("stream"))?,
            version: Version(envelope.version),
            kind: envelope.kind.as_str().into(),
            schema: envelope.schema,
            event_id: EventId(envelope.event_id),
            command_id: CommandId(envelope.command_id),
            ordinal: envelope.ordinal,
            meta: Meta {
                tenant: envelope.tenant.parse().map_err(|_| faulty("tenant"))?,
                principal: envelope.principal.parse().map_err(|_| faulty("principal"))?,
                correlation_id: envelope.correlation_id.as_deref().map(Into::into),
                causation_id: envelope.causation_id.as_deref().map(Into::into),
                traceparent: envelope.traceparent.as_deref().map(Into::into),
            },
            recorded_at: Timestamp::parse_rfc3339(&envelope.recorded_at)
                .ok_or_else(|| faulty("recordedAt"))?,
            epoch: envelope.epoch,
            payload: envelope.payload.get().into(),
            hash: envelope.hash.parse().map_err(|_| faulty("hash"))?,
        })
    }
}
