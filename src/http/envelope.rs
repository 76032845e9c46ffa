//! An event as it goes over the wire: whole, so that whoever receives it can verify the chain.

use events::Recorded;
use events::audit::{Line, LineError};
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

impl TryFrom<&Recorded> for Envelope {
    type Error = LineError;

    fn try_from(event: &Recorded) -> Result<Self, LineError> {
        let line = Line::from(event);
        let payload = RawValue::from_string(line.payload)
            .map_err(|_| LineError { position: line.position, field: "payload" })?;
        Ok(Self {
            position: line.position,
            stream: line.stream,
            version: line.version,
            kind: line.kind,
            schema: line.schema,
            event_id: line.event_id,
            command_id: line.command_id,
            ordinal: line.ordinal,
            tenant: line.tenant,
            principal: line.principal,
            correlation_id: line.correlation_id,
            causation_id: line.causation_id,
            traceparent: line.traceparent,
            recorded_at: line.recorded_at,
            epoch: line.epoch,
            payload,
            hash: line.hash.to_string(),
        })
    }
}

impl TryFrom<&Envelope> for Recorded {
    type Error = LineError;

    fn try_from(envelope: &Envelope) -> Result<Self, LineError> {
        let Envelope { position, version, schema, event_id, command_id, ordinal, epoch, .. } = *envelope;
        let hash = envelope.hash.parse().map_err(|_| LineError { position, field: "hash" })?;
        let envelope = envelope.clone();
        let line = Line {
            position,
            stream: envelope.stream,
            version,
            kind: envelope.kind,
            schema,
            event_id,
            command_id,
            ordinal,
            tenant: envelope.tenant,
            principal: envelope.principal,
            correlation_id: envelope.correlation_id,
            causation_id: envelope.causation_id,
            traceparent: envelope.traceparent,
            recorded_at: envelope.recorded_at,
            epoch,
            payload: envelope.payload.get().to_owned(),
            hash,
        };
        Self::try_from(&line)
    }
}
