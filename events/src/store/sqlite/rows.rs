//! Events as rows of the `events` table, and values as columns keep them.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use crate::event::{Meta, Recorded};
use crate::id::{CommandId, Digest, EventId, Position, Timestamp, Version};
use crate::store::columns::{counted, is_stream, shared, signed};

/// Inserts `events`, one row each.
pub(super) fn insert_events(connection: &Connection, events: &[Recorded]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(include_str!("sql/insert_event.sql"))?;
    let mut stream = String::new();
    for event in events {
        stream.clear();
        write!(stream, "{}", event.stream).expect("a string takes whatever is written to it");
        let meta = &event.meta;
        insert.execute(params![
            signed(event.position.0),
            stream,
            signed(event.version.0),
            event.kind,
            event.schema,
            event.event_id.0.as_bytes(),
            event.command_id.0.as_bytes(),
            event.ordinal,
            meta.tenant.as_str(),
            meta.principal.as_str(),
            meta.correlation_id,
            meta.causation_id,
            meta.traceparent,
            event.recorded_at.0,
            signed(event.epoch),
            event.payload,
            event.hash.0,
        ])?;
    }
    Ok(())
}

/// The event of a row of all columns, in the order of the table; `before` is the event before it in the same answer.
pub(super) fn event(row: &Row<'_>, before: Option<&Recorded>) -> Result<Recorded, Unreadable> {
    let meta = before.map(|before| &before.meta);
    Ok(Recorded {
        position: Position(count(row, 0)?),
        stream: same(row, 1, before.map(|before| &before.stream), is_stream)?,
        version: Version(count(row, 2)?),
        kind: shared(text(row, 3)?, before.map(|before| &before.kind)),
        schema: row.get(4)?,
        event_id: EventId(uuid(row, 5)?),
        command_id: CommandId(uuid(row, 6)?),
        ordinal: row.get(7)?,
        meta: Meta {
            tenant: same(row, 8, meta.map(|meta| &meta.tenant), |tenant, text| tenant.as_str() == text)?,
            principal: same(row, 9, meta.map(|meta| &meta.principal), |by, text| by.as_str() == text)?,
            correlation_id: optional(row, 10, meta.and_then(|meta| meta.correlation_id.as_ref()))?,
            causation_id: optional(row, 11, meta.and_then(|meta| meta.causation_id.as_ref()))?,
            traceparent: optional(row, 12, meta.and_then(|meta| meta.traceparent.as_ref()))?,
        },
        recorded_at: Timestamp(row.get(13)?),
        epoch: number(row, 14)?,
        payload: text(row, 15)?.into(),
        hash: digest(row, 16)?,
    })
}

/// A value is not what the store writes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error("column {column}: {reason}")]
    Value { column: usize, reason: String },
}

impl Unreadable {
    fn value(column: usize, reason: &impl ToString) -> Self {
        Self::Value { column, reason: reason.to_string() }
    }
}

/// A position or a version.
fn count(row: &Row<'_>, column: usize) -> Result<u64, Unreadable> {
    counted(row.get(column)?).map_err(|reason| Unreadable::value(column, &reason))
}

pub(super) fn number(row: &Row<'_>, column: usize) -> Result<u64, Unreadable> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Unreadable::value(column, &format!("{value} is negative")))
}

pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, Unreadable> {
    row.get_ref(column)?.as_str().map_err(|error| Unreadable::value(column, &error))
}

pub(super) fn parsed<T: FromStr<Err: ToString>>(row: &Row<'_>, column: usize) -> Result<T, Unreadable> {
    text(row, column)?.parse().map_err(|error: T::Err| Unreadable::value(column, &error))
}

pub(super) fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid, Unreadable> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|error| Unreadable::value(column, &error))?;
    Uuid::from_slice(bytes).map_err(|error| Unreadable::value(column, &error))
}

pub(super) fn digest(row: &Row<'_>, column: usize) -> Result<Digest, Unreadable> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|error| Unreadable::value(column, &error))?;
    let exact = |_| FromSqlError::InvalidBlobSize { expected_size: 32, blob_size: bytes.len() };
    bytes.try_into().map(Digest).map_err(|error| Unreadable::value(column, &exact(error)))
}

fn optional(row: &Row<'_>, column: usize, before: Option<&Arc<str>>) -> Result<Option<Arc<str>>, Unreadable> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|error| Unreadable::value(column, &error))?;
    Ok(text.map(|text| shared(text, before)))
}

/// A value that is parsed only if it differs from that of the event before.
fn same<T: Clone + FromStr<Err: ToString>>(
    row: &Row<'_>,
    column: usize,
    before: Option<&T>,
    is: impl Fn(&T, &str) -> bool,
) -> Result<T, Unreadable> {
    match before {
        Some(before) if is(before, text(row, column)?) => Ok(before.clone()),
        _ => parsed(row, column),
    }
}
