//! A data directory as one end of a copy. The directory's lock keeps platforms away from it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::read::{head_of, unavailable};
use super::rows::{Unreadable, digest, insert_events, number, parsed, text, uuid};
use super::{DirectoryLock, LOG_FILE, OpenError, Options, ReadOnly, connection, schema, unblocked};
use crate::artifact::{ArtifactStore, Files};
use crate::event::Recorded;
use crate::id::{CommandId, Digest, StreamId};
use crate::store::columns::signed;
use crate::store::copy::{self, CopyError, Place, Rest};
use crate::store::{EventStore, Head, ReadError, Reservation};

/// The log of a data directory that is copied from or to.
pub(in crate::store) struct Side {
    place: Place,
    log: ReadOnly,
    artifacts: Files,
    /// `None` in a source, and after a failure.
    writer: Mutex<Option<Connection>>,
    _lock: DirectoryLock,
}

impl Side {
    /// The directory's log, to be read.
    pub(in crate::store) async fn source(directory: &Path) -> Result<Self, CopyError> {
        let lock = DirectoryLock::take(directory)?;
        Self::open(directory, lock, None).await
    }

    /// The directory's log, or an empty one, to be written to.
    pub(in crate::store) async fn target(directory: &Path) -> Result<Self, CopyError> {
        let lock = DirectoryLock::take(directory)?;
        let file = directory.join(LOG_FILE);
        let writer = unblocked(move || {
            schema::prepare(&file, schema::IfOlder::Refuse)?;
            connection::writing(&file).map_err(|error| OpenError::database(&file, &error))
        });
        let writer = writer.await?;
        Self::open(directory, lock, Some(writer)).await
    }

    async fn open(
        directory: &Path,
        lock: DirectoryLock,
        writer: Option<Connection>,
    ) -> Result<Self, CopyError> {
        let log = ReadOnly::open(directory, &Options::default()).await?;
        let artifacts = Files::open(directory.join("artifacts")).await?;
        let place = Place::Directory(directory.to_owned());
        Ok(Self { place, log, artifacts, writer: Mutex::new(writer), _lock: lock })
    }

    /// Has `write` write in one transaction, on a thread that may wait for the disk.
    async fn write(
        &mut self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), CopyError> {
        let target = self.place.clone();
        let failed = |reason: &dyn ToString| CopyError::Write { target, reason: reason.to_string().into() };
        let kept = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(mut writer) = kept.take() else { return Err(failed(&"it was opened to be read")) };
        let written = tokio::task::spawn_blocking(move || {
            let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            write(&tx)?;
            tx.commit()?;
            Ok::<_, rusqlite::Error>(writer)
        });
        match written.await {
            Ok(Ok(writer)) => *kept = Some(writer),
            Ok(Err(error)) => return Err(failed(&error)),
            Err(error) => return Err(failed(&error)),
        }
        Ok(())
    }
}

#[async_trait]
impl copy::Side for Side {
    fn log(&self) -> &dyn EventStore {
        &self.log
    }

    fn artifacts(&self) -> &dyn ArtifactStore {
        &self.artifacts
    }

    async fn last(&self) -> Result<Head, ReadError> {
        let last = |connection: &Connection| {
            let sql = include_str!("sql/select_last_event.sql");
            connection.query_row(sql, [], |row| Ok(head_of(row))).optional()?.unwrap_or(Ok(Head::EMPTY))
        };
        self.log.readers.read(move |connection| last(connection).map_err(|error| unavailable(&error))).await
    }

