//! The hash chain over the log (law ES-7): who did what, when and why cannot be changed unseen.
//!
//! `hash = SHA-256(0x00 ‖ previous hash ‖ E)`, where `E` is [`FORMAT`] and then every column but `hash` in
//! table order, each as a big-endian `u32` length and its bytes. Integers are 8 bytes big-endian, times are
//! microseconds as `int64`, UUIDs are their 16 bytes, an absent column is the length `0xFFFFFFFF` alone, and
//! the payload is the SHA-256 of its stored bytes. The leading zero byte is the leaf prefix of RFC 6962 §2.1,
//! so that a hash can be a Merkle leaf as it is.

use sha2::Digest as _;

use crate::event::Recorded;
use crate::id::{Digest, Position};
use crate::store::{EventStore, Head, ReadError};

/// The first byte of an event's encoding. A change of the encoding takes the next number.
pub const FORMAT: u8 = 1;

/// Events that [`verify`] reads at once.
const READ_EVENTS: usize = 1_000;

/// The hash of the log up to and including `event`; the event's own `hash` plays no part.
pub fn hash(previous: Digest, event: &Recorded) -> Digest {
    sha2::Sha256::new_with_prefix([0])
        .chain_update(previous.0)
        .chain_update(encode(event))
        .finalize()
        .as_slice()
        .try_into()
        .map(Digest)
        .expect("a SHA-256 has 32 bytes")
}

fn encode(event: &Recorded) -> Vec<u8> {
    let mut e = Encoding(Vec::with_capacity(512));
    e.0.push(FORMAT);
    e.integer(event.position.0);
    e.bytes(event.stream.to_string().as_bytes());
    e.integer(event.version.0);
    e.bytes(event.kind.as_bytes());
    e.integer(u64::from(event.schema));
    e.bytes(event.event_id.0.as_bytes());
    e.bytes(event.command_id.0.as_bytes());
    e.integer(u64::from(event.ordinal));
    e.bytes(event.meta.tenant.as_str().as_bytes());
    e.bytes(event.meta.principal.as_str().as_bytes());
    e.optional(event.meta.correlation_id.as_deref());
    e.optional(event.meta.causation_id.as_deref());
    e.optional(event.meta.traceparent.as_deref());
    e.bytes(&event.recorded_at.0.to_be_bytes());
    e.integer(event.epoch);
    e.bytes(&Digest::of(event.payload.as_bytes()).0);
    e.0
}

struct Encoding(Vec<u8>);

impl Encoding {
    fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a column is shorter than 4 GiB");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
    fn integer(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }
    fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.bytes(text.as_bytes()),
            None => self.0.extend_from_slice(&u32::MAX.to_be_bytes()),
        }
    }
}

/// Where and how the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// An event is missing, or stands where another should.
    #[error("verify the log: expected position {expected}, found {found}")]
    Gap {
        /// The position that should have come.
        expected: Position,
        /// The position that came.
        found: Position,
    },
    /// An event is not what was appended, or one before it was replaced.
    #[error("verify the log: the event at position {position} does not match its hash")]
    Hash {
        /// The first position whose hash does not match.
        position: Position,
    },
    /// The log's last events are gone, or its head was changed.
    #[error("verify the log: the head names position {head}, the last event that verifies has {last}")]
    Head {
        /// The position that the head names.
        head: Position,
        /// The position of the last event.
        last: Position,
    },
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Follows the chain event by event.
#[derive(Clone, Copy, Debug)]
pub struct Verifier {
    head: Head,
}

impl Verifier {
    /// Begins after `head`; [`Head::EMPTY`] for the whole log.
    pub fn after(head: Head) -> Self {
        Self { head }
    }

    /// Checks the next event.
    pub fn check(&mut self, event: &Recorded) -> Result<(), Broken> {
        let expected = self.head.position.next();
        if event.position != expected {
            return Err(Broken::Gap { expected, found: event.position });
        }
        if hash(self.head.hash, event) != event.hash {
            return Err(Broken::Hash { position: expected });
        }
        self.head = Head { position: expected, hash: event.hash };
        Ok(())
    }

    /// The last event that was checked.
    pub fn head(&self) -> Head {
        self.head
    }
}

