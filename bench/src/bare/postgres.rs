//! A database: one connection writes whole batches in one statement, or many write a row each.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use events::StreamId;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{BATCH_ROWS_MAX, Group, INTAKE_ROWS_MAX, Row, Waiting};
use crate::Result;
use crate::append::Target;

/// The columns and indexes of the log.
const SCHEMA: &str = include_str!("../../../migrations/postgres/0001_log.sql");

const INSERT: &str = "INSERT INTO events VALUES \
     ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
const INSERT_ALL: &str = "INSERT INTO events SELECT * FROM unnest( \
     $1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::smallint[], $6::uuid[], $7::uuid[], $8::integer[], \
     $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::text[], \
     $17::bytea[])";
const STREAM: &str = "SELECT version, kind, schema, payload FROM events WHERE stream = $1 ORDER BY version";
const LOG: &str = "SELECT * FROM events ORDER BY position";

/// Makes the log's tables in an empty database.
pub(crate) async fn create(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Inserts of one row each, every one a commit of its own.
#[derive(Clone)]
pub(crate) struct Plain {
    pool: PgPool,
    position: Arc<AtomicI64>,
}

impl Plain {
    /// Inserts over up to so many connections into the log's tables of this database.
    pub(crate) async fn open(url: &str, connections: u32) -> Result<Self> {
        // Asking the server before each use whether it is still there would double the work.
        let pool = PgPoolOptions::new().max_connections(connections).test_before_acquire(false);
        Ok(Self { pool: pool.connect(url).await?, position: Arc::default() })
    }
}

impl Target for Plain {
    async fn append(&self, stream: &StreamId, version: u64) -> Result<()> {
        let position = self.position.fetch_add(1, Ordering::Relaxed) + 1;
        bind_row(position, Row::new(stream, version)).execute(&self.pool).await?;
        Ok(())
    }
}

fn bind_row(position: i64, row: Row) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(INSERT)
        .bind(position)
        .bind(row.stream)
        .bind(row.version)
        .bind(row.kind)
        .bind(row.schema)
        .bind(row.event_id)
        .bind(row.command_id)
        .bind(row.ordinal)
        .bind(row.tenant)
        .bind(row.principal)
        .bind(row.correlation_id)
        .bind(row.causation_id)
        .bind(row.traceparent)
        .bind(row.recorded_at)
        .bind(row.epoch)
        .bind(row.payload)
        .bind(row.hash)
}

/// The one task that writes.
pub(crate) struct Writer {
    group: Group,
    task: JoinHandle<sqlx::Result<()>>,
}

impl Writer {
    /// Starts it over the log's tables of this database.
    pub(crate) async fn start(url: &str) -> Result<Self> {
        let connection = PgConnection::connect(url).await?;
        let (intake, rows) = mpsc::channel(INTAKE_ROWS_MAX);
        Ok(Self { group: Group(intake), task: tokio::spawn(write(connection, rows)) })
    }

    /// Where rows are handed in.
    pub(crate) fn group(&self) -> Group {
        self.group.clone()
    }

    /// Waits for what was handed in.
    pub(crate) async fn finish(self) -> Result<()> {
        drop(self.group);
        Ok(self.task.await??)
    }
}

async fn write(mut connection: PgConnection, mut rows: mpsc::Receiver<Waiting>) -> sqlx::Result<()> {
    let mut position = 0;
    let mut batch = Vec::with_capacity(BATCH_ROWS_MAX);
    while rows.recv_many(&mut batch, BATCH_ROWS_MAX).await > 0 {
        bind_all(position, &batch).execute(&mut connection).await?;
        position += i64::try_from(batch.len()).unwrap_or_default();
        for (_, answer) in batch.drain(..) {
            // A caller whose time is up wants no answer.
            let _ = answer.send(());
        }
    }
    connection.close().await
}

fn bind_all(after: i64, rows: &[Waiting]) -> Query<'static, Postgres, PgArguments> {
    let positions: Vec<i64> = (after + 1..).take(rows.len()).collect();
    sqlx::query(INSERT_ALL)
        .bind(positions)
        .bind(column(rows, |row| row.stream.as_str()))
        .bind(column(rows, |row| row.version))
        .bind(column(rows, |row| row.kind.as_str()))
        .bind(column(rows, |row| row.schema))
        .bind(column(rows, |row| row.event_id))
        .bind(column(rows, |row| row.command_id))
        .bind(column(rows, |row| row.ordinal))
        .bind(column(rows, |row| row.tenant.as_str()))
        .bind(column(rows, |row| row.principal.as_str()))
        .bind(column(rows, |row| row.correlation_id.as_deref()))
        .bind(column(rows, |row| row.causation_id.as_deref()))
        .bind(column(rows, |row| row.traceparent.as_deref()))
        .bind(column(rows, |row| row.recorded_at))
        .bind(column(rows, |row| row.epoch))
        .bind(column(rows, |row| row.payload.as_str()))
        .bind(column(rows, |row| row.hash.as_slice()))
}

fn column<'a, T>(rows: &'a [Waiting], value: impl Fn(&'a Row) -> T) -> Vec<T> {
    rows.iter().map(|(row, _)| value(row)).collect()
}

/// Reads what a fold of `stream` needs, hands kind, schema and payload to `each`, and says how many there were.
pub(crate) async fn read_stream(
    pool: &PgPool,
    stream: &str,
    mut each: impl FnMut(&str, u16, &str) -> Result<()>,
) -> Result<u64> {
    let mut rows = sqlx::query(STREAM).bind(stream).fetch(pool);
    let mut version: i64 = 0;
    while let Some(row) = rows.try_next().await? {
        version = row.try_get(0)?;
        each(row.try_get(1)?, row.try_get::<i16, _>(2)?.cast_unsigned(), row.try_get(3)?)?;
    }
    Ok(version.cast_unsigned())
}

/// Hands every row of the log to `each`, with all its columns.
pub(crate) async fn read_log(pool: &PgPool, mut each: impl FnMut(Row)) -> Result<()> {
    let mut rows = sqlx::query(LOG).fetch(pool);
    while let Some(row) = rows.try_next().await? {
        each(typed(&row)?);
    }
    Ok(())
}

fn typed(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row {
        stream: row.try_get(1)?,
        version: row.try_get(2)?,
        kind: row.try_get(3)?,
        schema: row.try_get(4)?,
        event_id: row.try_get(5)?,
        command_id: row.try_get(6)?,
        ordinal: row.try_get(7)?,
        tenant: row.try_get(8)?,
        principal: row.try_get(9)?,
        correlation_id: row.try_get(10)?,
        causation_id: row.try_get(11)?,
        traceparent: row.try_get(12)?,
        recorded_at: row.try_get(13)?,
        epoch: row.try_get(14)?,
        payload: row.try_get(15)?,
        hash: row.try_get(16)?,
    })
}
