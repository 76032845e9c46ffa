//! The raw limit: the log's table and nothing around it, written by one thread with group commit and read in one go.
//!
//! It judges nothing, hashes nothing, and keeps no head: what it does is what any store of these rows must do.

use std::path::Path;
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use crate::Result;

/// The columns and indexes of the log.
const SCHEMA: &str = include_str!("../../migrations/sqlite/0001_log.sql");
/// Rows that wait for the writer.
const INTAKE_ROWS_MAX: usize = 8_192;
/// Rows that become durable in one commit.
const BATCH_ROWS_MAX: usize = 512;
/// Pages of 4 KiB in the write-ahead log before they are copied into the file; as in the platform's store.
const CHECKPOINT_PAGES: u32 = 4_000;

const INSERT: &str = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const STREAM: &str = "SELECT version, kind, schema, payload FROM events WHERE stream = ? ORDER BY version";
const LOG: &str = "SELECT * FROM events ORDER BY position";

/// A row as its writer has it; the log gives it its position.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) stream: String,
    pub(crate) version: i64,
    pub(crate) kind: String,
    pub(crate) schema: i64,
    pub(crate) event_id: Vec<u8>,
    pub(crate) command_id: Vec<u8>,
    pub(crate) ordinal: i64,
    pub(crate) tenant: String,
    pub(crate) principal: String,
    pub(crate) correlation_id: Option<String>,
    pub(crate) causation_id: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) recorded_at: i64,
    pub(crate) epoch: i64,
    pub(crate) payload: String,
    pub(crate) hash: Vec<u8>,
}

type Waiting = (Row, oneshot::Sender<()>);

/// The one thread that writes.
pub(crate) struct Writer {
    intake: mpsc::Sender<Waiting>,
    thread: JoinHandle<rusqlite::Result<()>>,
}

impl Writer {
    /// Starts it over a new file.
    pub(crate) fn start(file: &Path) -> Result<Self> {
        let connection = open(file)?;
        connection.execute_batch(SCHEMA)?;
        let (intake, rows) = mpsc::channel(INTAKE_ROWS_MAX);
        Ok(Self { intake, thread: thread::spawn(move || write(&connection, rows)) })
    }

    /// Where rows are handed in.
    pub(crate) fn intake(&self) -> mpsc::Sender<Waiting> {
        self.intake.clone()
    }

    /// Waits for what was handed in.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.intake);
        self.thread.join().map_err(|_| "the bare writer panicked")??;
        Ok(())
    }
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
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
        row.event_id,
        row.command_id,
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
    file: &Path,
    stream: &str,
    mut each: impl FnMut(&str, u16, &str) -> Result<()>,
) -> Result<u64> {
    let connection = open(file)?;
    let mut select = connection.prepare(STREAM)?;
    let mut rows = select.query([stream])?;
    let mut version: i64 = 0;
    while let Some(row) = rows.next()? {
        version = row.get(0)?;
        each(row.get_ref(1)?.as_str()?, row.get(2)?, row.get_ref(3)?.as_str()?)?;
    }
    Ok(version.cast_unsigned())
}

/// Reads every column of every row of the log, and says how many rows there were.
pub(crate) fn read_log(file: &Path) -> Result<u64> {
    let connection = open(file)?;
    let mut select = connection.prepare(LOG)?;
    let mut rows = select.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        std::hint::black_box(typed(row)?);
        count += 1;
    }
    Ok(count)
}

fn typed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        stream: row.get(1)?,
        version: row.get(2)?,
        kind: row.get(3)?,
        schema: row.get(4)?,
        event_id: row.get(5)?,
        command_id: row.get(6)?,
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
