//! Events as rows of the `events` table, and values as columns keep them.

use std::sync::{Arc, LazyLock};

use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use uuid::Uuid;

use crate::event::Recorded;
use crate::store::columns::signed;

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

/// A UUID as a column keeps it.
pub(super) fn bytes(uuid: Uuid) -> Vec<u8> {
    uuid.as_bytes().to_vec()
}

pub(super) fn uuid(bytes: &[u8]) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(bytes).map_err(|error| sqlx::Error::Decode(error.into()))
}
