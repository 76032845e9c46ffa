//! Reads: the connections that only read, and what is asked of them.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Params, params};
use tokio::sync::Semaphore;

use super::rows::{self, Unreadable, digest, event, number};
use super::{OpenError, Options, READ_EVENTS_MAX, connection, schema};
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};
use crate::store::columns::{signed, unsigned};
use crate::store::{Appended, Head, ReadError, Reservation};

/// The connections that read: one from the start, so that the file stays open whatever becomes of the writer, and
/// others when they are needed.
pub(super) struct Readers {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
    places_max: u32,
    wait: Duration,
}

impl Readers {
    /// Opens `file`, if it has this program's schema.
    pub(super) fn open(file: PathBuf, options: &Options) -> Result<Self, OpenError> {
        let first = connection::reading(&file).map_err(|error| OpenError::database(&file, &error))?;
        schema::inspect(&file, &first)?;
        Ok(Self {
            file,
            idle: Mutex::new(vec![first]),
            places: Arc::new(Semaphore::new(options.read_connections_max as usize)),
            places_max: options.read_connections_max,
            wait: Duration::from_millis(options.read_wait_ms),
        })
    }

    /// Has `read` read over a connection of its own, on a thread that may wait for the disk.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let place = tokio::time::timeout(self.wait, Arc::clone(&self.places).acquire_owned());
        let place = place.await.map_err(|_| unavailable("all connections are busy"))?;
        let place = place.map_err(|_| unavailable("the log is closed"))?;
        let readers = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let kept = readers.idle().pop();
            let connection = match kept {
                Some(connection) => connection,
                None => connection::reading(&readers.file).map_err(|error| unavailable(&error))?,
            };
            let found = read(&connection);
            readers.idle().push(connection);
            drop(place);
            found
        });
        reading.await.unwrap_or_else(|error| Err(unavailable(&error)))
    }

    pub(super) async fn command(self: &Arc<Self>, id: CommandId) -> Result<Option<Appended>, ReadError> {
        self.read(move |connection| command(connection, id)).await
    }

    pub(super) async fn log(self: &Arc<Self>, above: i64, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.read(move |connection| log(connection, above, limit.min(READ_EVENTS_MAX))).await
    }

    pub(super) async fn stream(
        self: &Arc<Self>,
        id: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let id = id.clone();
        self.read(move |connection| stream(connection, &id, after, limit.min(READ_EVENTS_MAX))).await
    }

    pub(super) async fn holder(self: &Arc<Self>, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        let name = name.clone();
        self.read(move |connection| holder(connection, &name)).await
    }

    pub(super) async fn head(self: &Arc<Self>) -> Result<Head, ReadError> {
        self.read(head).await
    }

    /// Whether it has been closed.
    pub(super) fn is_closed(&self) -> bool {
        self.places.is_closed()
    }

    /// Waits for the reads that are under way, refuses others, and closes the connections.
    pub(super) async fn close(&self) {
        // It can only be closed already.
        let _all = self.places.acquire_many(self.places_max).await;
        self.places.close();
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("file", &self.file).finish_non_exhaustive()
    }
}

fn log(connection: &Connection, above: i64, limit: usize) -> Result<Vec<Recorded>, ReadError> {
    let before = Position(unsigned(above));
    events(connection, include_str!("sql/read_log.sql"), params![above, signed(limit as u64)], before)
}

fn stream(
    connection: &Connection,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<Recorded>, ReadError> {
    let sql = include_str!("sql/read_stream.sql");
    events(connection, sql, params![stream.to_string(), signed(after.0), signed(limit as u64)], Position(0))
}

/// The events that `sql` gives; the first of them comes after `before`.
fn events(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    before: Position,
) -> Result<Vec<Recorded>, ReadError> {
    let mut select = connection.prepare_cached(sql).map_err(|error| unavailable(&error))?;
    let mut rows = select.query(params).map_err(|error| unavailable(&error))?;
    let mut events: Vec<Recorded> = Vec::new();
    while let Some(row) = rows.next().map_err(|error| unavailable(&error))? {
        let found = event(row, events.last()).map_err(|error| ReadError::Damaged {
            position: row.get(0).map_or_else(
                |_| events.last().map_or(before, |last| last.position).next(),
                |position| Position(unsigned(position)),
            ),
            reason: error.to_string().into(),
        })?;
        events.push(found);
    }
    Ok(events)
}

fn command(connection: &Connection, id: CommandId) -> Result<Option<Appended>, ReadError> {
    let outcome =
        |row: &rusqlite::Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?));
    let sql = include_str!("sql/find_command.sql");
    let mut select = connection.prepare_cached(sql).map_err(|error| unavailable(&error))?;
    let found = select.query_row([id.0.as_bytes()], outcome).map_err(|error| unavailable(&error))?;
    let (Some(position), Some(version)) = found else { return Ok(None) };
    let (position, version) = (Position(unsigned(position)), Version(unsigned(version)));
    Ok(Some(Appended { position, version, repeated: true }))
}

fn holder(connection: &Connection, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
    let sql = include_str!("sql/find_reservation.sql");
    let mut select = connection.prepare_cached(sql).map_err(|error| unavailable(&error))?;
    let found = select.query_row([&name.namespace, &name.key], |row| Ok(rows::parsed(row, 0)));
    let found = found.optional().map_err(|error| unavailable(&error))?;
    found.transpose().map_err(|error| unavailable(&error))
}

fn head(connection: &Connection) -> Result<Head, ReadError> {
    let sql = include_str!("sql/select_head.sql");
    let found = connection.query_row(sql, [], |row| Ok(head_of(row))).map_err(|error| unavailable(&error))?;
    found.map_err(|error| unavailable(&error))
}

/// The head in a row of its position and its hash.
pub(super) fn head_of(row: &rusqlite::Row<'_>) -> Result<Head, Unreadable> {
    Ok(Head { position: Position(number(row, 0)?), hash: digest(row, 1)? })
}

pub(super) fn unavailable(reason: &(impl ToString + ?Sized)) -> ReadError {
    ReadError::Unavailable { reason: reason.to_string().into() }
}
