//! The one connection that writes.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::error::WriteError;
use super::read::head_of;
use super::rows::{Unreadable, insert_events, number, parsed, text, uuid};
use super::{OpenError, Options, connection, leases};
use crate::id::{CommandId, Digest, Position, StreamId, Version};
use crate::store::columns::signed;
use crate::store::intake::Claim;
use crate::store::judge::{Changes, Command, Known};
use crate::store::{Epoch, Head, Reservation};

/// Pages of 4 KiB that the write-ahead log may grow to before a commit copies them into the file.
const CHECKPOINT_PAGES: u32 = 4_000;

#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
}

impl Writer {
    /// Connects, and reads what is known before anything was looked up: head and epochs.
    pub(super) fn open(file: &Path, options: &Options) -> Result<(Self, Known), OpenError> {
        let (connection, known) = open(file, options).map_err(|error| OpenError::database(file, &error))?;
        let last = head(&connection, include_str!("sql/select_last_event.sql"));
        let last = last.map_err(|error| OpenError::database(file, &error))?;
        if known.head != last {
            let (head, last) = (known.head.position, last.position);
            return Err(OpenError::Damaged { file: file.into(), head, last });
        }
        let misplaced = connection.query_row(include_str!("sql/select_misplaced.sql"), [], |row| row.get(0));
        if let Some(found) = misplaced.optional().map_err(|error| OpenError::database(file, &error))? {
            return Err(OpenError::Misplaced { file: file.into(), found });
        }
        Ok((Self { connection }, known))
    }

    /// Makes `changes` durable, all or none.
    pub(super) fn write(&mut self, before: Head, changes: &Changes) -> Result<(), WriteError> {
        let tx = self.begin()?;
        insert(&tx, before, changes)?;
        tx.commit().map_err(|error| WriteError::at_commit(&error))
    }

    /// Gives a node shards that nobody holds.
    pub(super) fn claim(&mut self, claim: &Claim) -> Result<Vec<Epoch>, WriteError> {
        let tx = self.begin()?;
        let Claim { node, held, most, ttl, .. } = claim;
        let claimed = leases::claim(&tx, node, held, *most, *ttl)?;
        let raised = tx.execute(include_str!("sql/raise_fence.sql"), []);
        raised.map_err(|error| WriteError::before_commit(&error))?;
        tx.commit().map_err(|error| WriteError::at_commit(&error))?;
        Ok(claimed)
    }

    fn begin(&mut self) -> Result<Transaction<'_>, WriteError> {
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        begun.map_err(|error| WriteError::before_commit(&error))
    }

    /// The versions of `streams`; 0 for one that does not exist.
    pub(super) fn versions(
        &self,
        streams: &HashSet<&StreamId>,
    ) -> Result<HashMap<StreamId, Version>, Unreadable> {
        self.select(include_str!("sql/select_versions.sql"), streams, |row| {
            let version: Option<i64> = row.get(1)?;
            Ok((parsed(row, 0)?, version.map_or(Ok(Version(0)), |_| number(row, 1).map(Version))?))
        })
    }

    /// Those of `ids` that were appended.
    pub(super) fn commands(&self, ids: &[CommandId]) -> Result<HashMap<CommandId, Command>, Unreadable> {
        let ids: Vec<String> = ids.iter().map(|id| id.0.simple().to_string()).collect();
        self.select(include_str!("sql/select_commands.sql"), &ids, |row| {
            let command = Command {
                digest: row.get::<_, Option<[u8; 32]>>(3)?.map(Digest),
                position: Position(number(row, 1)?),
                version: Version(number(row, 2)?),
            };
            Ok((CommandId(uuid(row, 0)?), command))
        })
    }

    /// The holders of those of `names` that are taken.
    pub(super) fn holders(
        &self,
        names: &[&Reservation],
    ) -> Result<HashMap<Reservation, StreamId>, Unreadable> {
        let names: Vec<_> = names.iter().map(|name| [&*name.namespace, &*name.key]).collect();
        self.select(include_str!("sql/select_holders.sql"), &names, |row| {
            let name = Reservation { namespace: text(row, 0)?.into(), key: text(row, 1)?.into() };
            Ok((name, parsed(row, 2)?))
        })
    }

    fn select<T: FromIterator<R>, R>(
        &self,
        sql: &str,
        keys: &impl Serialize,
        mut read: impl FnMut(&Row<'_>) -> Result<R, Unreadable>,
    ) -> Result<T, Unreadable> {
        let keys = serde_json::to_string(keys).expect("keys are plain data");
        let mut select = self.connection.prepare_cached(sql)?;
        let rows = select.query_map([keys], |row| Ok(read(row)))?;
        rows.map(|row| row?).collect()
    }
}

fn open(file: &Path, options: &Options) -> Result<(Connection, Known), Unreadable> {
    let connection = connection::writing(file)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "max_page_count", options.file_pages_max)?;
    let mut known = Known::empty();
    known.head = head(&connection, include_str!("sql/select_head.sql"))?;
    let mut leases = connection.prepare(include_str!("sql/select_epochs.sql"))?;
    let mut rows = leases.query([])?;
    while let Some(row) = rows.next()? {
        known.epochs[usize::from(row.get::<_, u8>(0)?)] = number(row, 1)?;
    }
    drop(rows);
    drop(leases);
    Ok((connection, known))
}

fn head(connection: &Connection, sql: &str) -> Result<Head, Unreadable> {
    let found = connection.query_row(sql, [], |row| Ok(head_of(row))).optional()?;
    found.unwrap_or(Ok(Head::EMPTY))
}

fn insert(tx: &Transaction<'_>, before: Head, changes: &Changes) -> Result<(), WriteError> {
    let moved = try_insert(tx, before, changes).map_err(|error| WriteError::before_commit(&error))?;
    if moved == 1 {
        return Ok(());
    }
    let reason = format!("the log's head is no longer at {}", before.position);
    Err(WriteError::NotWritten(reason.into()))
}

/// Inserts everything, and says how many heads were moved: one, if it was where it should have been.
fn try_insert(tx: &Transaction<'_>, before: Head, changes: &Changes) -> rusqlite::Result<usize> {
    insert_events(tx, &changes.events)?;
    let mut command = tx.prepare_cached(include_str!("sql/insert_command.sql"))?;
    for (id, known) in &changes.commands {
        let Some(digest) = known.digest else { continue };
        command.execute(params![id.0.as_bytes(), digest.0])?;
    }
    let mut delete = tx.prepare_cached(include_str!("sql/delete_reservation.sql"))?;
    for name in &changes.freed {
        delete.execute(params![name.namespace, name.key])?;
    }
    let mut reserve = tx.prepare_cached(include_str!("sql/insert_reservation.sql"))?;
    for (name, holder) in &changes.names {
        let Some(stream) = holder else { continue };
        reserve.execute(params![name.namespace, name.key, stream.to_string()])?;
    }
    let mut head = tx.prepare_cached(include_str!("sql/move_head.sql"))?;
    let (position, hash) = (changes.head.position, changes.head.hash);
    head.execute(params![signed(before.position.0), signed(position.0), hash.0])
}
