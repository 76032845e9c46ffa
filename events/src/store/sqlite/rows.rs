//! Events as rows of the `events` table, both ways.

use std::sync::{Arc, LazyLock};

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Row as _, Sqlite};
use uuid::Uuid;

use crate::event::{Meta, Recorded};
use crate::id::{CommandId, Digest, EventId, Position, Timestamp, Version};
use crate::store::ReadError;

/// Columns of the `events` table.
const COLUMNS: usize = 17;

/// Rows that one prepared statement has slots for; those that are left over stay empty.
const SLOTS: usize = 32;

static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insert(1));
static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert(SLOTS));

fn insert(slots: usize) -> String {
    let slot = format!("({})", vec!["?"; COLUMNS].join(", "));
    include_str!("sql/insert_events.sql")
        .replace("VALUES {rows}", &format!("VALUES {}", vec![slot; slots].join(", ")))
}

/// Inserts `events` in as few statements as there are.
pub(super) async fn insert_events(
    connection: &mut SqliteConnection,
    events: &[Recorded],
) -> Result<(), sqlx::Error> {
    for chunk in events.chunks(SLOTS) {
        let sql: &'static str = if chunk.len() == 1 { &INSERT_ONE } else { &INSERT_MANY };
        let query = chunk.iter().fold(sqlx::query(sql), bind);
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

type Insert = Query<'static, Sqlite, SqliteArguments>;

fn bind(query: Insert, event: &Recorded) -> Insert {
    let meta = &event.meta;
    query
        .bind(signed(event.position.0))
        .bind(event.stream.to_string())
        .bind(signed(event.version.0))
        .bind(Arc::clone(&event.kind))
        .bind(i64::from(event.schema))
        .bind(bytes(event.event_id.0))
        .bind(bytes(event.command_id.0))
        .bind(i64::from(event.ordinal))
        .bind(meta.tenant.as_str().to_owned())
        .bind(meta.principal.as_str().to_owned())
        .bind(meta.correlation_id.clone())
        .bind(meta.causation_id.clone())
        .bind(meta.traceparent.clone())
        .bind(event.recorded_at.0)
        .bind(signed(event.epoch))
        .bind(Arc::clone(&event.payload))
        .bind(event.hash.0.to_vec())
}

/// SQLite's integers are signed; a log's counters never come near the sign.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, sqlx::Error> {
    bytes.try_into().map(Digest).map_err(|_| decode("a hash does not have 32 bytes".into()))
}

fn decode(reason: String) -> sqlx::Error {
    sqlx::Error::Decode(reason.into())
}

/// Turns rows into events. Neighbours often share their texts, which are then shared in memory too.
pub(super) fn events(rows: &[SqliteRow]) -> Result<Vec<Recorded>, ReadError> {
    let mut events: Vec<Recorded> = Vec::with_capacity(rows.len());
    for row in rows {
        let event = event(row, events.last()).map_err(|error| ReadError::Damaged {
            position: Position(row.try_get::<i64, _>(0).map(unsigned).unwrap_or_default()),
            reason: error.to_string().into(),
        })?;
        events.push(event);
    }
    Ok(events)
}

fn event(row: &SqliteRow, before: Option<&Recorded>) -> Result<Recorded, sqlx::Error> {
    let integer = |column| row.try_get::<i64, _>(column).map(unsigned);
    let parsed = |error: crate::id::InvalidId| decode(error.to_string());
    let stream: &str = row.try_get(1)?;
    let tenant: &str = row.try_get(8)?;
    let principal: &str = row.try_get(9)?;
    let small = |value: u64| u16::try_from(value).map_err(|error| decode(error.to_string()));
    Ok(Recorded {
        position: Position(integer(0)?),
        stream: match before {
            Some(before) if stream.ends_with(&*before.stream.id) && stream == before.stream.to_string() => {
                before.stream.clone()
            }
            _ => stream.parse().map_err(parsed)?,
        },
        version: Version(integer(2)?),
        kind: shared(row.try_get(3)?, before.map(|before| &before.kind)),
        schema: small(integer(4)?)?,
        event_id: EventId(uuid(row.try_get(5)?)?),
        command_id: CommandId(uuid(row.try_get(6)?)?),
        ordinal: u32::try_from(integer(7)?).map_err(|error| decode(error.to_string()))?,
        meta: Meta {
            tenant: match before {
                Some(before) if before.meta.tenant.as_str() == tenant => before.meta.tenant.clone(),
                _ => tenant.parse().map_err(parsed)?,
            },
            principal: match before {
                Some(before) if before.meta.principal.as_str() == principal => before.meta.principal.clone(),
                _ => principal.parse().map_err(parsed)?,
            },
            correlation_id: optional(row.try_get(10)?, before.and_then(|b| b.meta.correlation_id.as_ref())),
            causation_id: optional(row.try_get(11)?, before.and_then(|b| b.meta.causation_id.as_ref())),
            traceparent: optional(row.try_get(12)?, before.and_then(|b| b.meta.traceparent.as_ref())),
        },
        recorded_at: Timestamp(row.try_get(13)?),
        epoch: integer(14)?,
        payload: row.try_get::<&str, _>(15)?.into(),
        hash: digest(row.try_get(16)?)?,
    })
}

/// A UUID as a column keeps it.
pub(super) fn bytes(uuid: Uuid) -> Vec<u8> {
    uuid.as_bytes().to_vec()
}

pub(super) fn uuid(bytes: &[u8]) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(bytes).map_err(|error| decode(error.to_string()))
}

fn shared(text: &str, before: Option<&Arc<str>>) -> Arc<str> {
    match before {
        Some(before) if **before == *text => Arc::clone(before),
        _ => text.into(),
    }
}

fn optional(text: Option<&str>, before: Option<&Arc<str>>) -> Option<Arc<str>> {
    text.map(|text| shared(text, before))
}