    async fn digests(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<(CommandId, Digest)>, ReadError> {
        let read = move |connection: &Connection| {
            let mut select = connection.prepare_cached(include_str!("sql/read_commands.sql"))?;
            let after = after.map(|after| *after.0.as_bytes());
            let rows = select.query_map(params![after, signed(limit as u64)], |row| {
                let pair = uuid(row, 0).and_then(|id| Ok((CommandId(id), digest(row, 1)?)));
                Ok(pair)
            })?;
            rows.map(|row| row?).collect::<Result<_, Unreadable>>()
        };
        self.log.readers.read(move |connection| read(connection).map_err(|error| unavailable(&error))).await
    }

    async fn names(
        &self,
        after: Option<Reservation>,
        limit: usize,
    ) -> Result<Vec<(Reservation, StreamId)>, ReadError> {
        let read = move |connection: &Connection| names(connection, after.as_ref(), limit);
        self.log.readers.read(move |connection| read(connection).map_err(|error| unavailable(&error))).await
    }

    async fn set_aside(&mut self, names: Vec<(Reservation, StreamId)>) -> Result<(), CopyError> {
        let insert = move |tx: &Transaction<'_>| {
            tx.execute(include_str!("sql/make_names_aside.sql"), [])?;
            let mut insert = tx.prepare_cached(include_str!("sql/set_name_aside.sql"))?;
            names.iter().try_for_each(|(name, stream)| {
                insert.execute(params![name.namespace, name.key, stream.to_string()]).map(drop)
            })
        };
        self.write(insert).await
    }

    async fn rest(&self) -> Result<Rest, ReadError> {
        self.log.readers.read(|connection| rest(connection).map_err(|error| unavailable(&error))).await
    }

    async fn insert_events(&mut self, events: Vec<Recorded>) -> Result<(), CopyError> {
        self.write(move |tx| insert_events(tx, &events)).await
    }

    async fn insert_digests(&mut self, digests: Vec<(CommandId, Digest)>) -> Result<(), CopyError> {
        let insert = move |tx: &Transaction<'_>| {
            let mut insert = tx.prepare_cached(include_str!("sql/carry_command.sql"))?;
            digests
                .iter()
                .try_for_each(|(id, digest)| insert.execute(params![id.0.as_bytes(), digest.0]).map(drop))
        };
        self.write(insert).await
    }

    async fn finish(&mut self, head: Head, rest: Rest) -> Result<(), CopyError> {
        let before = self.log.head().await?;
        self.write(move |tx| finish(tx, before, head, &rest)).await
    }
}

fn rest(connection: &Connection) -> Result<Rest, Unreadable> {
    let fence = connection.query_row(include_str!("sql/select_fence.sql"), [], |row| row.get(0))?;
    let mut epochs = vec![0; 256];
    let mut select = connection.prepare_cached(include_str!("sql/select_epochs.sql"))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        epochs[usize::from(row.get::<_, u8>(0)?)] = number(row, 1)?;
    }
    Ok(Rest { fence, epochs })
}

fn names(
    connection: &Connection,
    after: Option<&Reservation>,
    limit: usize,
) -> Result<Vec<(Reservation, StreamId)>, Unreadable> {
    let mut select = connection.prepare_cached(include_str!("sql/read_reservations.sql"))?;
    let (namespace, key) = after.map_or(("", ""), |after| (&*after.namespace, &*after.key));
    let rows = select.query_map(params![namespace, key, signed(limit as u64)], |row| {
        let name = || {
            let name = Reservation { namespace: text(row, 0)?.into(), key: text(row, 1)?.into() };
            Ok((name, parsed(row, 2)?))
        };
        Ok(name())
    })?;
    rows.map(|row| row?).collect()
}

fn finish(tx: &Transaction<'_>, before: Head, head: Head, rest: &Rest) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM reservations", [])?;
    tx.execute(include_str!("sql/make_names_aside.sql"), [])?;
    tx.execute(include_str!("sql/take_names.sql"), [])?;
    tx.execute("DROP TABLE temp.names_aside", [])?;
    let mut raise = tx.prepare_cached(include_str!("sql/carry_epoch.sql"))?;
    for (shard, epoch) in (0..=u8::MAX).zip(&rest.epochs) {
        raise.execute(params![shard, signed(*epoch)])?;
    }
    let carried = params![signed(before.position.0), signed(head.position.0), head.hash.0, rest.fence];
    tx.execute(include_str!("sql/carry_head.sql"), carried)?;
    Ok(())
}
