//! The event store seam: what every implementation promises.
//!
//! ```text
//!   position   1    2    3    4    5    6            head = 6
//!            +----+----+----+----+----+----+
//!   stream   | A1 | B1 | A2 | A3 | B2 | C1 | ->      append takes 7, 8, …
//!            +----+----+----+----+----+----+
//!               cursor = 3 ^    ^ a reader that stopped at 3 goes on with position 4
//! ```
//!
//! Laws (see [`crate::invariant`]): ES-1 positions are contiguous and in commit order. ES-2 an append is all
//! or nothing. ES-3 an answered append is durable. ES-4 the expected version holds under concurrent writers.
//! ES-5 the same command id gives the first outcome. ES-6 a reader that stops and resumes misses and repeats
//! nothing. ES-7 the chain verifies. ES-8 a stale epoch is refused.

pub(crate) mod columns;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod copy;
mod intake;
mod judge;
mod memory;
mod pages;
pub mod postgres;
mod request;
pub mod sqlite;
mod until;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::event::{Meta, NewEvent, Recorded};
use crate::id::{CommandId, Digest, KeyId, Position, StreamId, Timestamp, Version};

pub use memory::{Fault, Faults, Memory};
pub use pages::Pages;
pub use postgres::Postgres;
pub use request::{EVENTS_MAX, NAMES_MAX, PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX};
pub use sqlite::Sqlite;
pub use until::Until;

/// The version that a writer believes its stream to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any: for streams that no entity folds.
    Any,
    /// Exactly this; `Version(0)` means that the stream must not exist yet.
    Exact(Version),
}

impl Expected {
    /// The stream must not exist yet.
    pub const NONE: Self = Self::Exact(Version(0));
}

/// The right to append to a shard's streams, as won by a [lease](crate::lease).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The shard, 0 to 255.
    pub shard: u8,
    /// The epoch that the writer holds.
    pub epoch: u64,
}

/// A name that may be taken once, in a namespace; kept in the same commit as the events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reservation {
    /// What kind of name it is, such as `crew_name` or `sandbox`.
    pub namespace: Arc<str>,
    /// The name.
    pub key: Arc<str>,
}

/// One append: events of one stream, all or none.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// The stream.
    pub stream: StreamId,
    /// The version that the writer decided on.
    pub expected: Expected,
    /// The command that is being answered (ES-5).
    pub command_id: CommandId,
    /// The digest of the command's content: the same command id with another digest is refused.
    pub command_digest: Option<Digest>,
    /// The lease under which the writer works; `None` where nothing is fenced.
    pub epoch: Option<Epoch>,
    /// Who and why.
    pub meta: Meta,
    /// When it was decided.
    pub recorded_at: Timestamp,
    /// The events, at least one.
    pub events: Vec<NewEvent>,
    /// Names to take.
    pub reserve: Vec<Reservation>,
    /// Names to give back.
    pub release: Vec<Reservation>,
}

/// Where an append came to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The position of its last event.
    pub position: Position,
    /// The stream's version after it.
    pub version: Version,
    /// True if the same command id had been appended before, and this is that first outcome.
    pub repeated: bool,
}

/// Why an append did not happen, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Somebody else wrote to the stream. Reload and decide again.
    #[error("append to `{stream}`: expected version {expected}, found {actual}")]
    WrongVersion {
        /// The stream.
        stream: StreamId,
        /// What the writer believed.
        expected: Version,
        /// What is.
        actual: Version,
    },
    /// A name is taken.
    #[error("reserve `{key}` in `{namespace}`: it is taken")]
    Taken {
        /// The namespace.
        namespace: Arc<str>,
        /// The name.
        key: Arc<str>,
    },
    /// The same command id came with other content.
    #[error("append command `{command_id}`: the same idempotency key was used for different content")]
    KeyConflict {
        /// The command.
        command_id: CommandId,
    },
    /// The writer's lease was lost to another node (ES-8).
    #[error("append under epoch {held} of shard {shard}: the current epoch is {current}")]
    Fenced {
        /// The shard.
        shard: u8,
        /// The epoch of the writer.
        held: u64,
        /// The epoch that is.
        current: u64,
    },
    /// The request itself is not legal (no events, payload not JSON, kind malformed, too large).
    #[error("append to `{stream}`: {reason}")]
    Invalid {
        /// The stream.
        stream: StreamId,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// The intake is full; nothing was written. Try again later.
    #[error("append: the log's intake is full; try again")]
    Full,
    /// Nothing was written, and the store cannot be used at the moment (full disk, closed).
    #[error("append: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: Arc<str>,
    },
    /// It is sealed with a key that seals nothing any more. Nothing was written.
    #[error("append what is sealed with key `{key}`: it is retired")]
    Retired {
        /// The key.
        key: KeyId,
    },
    /// It may or may not have been written: ask by command id before trying again.
    #[error("append: outcome unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: Arc<str>,
    },
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store cannot be read at the moment.
    #[error("read the log: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: Arc<str>,
    },
    /// What was read is not what was written.
    #[error("read the log: event at position {position} is damaged: {reason}")]
    Damaged {
        /// Where.
        position: Position,
        /// What is wrong.
        reason: Arc<str>,
    },
}

/// The log's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The position of the last event.
    pub position: Position,
    /// Its hash.
    pub hash: Digest,
}

impl Head {
    /// The head of a log without events.
    pub const EMPTY: Self = Self { position: Position(0), hash: Digest::ZERO };
}

/// An append-only, totally ordered, hash-chained log of events.
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Appends the request's events, all or none; when it answers `Ok`, they are durable.
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError>;
    /// The same for events that are sealed with these keys. Where other processes append as well it is refused once one
    /// of the keys is retired and [`EventStore::fence`] has answered ([`AppendError::Retired`]); a store to which this
    /// process alone appends needs to know nothing of keys.
    async fn append_sealed(
        &self,
        request: AppendRequest,
        _keys: Vec<KeyId>,
    ) -> Result<Appended, AppendError> {
        self.append(request).await
    }
    /// Once it has answered, what was appended until then is read, and whoever appends looks again, before anything is
    /// written, at what forbids it.
    async fn fence(&self) -> Result<(), AppendError> {
        Ok(())
    }
    /// The outcome of a command, if it was appended.
    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError>;
    /// Up to `limit` events with positions above `after`, in order. A store may give fewer at once: only an
    /// empty answer means that there are no more.
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError>;
    /// The same, where what somebody put before the first event is passed over instead of refused: for who names it
    /// himself.
    async fn read_counted(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.read(after, limit).await
    }
    /// Up to `limit` events of `stream` with versions above `after`, in order; fewer, as in [`EventStore::read`].
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError>;
    /// The holder of a reserved name: the stream that took it.
    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError>;
    /// The log's end.
    async fn head(&self) -> Result<Head, ReadError>;
    /// A hint that the head moved. Correctness never rests on it.
    fn watch(&self) -> watch::Receiver<Position>;
}
