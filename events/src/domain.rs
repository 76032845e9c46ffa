//! The pure domain: per entity `decide`, `evolve` and `obligations`. No IO, no clock, no randomness.
//!
//! ```text
//!   command --decide(state)--> events --append--> evolve(state) --obligations--> what must be true outside
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{NewEvent, Recorded};
use crate::id::{EntityKind, Timestamp};
use crate::store::Reservation;

pub mod access;
pub mod agent;
pub mod artifact;
pub mod crew;
#[cfg(test)]
mod driven;
#[cfg(test)]
mod golden;
pub mod keys;
pub mod killed;
pub mod message;
pub mod platform;
pub mod pool;
pub mod profile;
pub mod secrets;
pub mod spending;
pub mod state;
pub mod task;

/// What a decision may know beside the state: everything that is not in the log comes in as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The time of the decision.
    pub now: Timestamp,
    /// Chance, for jitter.
    pub seed: u64,
}

/// An entity: how it answers commands, what its events mean, and what it then needs from the world.
pub trait Decider: Send + Sync + 'static {
    /// The kind of its streams.
    const KIND: EntityKind;
    /// Raised whenever [`Decider::State`] changes its meaning, so that older snapshots are ignored.
    const STATE_SCHEMA: u16 = 1;
    /// What it is, folded from its events. The default is "not there yet".
    type State: Clone + Default + Send + Sync + Serialize + DeserializeOwned + 'static;
    /// What may be asked of it.
    type Command: Clone + Send + Sync + 'static;
    /// What may happen to it.
    type Event: DomainEvent;
    /// What must be true outside, given its state.
    type Effect: Clone + PartialEq + Send + Sync + std::fmt::Debug + 'static;
    /// Why a command is refused, in the words of the business.
    type Rejection: std::error::Error + Into<crate::api::Problem> + Send + Sync + 'static;

    /// The events that answer `command`; none if it asks for what already is.
    fn decide(
        state: &Self::State,
        command: &Self::Command,
        context: &Context,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;
    /// The state after `event`. Cannot fail: history is fact.
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;
    /// What must be true outside. Each is carried out at least once and idempotently.
    fn obligations(state: &Self::State) -> Vec<Self::Effect>;
    /// The names that these events take.
    fn reserves(_state: &Self::State, _events: &[Self::Event]) -> Vec<Reservation> {
        Vec::new()
    }
    /// The names that these events give back.
    fn releases(_state: &Self::State, _events: &[Self::Event]) -> Vec<Reservation> {
        Vec::new()
    }
    /// Whether nothing will ever happen to it again, so that it need not be kept in memory.
    fn is_final(_state: &Self::State) -> bool {
        false
    }
}

/// What every error ends with that is about what a newer version has written.
pub(crate) const UPGRADE: &str = "upgrade the platform";

/// Why a stored event could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No such kind is known: it was written by a newer version of the platform.
    #[error("decode event kind `{kind}`: it is not known to this version; {UPGRADE}")]
    UnknownKind {
        /// The kind found.
        kind: String,
    },
    /// The payload's schema is newer than this version knows.
    #[error("decode event kind `{kind}`: schema {found} is newer than {known}; {UPGRADE}")]
    NewerSchema {
        /// The kind.
        kind: String,
        /// The schema found.
        found: u16,
        /// The newest schema known.
        known: u16,
    },
    /// The payload does not have the form of its kind and schema.
    #[error("decode event kind `{kind}`: {reason}")]
    Malformed {
        /// The kind.
        kind: String,
        /// What is wrong, with line and column.
        reason: String,
    },
}

/// One step of an upcast: turns the payload of schema `n` into that of schema `n + 1`.
pub type Upcast = fn(serde_json::Value) -> serde_json::Value;

/// The events of one entity.
pub trait DomainEvent: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Every kind with its newest schema, in a stable order.
    const KINDS: &'static [(&'static str, u16)];
    /// Its kind on the wire.
    fn kind(&self) -> &'static str;
    /// As it is stored.
    fn encode(&self) -> NewEvent;
    /// From what was stored.
    fn decode(kind: &str, schema: u16, payload: &str) -> Result<Self, DecodeError>;
}

/// Every kind of event that this version knows, entity by entity.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    schemas().map(|(kind, _)| kind)
}

/// Whether this version knows the event's kind and schema.
pub fn knows(event: &Recorded) -> bool {
    schemas().any(|(kind, newest)| *kind == *event.kind && event.schema <= newest)
}

fn schemas() -> impl Iterator<Item = (&'static str, u16)> {
    let kinds = [
        profile::Event::KINDS,
        pool::Event::KINDS,
        crew::Event::KINDS,
        agent::Event::KINDS,
        task::Event::KINDS,
        message::Event::KINDS,
        artifact::Event::KINDS,
        state::Event::KINDS,
        platform::Event::KINDS,
        access::Event::KINDS,
        keys::Event::KINDS,
        secrets::Event::KINDS,
    ];
    kinds.into_iter().flatten().copied()
}

