//! Values as columns of a log keep them, the same in every dialect.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{Digest, Position, StreamId, Timestamp};
use crate::lease::{Lease, Node, NodeState};

/// The integers of databases are signed; a log's counters never come near the sign.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// A position or a version, which count from 1: whatever stands before is none.
pub(super) fn counted(value: i64) -> Result<u64, String> {
    match u64::try_from(value) {
        Ok(value @ 1..) => Ok(value),
        _ => Err(format!("{value} stands before the first, which is 1")),
    }
}

/// The column above which the events after a position are read. From the beginning on it is what lies below every
/// position, so that an event that was put before the first is met, and refused, instead of passed over.
pub(super) fn above(after: Position) -> i64 {
    if after == Position(0) { i64::MIN } else { signed(after.0) }
}

pub(crate) fn digest(bytes: &[u8]) -> Result<Digest, sqlx::Error> {
    bytes.try_into().map(Digest).map_err(|_| sqlx::Error::Decode("a hash does not have 32 bytes".into()))
}

pub(super) fn parse_stream(text: &str) -> Result<StreamId, sqlx::Error> {
    text.parse().map_err(|error: crate::id::InvalidId| sqlx::Error::Decode(error.into()))
}

/// Neighbours in a log often have the same texts, which they then share in memory.
pub(super) fn shared(text: &str, before: Option<&Arc<str>>) -> Arc<str> {
    match before {
        Some(before) if **before == *text => Arc::clone(before),
        _ => text.into(),
    }
}

/// Whether `text` is `stream` as a column keeps it.
pub(super) fn is_stream(stream: &StreamId, text: &str) -> bool {
    text.strip_prefix(stream.kind.as_str()).and_then(|rest| rest.strip_prefix('/')) == Some(&stream.id)
}

/// A lease that lasts for `left` microseconds, or has been over for as long as it is negative.
pub(super) fn lease(shard: u8, epoch: i64, holder: &str, left: i64) -> Lease {
    let lasts = Duration::from_micros(unsigned(left));
    let holder = (!lasts.is_zero()).then(|| holder.into());
    Lease { shard, epoch: unsigned(epoch), holder, lasts }
}

/// A node, all of whose moments are microseconds since 1970.
pub(super) fn node(id: &str, joined_at: i64, seen_at: i64, expires_at: i64, now: i64) -> Node {
    let state = match expires_at {
        0 => NodeState::Left,
        until if until > now => NodeState::Live,
        _ => NodeState::Silent,
    };
    Node { id: id.into(), state, joined_at: Timestamp(joined_at), seen_at: Timestamp(seen_at) }
}