/// Verifies the whole log up to the head that it had at the start, and says which head that was.
pub async fn verify(store: &dyn EventStore) -> Result<Head, Broken> {
    let head = store.head().await?;
    let mut verifier = Verifier::after(Head::EMPTY);
    let mut events = store.read(Position(0), READ_EVENTS).await?;
    while let Some(last) = events.last().map(|event| event.position)
        && verifier.head().position < head.position
    {
        // The next page is read while this one is hashed.
        let checked = tokio::task::spawn_blocking(move || {
            let mut meant = events.iter().take_while(|event| event.position <= head.position);
            meant.try_for_each(|event| verifier.check(event)).map(|()| verifier)
        });
        // What came behind the head since is not asked about.
        let wanted = usize::try_from(head.position.0.saturating_sub(last.0)).unwrap_or(READ_EVENTS);
        let (checked, next) = tokio::join!(checked, store.read(last, wanted.min(READ_EVENTS)));
        verifier = checked.expect("hashing does not panic")?;
        events = next?;
    }
    if verifier.head() != head {
        return Err(Broken::Head { head: head.position, last: verifier.head().position });
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::{Meta, Principal};
    use crate::id::{CommandId, EntityKind, EventId, StreamId, Tenant, Timestamp, Version};

    fn full() -> Recorded {
        Recorded {
            position: Position(7),
            stream: StreamId::new(EntityKind::Agent, "ag_1"),
            version: Version(3),
            kind: "agent_ready".into(),
            schema: 2,
            event_id: EventId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)),
            command_id: CommandId(Uuid::from_u128(0x6f0c_1c5e_8a53_5d5b_9a43_0e7b_5f0a_c0de)),
            ordinal: 1,
            meta: Meta {
                tenant: Tenant::default(),
                principal: Principal::system("watchdog"),
                correlation_id: Some("c".into()),
                causation_id: Some("agent/ag_1@2".into()),
                traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            },
            recorded_at: Timestamp(1_795_382_626_000_001),
            epoch: 4,
            payload: r#"{"sandbox":"sb_1","note":"grüße"}"#.into(),
            hash: Digest::ZERO,
        }
    }

    fn bare() -> Recorded {
        Recorded {
            position: Position(1),
            version: Version(1),
            ordinal: 0,
            schema: 1,
            meta: Meta { correlation_id: None, causation_id: None, traceparent: None, ..full().meta },
            recorded_at: Timestamp(-1),
            epoch: 0,
            payload: "{}".into(),
            ..full()
        }
    }

    /// The vectors were computed by an independent program from the text of this module's page.
    #[test]
    fn known_answers() {
        let vectors: Vec<(String, String)> =
            serde_json::from_str(include_str!("../testdata/chain.json")).expect("vectors");
        let found: Vec<(String, String)> = [
            ("bare after zero", hash(Digest::ZERO, &bare())),
            ("full after zero", hash(Digest::ZERO, &full())),
            ("full after bare", hash(hash(Digest::ZERO, &bare()), &full())),
        ]
        .map(|(name, hash)| (name.to_owned(), hash.to_string()))
        .into();
        assert_eq!(found, vectors);
    }

    #[test]
    fn every_column_counts() {
        let mut variants = vec![full()];
        let mut vary = |change: fn(&mut Recorded)| {
            let mut event = full();
            change(&mut event);
            variants.push(event);
        };
        vary(|e| e.position = Position(8));
        vary(|e| e.stream = StreamId::new(EntityKind::Agent, "ag_2"));
        vary(|e| e.version = Version(4));
        vary(|e| e.kind = "agent_lost".into());
        vary(|e| e.schema = 3);
        vary(|e| e.event_id = EventId(Uuid::nil()));
        vary(|e| e.command_id = CommandId(Uuid::nil()));
        vary(|e| e.ordinal = 2);
        vary(|e| e.meta.tenant = "other".parse().expect("tenant"));
        vary(|e| e.meta.principal = Principal::user("mallory"));
        vary(|e| e.meta.correlation_id = None);
        vary(|e| e.meta.correlation_id = Some("".into()));
        vary(|e| e.meta.causation_id = None);
        vary(|e| e.meta.traceparent = None);
        vary(|e| e.recorded_at = Timestamp(e.recorded_at.0 + 1));
        vary(|e| e.epoch = 5);
        vary(|e| e.payload = r#"{"sandbox":"sb_1", "note":"grüße"}"#.into());
        let hashes: std::collections::HashSet<_> =
            variants.iter().map(|event| hash(Digest::ZERO, event)).collect();
        assert_eq!(hashes.len(), variants.len());
    }
}