/// Reads a payload of an older or the newest schema, step by step.
pub fn decode_payload<T: DeserializeOwned>(
    kind: &str,
    found: u16,
    known: u16,
    upcasts: &[(u16, Upcast)],
    payload: &str,
) -> Result<T, DecodeError> {
    let malformed =
        |e: serde_json::Error| DecodeError::Malformed { kind: kind.to_owned(), reason: e.to_string() };
    if found == known {
        return serde_json::from_str(payload).map_err(malformed);
    }
    if found > known || found == 0 {
        return Err(DecodeError::NewerSchema { kind: kind.to_owned(), found, known });
    }
    let mut value: serde_json::Value = serde_json::from_str(payload).map_err(malformed)?;
    for schema in found..known {
        let (_, step) =
            upcasts.iter().find(|(from, _)| *from == schema).ok_or_else(|| DecodeError::Malformed {
                kind: kind.to_owned(),
                reason: format!("no way leads from schema {schema} to {}", schema + 1),
            })?;
        value = step(value);
    }
    serde_json::from_value(value).map_err(malformed)
}

/// Defines an entity's event enum: each kind with its payload struct and schema, and the ways from older schemas.
///
/// The wire's kind is written out, so that renaming a Rust type never renames an event.
#[macro_export]
macro_rules! domain_events {
    ($(#[$doc:meta])* $vis:vis enum $name:ident {
        $($kind:literal v $schema:literal $([$($from:literal => $upcast:path),+])? => $variant:ident),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "events are few at a time and soon encoded")]
        $vis enum $name {
            $(#[doc = concat!("`", $kind, "`")] $variant($variant)),+
        }

        impl $crate::domain::DomainEvent for $name {
            const KINDS: &'static [(&'static str, u16)] = &[$(($kind, $schema)),+];

            fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind),+ }
            }
            fn encode(&self) -> $crate::event::NewEvent {
                let (schema, payload) = match self {
                    $(Self::$variant(payload) => ($schema, serde_json::to_string(payload))),+
                };
                let payload = payload.expect("payloads are plain data with string keys");
                $crate::event::NewEvent { kind: self.kind().into(), schema, payload: payload.into() }
            }
            fn decode(kind: &str, schema: u16, payload: &str) -> Result<Self, $crate::domain::DecodeError> {
                match kind {
                    $($kind => {
                        let upcasts: &[(u16, $crate::domain::Upcast)] = &[$($(($from, $upcast)),+)?];
                        $crate::domain::decode_payload(kind, schema, $schema, upcasts, payload).map(Self::$variant)
                    })+
                    _ => Err($crate::domain::DecodeError::UnknownKind { kind: kind.to_owned() }),
                }
            }
        }

        $(impl From<$variant> for $name {
            fn from(payload: $variant) -> Self { Self::$variant(payload) }
        })+
    };
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    use super::{DecodeError, DomainEvent as _};

    /// In its first schema there was no unit; until the second, `length` was `size`.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Renamed {
        length: u32,
        unit: String,
    }

    crate::domain_events! {
        /// Events of an entity that has changed twice.
        enum Event {
            "thing_renamed" v 3 [1 => with_unit, 2 => renamed] => Renamed,
            "thing_measured" v 3 [2 => renamed] => Measured,
        }
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Measured {
        length: u32,
    }

    fn with_unit(mut payload: Value) -> Value {
        payload["unit"] = json!("mm");
        payload
    }

    fn renamed(mut payload: Value) -> Value {
        payload["length"] = payload["size"].take();
        payload
    }

    #[test]
    fn an_old_payload_is_read_step_by_step() {
        let newest = Event::from(Renamed { length: 7, unit: "mm".to_owned() });
        for (schema, payload) in
            [(1, r#"{"size":7}"#), (2, r#"{"size":7,"unit":"mm"}"#), (3, r#"{"length":7,"unit":"mm"}"#)]
        {
            assert_eq!(Event::decode("thing_renamed", schema, payload).as_ref(), Ok(&newest), "{schema}");
        }
        assert_eq!(newest.encode().schema, 3, "what is written is of the newest schema");
    }

    #[test]
    fn what_no_way_leads_from_is_refused() {
        let read = |schema, payload| Event::decode("thing_measured", schema, payload);
        assert!(matches!(read(1, r#"{"size":7}"#), Err(DecodeError::Malformed { .. })), "a step is missing");
        assert!(matches!(read(4, "{}"), Err(DecodeError::NewerSchema { found: 4, known: 3, .. })));
        assert!(matches!(read(0, "{}"), Err(DecodeError::NewerSchema { .. })), "there is no schema 0");
        assert!(matches!(read(2, "{"), Err(DecodeError::Malformed { .. })));
        assert_eq!(read(2, r#"{"size":7}"#), Ok(Measured { length: 7 }.into()));
    }
}
