//! Events as CloudEvents 1.0 in binary mode: the body is the payload byte for byte as the log keeps it, and
//! everything else is a header. So whoever reads the stream can follow the hash chain without the log.

use std::str::FromStr;
use std::sync::Arc;

use events::{
    CommandId, Digest, EventId, Meta, Position, Principal, Recorded, StreamId, Tenant, Timestamp, Version,
};
use uuid::Uuid;

use crate::message::{Headers, Message};
use crate::percent;
use crate::subject::Subject;

/// What every type of event begins with; its kind follows.
const TYPE: &str = "dev.hypercode.";
/// What every schema begins with; the kind and its version follow.
const SCHEMA: &str = "urn:hypercode:event:";

/// The header with the event's hash: the hash of the log up to and including it.
pub const HASH: &str = "ce-hash";

/// A message is no event of a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read an event from `{subject}`: {field} is missing or not legal")]
pub struct Malformed {
    /// Where the message was sent.
    pub subject: Subject,
    /// What is wrong with it.
    pub field: &'static str,
}

/// The event as a message to its own subject.
pub fn encode(event: &Recorded) -> Message {
    let mut message = Message::new(Subject::of_event(event), event.payload.as_bytes().to_vec());
    let headers = &mut message.headers;
    let mut set = |name, value: &str| {
        let mut encoded = String::with_capacity(value.len());
        // As the HTTP binding of CloudEvents §3.1.3.2 asks, whose rules the binding for NATS shares.
        percent::encode(value, |byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%'), &mut encoded);
        headers.set(name, encoded);
    };
    set("ce-specversion", "1.0");
    set("ce-id", &event.event_id.to_string());
    set("ce-source", "urn:hypercode:log");
    set("ce-type", &format!("{TYPE}{}", event.kind));
    set("ce-subject", &event.stream.to_string());
    set("ce-time", &event.recorded_at.rfc3339());
    set("ce-dataschema", &format!("{SCHEMA}{}:{}", event.kind, event.schema));
    set("ce-position", &event.position.to_string());
    set("ce-version", &event.version.to_string());
    set("ce-commandid", &event.command_id.to_string());
    set("ce-ordinal", &event.ordinal.to_string());
    set("ce-tenant", event.meta.tenant.as_str());
    set("ce-principal", event.meta.principal.as_str());
    for (name, value) in [
        ("ce-correlationid", &event.meta.correlation_id),
        ("ce-causationid", &event.meta.causation_id),
        ("ce-traceparent", &event.meta.traceparent),
    ] {
        value.as_deref().into_iter().for_each(|value| set(name, value));
    }
    set("ce-epoch", &event.epoch.to_string());
    set(HASH, &event.hash.to_string());
    headers.set("Content-Type", "application/json");
    message
}

/// The event that a message holds.
///
/// # Errors
/// When a header is missing, or does not hold what [`encode`] puts there.
pub fn decode(message: &Message) -> Result<Recorded, Malformed> {
    let malformed = |field| Malformed { subject: message.subject.clone(), field };
    let read = |name| text(&message.headers, name).ok_or_else(|| malformed(name));
    let optional = |name| text(&message.headers, name).map(Arc::<str>::from);
    fn parse<T: FromStr>(text: &str) -> Option<T> {
        text.parse().ok()
    }
    let number = |name| parse(&read(name)?).ok_or_else(|| malformed(name));
    let uuid = |name| parse::<Uuid>(&read(name)?).ok_or_else(|| malformed(name));
    let kind = read("ce-type")?;
    let kind = kind.strip_prefix(TYPE).ok_or_else(|| malformed("ce-type"))?;
    let schema = read("ce-dataschema")?;
    let schema = schema.rsplit(':').next().and_then(|schema| schema.parse().ok());
    Ok(Recorded {
        position: Position(number("ce-position")?),
        stream: parse::<StreamId>(&read("ce-subject")?).ok_or_else(|| malformed("ce-subject"))?,
        version: Version(number("ce-version")?),
        kind: kind.into(),
        schema: schema.ok_or_else(|| malformed("ce-dataschema"))?,
        event_id: EventId(uuid("ce-id")?),
        command_id: CommandId(uuid("ce-commandid")?),
        ordinal: parse(&read("ce-ordinal")?).ok_or_else(|| malformed("ce-ordinal"))?,
        meta: Meta {
            tenant: parse::<Tenant>(&read("ce-tenant")?).ok_or_else(|| malformed("ce-tenant"))?,
            principal: parse::<Principal>(&read("ce-principal")?).ok_or_else(|| malformed("ce-principal"))?,
            correlation_id: optional("ce-correlationid"),
            causation_id: optional("ce-causationid"),
            traceparent: optional("ce-traceparent"),
        },
        recorded_at: Timestamp::parse_rfc3339(&read("ce-time")?).ok_or_else(|| malformed("ce-time"))?,
        epoch: number("ce-epoch")?,
        payload: std::str::from_utf8(&message.body).map_err(|_| malformed("the body"))?.into(),
        hash: parse::<Digest>(&read(HASH)?).ok_or_else(|| malformed(HASH))?,
    })
}

fn text(headers: &Headers, name: &str) -> Option<String> {
    percent::decode(headers.get(name)?)
}

#[cfg(test)]
mod tests {
    use events::EntityKind;
    use proptest::prelude::*;

    use super::*;

    fn event(id: &str, text: &str, payload: &str) -> Recorded {
        Recorded {
            position: Position(7),
            stream: StreamId::new(EntityKind::Outbox, id),
            version: Version(3),
            kind: "message_sent".into(),
            schema: 2,
            event_id: EventId(Uuid::now_v7()),
            command_id: CommandId::fresh(),
            ordinal: 1,
            meta: Meta {
                tenant: "a.b".parse().expect("a tenant"),
                principal: format!("user:{text}x").parse().expect("a principal"),
                correlation_id: Some(text.into()),
                causation_id: None,
                traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            },
            recorded_at: Timestamp(1_795_382_626_000_001),
            epoch: 9,
            payload: payload.into(),
            hash: Digest::of(b"x"),
        }
    }

    #[test]
    fn an_event_is_a_cloud_event_at_its_subject() {
        let event = event("ag_1/2", "Zoë \"%\"", "{\"a\": 1}");
        let message = encode(&event);
        assert_eq!(message.subject.as_str(), "hypercode.evt.a%2Eb.outbox.ag_1%2F2.message_sent");
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-type", "dev.hypercode.message_sent"),
            ("ce-subject", "outbox/ag_1/2"),
            ("ce-dataschema", "urn:hypercode:event:message_sent:2"),
            ("ce-principal", "user:Zo%C3%AB%20%22%25%22x"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(message.headers.get(name), Some(value));
        }
        assert_eq!(message.body, "{\"a\": 1}", "the payload stays as it was written");
        assert_eq!(message.headers.get("ce-causationid"), None);
    }

    #[test]
    fn a_message_that_lacks_something_says_what() {
        let whole = encode(&event("t", "", "1"));
        for (name, _) in whole.headers.iter() {
            let mut message = Message::new(whole.subject.clone(), "1");
            for (other, value) in whole.headers.iter().filter(|(other, _)| *other != name) {
                message.headers.push(other.to_owned().into(), value.to_owned());
            }
            let optional =
                ["ce-specversion", "ce-source", "ce-correlationid", "ce-traceparent", "Content-Type"];
            match decode(&message) {
                Err(malformed) => assert_eq!(malformed.field, name),
                Ok(_) => assert!(optional.contains(&name), "{name}"),
            }
        }
    }

    proptest! {
        #[test]
        fn every_event_comes_back(id in "[^\\pC]{1,40}", text in "[^\\pC]{0,20}", payload in ".{0,40}") {
            let event = event(&id, &text, &payload);
            prop_assert_eq!(decode(&encode(&event)), Ok(event));
        }
    }
}
