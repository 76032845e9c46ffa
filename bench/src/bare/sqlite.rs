//! Files: one thread writes, with prepared statements.

use std::path::Path;
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, params};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{BATCH_ROWS_MAX, Group, INTAKE_ROWS_MAX, Row, Waiting};
use crate::Result;

/// The columns and indexes of the log.
const SCHEMA: &str = include_str!("../../../migrations/sqlite/0001_log.sql");
/// Pages of 4 KiB in the write-ahead log before they are copied into the file; as in the platform's store.
const CHECKPOINT_PAGES: u32 = 4_000;

const INSERT: &str = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const STREAM: &str = "SELECT version, kind, schema, payload FROM events WHERE stream = ? ORDER BY version";
const LOG: &str = "SELECT * FROM events ORDER BY position";

/// The one thread that writes.
pub(crate) struct Writer {
    group: Group,
    thread: JoinHandle<rusqlite::Result<()>>,
}

impl Writer {
    /// Starts it over a new file.
    pub(crate) fn start(file: &Path) -> Result<Self> {
        let connection = open(file)?;
        connection.execute_batch(SCHEMA)?;
        let (intake, rows) = mpsc::channel(INTAKE_ROWS_MAX);
        Ok(Self { group: Group(intake), thread: thread::spawn(move || write(&connection, rows)) })
    }

    /// Where rows are handed in.
    pub(crate) fn group(&self) -> Group {
        self.group.clone()
    }

    /// Waits for what was handed in.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.group);
        self.thread.join().map_err(|_| "the bare writer panicked")??;
        Ok(())
    }
}

/// Opens the log's file.
pub(crate) fn open(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    Ok(connection)
}

fn write(connection: &Connection, mut rows: mpsc::Receiver<Waiting>) -> rusqlite::Result<()> {
    let mut insert = connection.prepare(INSERT)?;
    let mut position = 0;
    let mut batch = Vec::with_capacity(BATCH_ROWS_MAX);
    while rows.blocking_recv_many(&mut batch, BATCH_ROWS_MAX) > 0 {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for (row, _) in &batch {
            position += 1;
            execute(&mut insert, position, row)?;
        }
        connection.execute_batch("COMMIT")?;
        for (_, answer) in batch.drain(..) {
            // A caller whose time is up wants no answer.
            let _ = answer.send(());
        }
    }
    Ok(())
}

fn execute(insert: &mut rusqlite::Statement<'_>, position: i64, row: &Row) -> rusqlite::Result<()> {
    insert.execute(params![
        position,
        row.stream,
        row.version,
        row.kind,
        row.schema,
        row.event_id.as_bytes(),
        row.command_id.as_bytes(),
        row.ordinal,
        row.tenant,
        row.principal,
        row.correlation_id,
        row.causation_id,
        row.traceparent,
        row.recorded_at,
        row.epoch,
        row.payload,
        row.hash,
    ])?;
    Ok(())
}

/// Reads what a fold of `stream` needs, hands kind, schema and payload to `each`, and says how many there were.
pub(crate) fn read_stream(
    connection: &Connection,
    stream: &str,
    mut each: impl FnMut(&str, u16, &str) -> Result<()>,
) -> Result<u64> {
    let mut select = connection.prepare_cached(STREAM)?;
    let mut rows = select.query([stream])?;
    let mut version: i64 = 0;
    while let Some(row) = rows.next()? {
        version = row.get(0)?;
        each(row.get_ref(1)?.as_str()?, row.get(2)?, row.get_ref(3)?.as_str()?)?;
    }
    Ok(version.cast_unsigned())
}

/// Hands every row of the log to `each`, with all its columns.
pub(crate) fn read_log(connection: &Connection, mut each: impl FnMut(Row)) -> Result<()> {
    let mut select = connection.prepare_cached(LOG)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        each(typed(row)?);
    }
    Ok(())
}

fn uuid(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get(column).map(Uuid::from_bytes)
}

fn typed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        stream: row.get(1)?,
        version: row.get(2)?,
        kind: row.get(3)?,
        schema: row.get(4)?,
        event_id: uuid(row, 5)?,
        command_id: uuid(row, 6)?,
        ordinal: row.get(7)?,
        tenant: row.get(8)?,
        principal: row.get(9)?,
        correlation_id: row.get(10)?,
        causation_id: row.get(11)?,
        traceparent: row.get(12)?,
        recorded_at: row.get(13)?,
        epoch: row.get(14)?,
        payload: row.get(15)?,
        hash: row.get(16)?,
    })
}
