//! The one connection that writes.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Row as _};

use super::error::WriteError;
use super::rows::{bytes, insert_events, uuid};
use super::{OpenError, Options};
use crate::id::{CommandId, Position, StreamId, Version};
use crate::store::columns::{digest, parse_stream, signed, unsigned};
use crate::store::judge::{Changes, Command, Known};
use crate::store::{Epoch, Head, Reservation};

/// Pages of 4 KiB that the write-ahead log may grow to before a commit copies them into the file.
const CHECKPOINT_PAGES: u32 = 4_000;

#[derive(Debug)]
pub(super) struct Writer {
    connection: SqliteConnection,
}

impl Writer {
    /// Connects, and reads what is known before anything was looked up: head and epochs.
    pub(super) async fn open(file: &Path, options: &Options) -> Result<(Self, Known), OpenError> {
        let settings = super::connection(file)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
            .pragma("max_page_count", options.file_pages_max.to_string());
        let failed = |error: sqlx::Error| OpenError::database(file, &error);
        let mut connection = SqliteConnection::connect_with(&settings).await.map_err(failed)?;
        let mut known = Known::empty();
        known.head = head(&mut connection, include_str!("sql/select_head.sql")).await.map_err(failed)?;
        let last = head(&mut connection, include_str!("sql/select_last_event.sql")).await.map_err(failed)?;
        if known.head != last {
            let (head, last) = (known.head.position, last.position);
            return Err(OpenError::Damaged { file: file.into(), head, last });
        }
        let leases = sqlx::query(include_str!("sql/select_epochs.sql"));
        for row in leases.fetch_all(&mut connection).await.map_err(failed)? {
            let shard = usize::from(row.try_get::<u8, _>(0).map_err(failed)?);
            known.epochs[shard] = unsigned(row.try_get(1).map_err(failed)?);
        }
        Ok((Self { connection }, known))
    }

    /// Makes `changes` durable, all or none.
    pub(super) async fn write(&mut self, before: Head, changes: &Changes) -> Result<(), WriteError> {
        let mut tx = self
            .connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(|error| WriteError::before_commit(&error))?;
        insert(&mut tx, before, changes).await.map_err(|error| WriteError::before_commit(&error))?;
        tx.commit().await.map_err(|error| WriteError::at_commit(&error))
    }

    /// Raises a shard's epoch.
    pub(super) async fn take_shard(&mut self, shard: u8, holder: &str) -> Result<Epoch, WriteError> {
        let before = |error: sqlx::Error| WriteError::before_commit(&error);
        let mut tx = self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(before)?;
        let row = sqlx::query(include_str!("sql/take_shard.sql"))
            .bind(i64::from(shard))
            .bind(holder.to_owned())
            .fetch_one(&mut *tx)
            .await
            .map_err(before)?;
        let epoch = unsigned(row.try_get(0).map_err(before)?);
        sqlx::query(include_str!("sql/raise_fence.sql")).execute(&mut *tx).await.map_err(before)?;
        tx.commit().await.map_err(|error| WriteError::at_commit(&error))?;
        Ok(Epoch { shard, epoch })
    }

    /// The versions of `streams`; 0 for one that does not exist.
    pub(super) async fn versions(
        &mut self,
        streams: &HashSet<&StreamId>,
    ) -> Result<HashMap<StreamId, Version>, sqlx::Error> {
        let mut versions = HashMap::with_capacity(streams.len());
        for row in self.select(include_str!("sql/select_versions.sql"), streams).await? {
            let version = row.try_get::<Option<i64>, _>(1)?.map(unsigned).unwrap_or_default();
            versions.insert(parse_stream(row.try_get(0)?)?, Version(version));
        }
        Ok(versions)
    }

    /// Those of `ids` that were appended.
    pub(super) async fn commands(
        &mut self,
        ids: &[CommandId],
    ) -> Result<HashMap<CommandId, Command>, sqlx::Error> {
        let ids: Vec<String> = ids.iter().map(|id| id.0.simple().to_string()).collect();
        let mut commands = HashMap::new();
        for row in self.select(include_str!("sql/select_commands.sql"), &ids).await? {
            let command = Command {
                digest: row.try_get::<Option<&[u8]>, _>(3)?.map(digest).transpose()?,
                position: Position(unsigned(row.try_get(1)?)),
                version: Version(unsigned(row.try_get(2)?)),
            };
            commands.insert(CommandId(uuid(row.try_get(0)?)?), command);
        }
        Ok(commands)
    }

    /// The holders of those of `names` that are taken.
    pub(super) async fn holders(
        &mut self,
        names: &[&Reservation],
    ) -> Result<HashMap<Reservation, StreamId>, sqlx::Error> {
        let names: Vec<_> = names.iter().map(|name| [&*name.namespace, &*name.key]).collect();
        let mut holders = HashMap::new();
        for row in self.select(include_str!("sql/select_holders.sql"), &names).await? {
            let namespace = row.try_get::<&str, _>(0)?.into();
            let key = row.try_get::<&str, _>(1)?.into();
            holders.insert(Reservation { namespace, key }, parse_stream(row.try_get(2)?)?);
        }
        Ok(holders)
    }

    async fn select(
        &mut self,
        sql: &'static str,
        keys: &impl Serialize,
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>, sqlx::Error> {
        let keys = serde_json::to_string(keys).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query(sql).bind(keys).fetch_all(&mut self.connection).await
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    before: Head,
    changes: &Changes,
) -> Result<(), sqlx::Error> {
    insert_events(connection, &changes.events).await?;
    for (id, command) in &changes.commands {
        let Some(digest) = command.digest else { continue };
        let insert = sqlx::query(include_str!("sql/insert_command.sql"));
        insert.bind(bytes(id.0)).bind(digest.0.to_vec()).execute(&mut *connection).await?;
    }
    for name in &changes.freed {
        let delete = sqlx::query(include_str!("sql/delete_reservation.sql"));
        delete.bind(name.namespace.clone()).bind(name.key.clone()).execute(&mut *connection).await?;
    }
    for (name, holder) in &changes.names {
        let Some(stream) = holder else { continue };
        let insert = sqlx::query(include_str!("sql/insert_reservation.sql"));
        let insert = insert.bind(name.namespace.clone()).bind(name.key.clone());
        insert.bind(stream.to_string()).execute(&mut *connection).await?;
    }
    let moved = sqlx::query(include_str!("sql/move_head.sql"))
        .bind(signed(before.position.0))
        .bind(signed(changes.head.position.0))
        .bind(changes.head.hash.0.to_vec())
        .execute(connection)
        .await?;
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    Err(sqlx::Error::Protocol(format!("the log's head is no longer at {}", before.position)))
}

async fn head(connection: &mut SqliteConnection, sql: &'static str) -> Result<Head, sqlx::Error> {
    let Some(row) = sqlx::query(sql).fetch_optional(connection).await? else { return Ok(Head::EMPTY) };
    Ok(Head { position: Position(unsigned(row.try_get(0)?)), hash: digest(row.try_get(1)?)? })
}
