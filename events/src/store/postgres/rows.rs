//! Events as arrays of columns on the way in, and as rows on the way out.

use std::str::FromStr;

use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{Decode, Row as _, Type};
use uuid::Uuid;

use crate::event::{Meta, Recorded};
use crate::id::{CommandId, EventId, Position, Timestamp, Version};
use crate::store::ReadError;
use crate::store::columns::{counted, digest, is_stream, parse_stream, shared, signed, unsigned};

type Insert = Query<'static, Postgres, PgArguments>;

/// Binds the columns of `events` in table order, each as an array.
pub(super) fn bind(query: Insert, events: &[Recorded]) -> Insert {
    query
        .bind(column(events, |event| signed(event.position.0)))
        .bind(column(events, |event| event.stream.to_string()))
        .bind(column(events, |event| signed(event.version.0)))
        .bind(column(events, |event| &*event.kind))
        .bind(column(events, |event| i16::try_from(event.schema).unwrap_or(i16::MAX)))
        .bind(column(events, |event| event.event_id.0))
        .bind(column(events, |event| event.command_id.0))
        .bind(column(events, |event| i32::try_from(event.ordinal).unwrap_or(i32::MAX)))
        .bind(column(events, |event| event.meta.tenant.as_str()))
        .bind(column(events, |event| event.meta.principal.as_str()))
        .bind(column(events, |event| event.meta.correlation_id.as_deref()))
        .bind(column(events, |event| event.meta.causation_id.as_deref()))
        .bind(column(events, |event| event.meta.traceparent.as_deref()))
        .bind(column(events, |event| event.recorded_at.0))
        .bind(column(events, |event| signed(event.epoch)))
        .bind(column(events, |event| &*event.payload))
        .bind(column(events, |event| &event.hash.0[..]))
}

fn column<'a, T>(events: &'a [Recorded], value: impl Fn(&'a Recorded) -> T) -> Vec<T> {
    events.iter().map(value).collect()
}

/// The events of `rows`, which have the table's columns in order.
pub(super) fn events(rows: &[PgRow]) -> Result<Vec<Recorded>, ReadError> {
    let mut events: Vec<Recorded> = Vec::with_capacity(rows.len());
    for row in rows {
        let event = event(row, events.last()).map_err(|error| ReadError::Damaged {
            position: Position(row.try_get(0).map(unsigned).unwrap_or_default()),
            reason: error.to_string().into(),
        })?;
        events.push(event);
    }
    Ok(events)
}

fn event(row: &PgRow, before: Option<&Recorded>) -> Result<Recorded, sqlx::Error> {
    let meta = before.map(|before| &before.meta);
    let stream: &str = row.try_get(1)?;
    Ok(Recorded {
        position: Position(count(row, 0)?),
        stream: match before.map(|before| &before.stream) {
            Some(before) if is_stream(before, stream) => before.clone(),
            _ => parse_stream(stream)?,
        },
        version: Version(count(row, 2)?),
        kind: shared(row.try_get(3)?, before.map(|before| &before.kind)),
        schema: whole::<i16, _>(row, 4)?,
        event_id: EventId(row.try_get::<Uuid, _>(5)?),
        command_id: CommandId(row.try_get::<Uuid, _>(6)?),
        ordinal: whole::<i32, _>(row, 7)?,
        meta: Meta {
            tenant: same(row, 8, meta.map(|meta| &meta.tenant), |tenant| tenant.as_str())?,
            principal: same(row, 9, meta.map(|meta| &meta.principal), |principal| principal.as_str())?,
            correlation_id: row
                .try_get::<Option<&str>, _>(10)?
                .map(|text| shared(text, meta.and_then(|meta| meta.correlation_id.as_ref()))),
            causation_id: row
                .try_get::<Option<&str>, _>(11)?
                .map(|text| shared(text, meta.and_then(|meta| meta.causation_id.as_ref()))),
            traceparent: row
                .try_get::<Option<&str>, _>(12)?
                .map(|text| shared(text, meta.and_then(|meta| meta.traceparent.as_ref()))),
        },
        recorded_at: Timestamp(row.try_get(13)?),
        epoch: unsigned(row.try_get(14)?),
        payload: row.try_get::<&str, _>(15)?.into(),
        hash: digest(row.try_get(16)?)?,
    })
}

/// A position or a version.
fn count(row: &PgRow, column: usize) -> Result<u64, sqlx::Error> {
    counted(row.try_get(column)?).map_err(|reason| sqlx::Error::Decode(reason.into()))
}

/// A column's number in the type that events have for it.
fn whole<'r, C, T>(row: &'r PgRow, column: usize) -> Result<T, sqlx::Error>
where
    C: Decode<'r, Postgres> + Type<Postgres>,
    T: TryFrom<C, Error: std::error::Error + Send + Sync + 'static>,
{
    T::try_from(row.try_get::<C, _>(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A value that is parsed only if it differs from that of the event before.
fn same<T>(
    row: &PgRow,
    column: usize,
    before: Option<&T>,
    as_str: impl Fn(&T) -> &str,
) -> Result<T, sqlx::Error>
where
    T: Clone + FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: &str = row.try_get(column)?;
    match before {
        Some(before) if as_str(before) == text => Ok(before.clone()),
        _ => text.parse().map_err(|error: T::Err| sqlx::Error::Decode(error.into())),
    }
}
