//! The one connection that writes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Executor, Postgres, Row as _, Transaction};
use uuid::Uuid;

use super::answer::within;
use super::error::WriteError;
use super::read::head_of;
use super::{Database, OpenError, Options, leases, rows};
use crate::id::{CommandId, KeyId, Position, StreamId, Version};
use crate::store::columns::{digest, parse_stream, signed, unsigned};
use crate::store::intake::Claim;
use crate::store::judge::{Changes, Command, Known};
use crate::store::{Epoch, Head, Reservation};

#[derive(Debug)]
pub(super) struct Writer {
    connection: PgConnection,
    /// The head's fence as this appender last saw it.
    fence: i64,
    answer: Duration,
}

/// What a new connection found.
struct Opened {
    writer: Writer,
    known: Known,
    last: Head,
    /// The position of an event that stands before the first.
    misplaced: Option<i64>,
}

impl Writer {
    /// Connects, raises the fence, and reads what is known before anything was looked up: head and epochs.
    /// After that, no statement of an earlier connection of this appender can still succeed.
    pub(super) async fn open(database: &Database, options: &Options) -> Result<(Self, Known), OpenError> {
        let answer = Duration::from_millis(options.answer_ms);
        let opened = tokio::time::timeout(answer, Self::connect(database, options)).await;
        let opened = opened.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        let Opened { writer, known, last, misplaced } =
            opened.map_err(|error| OpenError::unreachable(database, &error))?;
        if known.head != last {
            let (head, last) = (known.head.position, last.position);
            return Err(OpenError::Damaged { database: database.clone(), head, last });
        }
        if let Some(found) = misplaced {
            return Err(OpenError::Misplaced { database: database.clone(), found });
        }
        Ok((writer, known))
    }

    async fn connect(database: &Database, options: &Options) -> Result<Opened, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&database.settings(options.statement_ms)).await?;
        make_durable(&mut connection).await?;
        let mut tx = connection.begin().await?;
        let row = sqlx::query(include_str!("sql/raise_fence.sql")).fetch_one(&mut *tx).await?;
        let mut known = Known::empty();
        known.head = head_of(&row)?;
        let fence = row.try_get(2)?;
        let last = sqlx::query(include_str!("sql/select_last_event.sql")).fetch_optional(&mut *tx).await?;
        let last = last.as_ref().map_or(Ok(Head::EMPTY), head_of)?;
        let misplaced = include_str!("sql/select_misplaced.sql");
        let misplaced = sqlx::query_scalar(misplaced).fetch_optional(&mut *tx).await?;
        known.epochs = epochs(&mut *tx).await?;
        tx.commit().await?;
        let writer = Self { connection, fence, answer: Duration::from_millis(options.answer_ms) };
        Ok(Opened { writer, known, last, misplaced })
    }

    /// Makes `changes` durable if the head is still at `before`; one statement.
    pub(super) async fn append(&mut self, before: Head, changes: &Changes) -> Result<bool, WriteError> {
        let append = append(&mut self.connection, before, self.fence, changes);
        within(self.answer, append).await.map_err(|error| WriteError::at_commit(&error))
    }

    /// The versions of `streams`; 0 for one that does not exist.
    pub(super) async fn versions(
        &mut self,
        streams: &HashSet<&StreamId>,
    ) -> Result<HashMap<StreamId, Version>, WriteError> {
        let versions = within(self.answer, versions(&mut self.connection, streams)).await;
        versions.map_err(|error| WriteError::before_commit(&error))
    }

    /// Begins a transaction in which nobody else can move the head.
    pub(super) async fn lock(&mut self) -> Result<Locked<'_>, WriteError> {
        let locked = async {
            let mut tx = self.connection.begin().await?;
            let row = sqlx::query(include_str!("sql/lock_head.sql")).fetch_one(&mut *tx).await?;
            let (head, fence): (_, i64) = (head_of(&row)?, row.try_get(2)?);
            let epochs = if fence == self.fence { None } else { Some(epochs(&mut *tx).await?) };
            self.fence = fence;
            Ok(Locked { tx, head, fence, epochs, answer: self.answer })
        };
        within(self.answer, locked).await.map_err(|error| WriteError::before_commit(&error))
    }

    /// Gives a node shards that nobody holds, and gives all epochs as they are then.
    pub(super) async fn claim(&mut self, claim: &Claim) -> Result<(Vec<Epoch>, [u64; 256]), WriteError> {
        let claimed = async {
            let mut tx = self.connection.begin().await?;
            let row = sqlx::query(include_str!("sql/raise_fence.sql")).fetch_one(&mut *tx).await?;
            let fence = row.try_get(2)?;
            let Claim { node, held, most, ttl, .. } = claim;
            let claimed = leases::claim(&mut tx, node, held, *most, *ttl).await?;
            let epochs = epochs(&mut *tx).await?;
            Ok((tx, fence, claimed, epochs))
        };
        let claimed = within(self.answer, claimed).await;
        let (tx, fence, claimed, epochs) = claimed.map_err(|error| WriteError::before_commit(&error))?;
        within(self.answer, tx.commit()).await.map_err(|error| WriteError::at_commit(&error))?;
        self.fence = fence;
        Ok((claimed, epochs))
    }
}

/// A transaction that holds the head.
pub(super) struct Locked<'a> {
    tx: Transaction<'a, Postgres>,
    pub(super) head: Head,
    /// The epochs, where the fence is another than the appender knew.
    pub(super) epochs: Option<[u64; 256]>,
    fence: i64,
    answer: Duration,
}

impl Locked<'_> {
    pub(super) async fn versions(
        &mut self,
        streams: &HashSet<&StreamId>,
    ) -> Result<HashMap<StreamId, Version>, WriteError> {
        let versions = within(self.answer, versions(&mut *self.tx, streams)).await;
        versions.map_err(|error| WriteError::before_commit(&error))
    }

    /// Those of `ids` that were appended.
    pub(super) async fn commands(&mut self, ids: &[Uuid]) -> Result<HashMap<CommandId, Command>, WriteError> {
        let query = sqlx::query(include_str!("sql/select_commands.sql")).bind(ids);
        let rows = within(self.answer, query.fetch_all(&mut *self.tx)).await;
        let command = |row: PgRow| {
            let command = Command {
                digest: row.try_get::<Option<&[u8]>, _>(3)?.map(digest).transpose()?,
                position: Position(unsigned(row.try_get(1)?)),
                version: Version(unsigned(row.try_get(2)?)),
            };
            Ok((CommandId(row.try_get(0)?), command))
        };
        let commands = rows.and_then(|rows| rows.into_iter().map(command).collect());
        commands.map_err(|error| WriteError::before_commit(&error))
    }

    /// The holders of those of `names` that are taken.
    pub(super) async fn holders(
        &mut self,
        names: &[&Reservation],
    ) -> Result<HashMap<Reservation, StreamId>, WriteError> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let query = sqlx::query(include_str!("sql/select_holders.sql"));
        let query = query.bind(namespaces(names)).bind(keys(names));
        let rows = within(self.answer, query.fetch_all(&mut *self.tx)).await;
        let holder = |row: PgRow| {
            let namespace = row.try_get::<&str, _>(0)?.into();
            let key = row.try_get::<&str, _>(1)?.into();
            Ok((Reservation { namespace, key }, parse_stream(row.try_get(2)?)?))
        };
        let holders = rows.and_then(|rows| rows.into_iter().map(holder).collect());
        holders.map_err(|error| WriteError::before_commit(&error))
    }

    /// Those of `keys` that may still seal.
    pub(super) async fn usable(&mut self, keys: &[&KeyId]) -> Result<Vec<KeyId>, WriteError> {
        let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        let query = sqlx::query_scalar(include_str!("sql/select_usable_keys.sql")).bind(keys);
        let found: Result<Vec<String>, _> = within(self.answer, query.fetch_all(&mut *self.tx)).await;
        let parse = |id: String| id.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)));
        let usable = found.and_then(|found| found.into_iter().map(parse).collect());
        usable.map_err(|error| WriteError::before_commit(&error))
    }

    /// Makes `changes` durable, all or none, and lets go of the head.
    pub(super) async fn finish(mut self, changes: &Changes) -> Result<(), WriteError> {
        let write = async {
            if !changes.freed.is_empty() {
                let freed: Vec<_> = changes.freed.iter().collect();
                let delete = sqlx::query(include_str!("sql/delete_reservations.sql"));
                delete.bind(namespaces(&freed)).bind(keys(&freed)).execute(&mut *self.tx).await?;
            }
            if !changes.events.is_empty() && !append(&mut *self.tx, self.head, self.fence, changes).await? {
                return Err(sqlx::Error::Protocol("the head moved while it was locked".into()));
            }
            Ok(())
        };
        within(self.answer, write).await.map_err(|error| WriteError::before_commit(&error))?;
        within(self.answer, self.tx.commit()).await.map_err(|error| WriteError::at_commit(&error))
    }
}

/// Commits that are answered are durable (ES-3), whatever the server's own setting; a stronger one is kept.
pub(super) async fn make_durable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
                           WHERE current_setting('synchronous_commit') = 'off'";
    sqlx::query(DURABLE).execute(connection).await.map(|_| ())
}

/// Whether the head was where it was believed to be.
async fn append(
    executor: impl Executor<'_, Database = Postgres>,
    before: Head,
    fence: i64,
    changes: &Changes,
) -> Result<bool, sqlx::Error> {
    let digests = changes.commands.iter().filter_map(|(id, command)| Some((id.0, command.digest?.0)));
    let (ids, digests): (Vec<Uuid>, Vec<[u8; 32]>) = digests.unzip();
    let taken = changes.names.iter().filter_map(|(name, holder)| Some((name, holder.as_ref()?.to_string())));
    let (names, holders): (Vec<&Reservation>, Vec<String>) = taken.unzip();
    let query = sqlx::query(include_str!("sql/append.sql"))
        .bind(signed(before.position.0))
        .bind(fence)
        .bind(signed(changes.head.position.0))
        .bind(&changes.head.hash.0[..]);
    let query = rows::bind(query, &changes.events);
    let query = query.bind(ids).bind(digests).bind(namespaces(&names)).bind(keys(&names)).bind(holders);
    Ok(query.execute(executor).await?.rows_affected() > 0)
}

async fn versions(
    executor: impl Executor<'_, Database = Postgres>,
    streams: &HashSet<&StreamId>,
) -> Result<HashMap<StreamId, Version>, sqlx::Error> {
    let streams: Vec<String> = streams.iter().map(|stream| stream.to_string()).collect();
    let query = sqlx::query(include_str!("sql/select_versions.sql")).bind(streams);
    let version = |row: PgRow| {
        let version = row.try_get::<Option<i64>, _>(1)?.map(unsigned).unwrap_or_default();
        Ok((parse_stream(row.try_get(0)?)?, Version(version)))
    };
    query.fetch_all(executor).await?.into_iter().map(version).collect()
}

async fn epochs(executor: impl Executor<'_, Database = Postgres>) -> Result<[u64; 256], sqlx::Error> {
    epochs_of(&sqlx::query(include_str!("sql/select_epochs.sql")).fetch_all(executor).await?)
}

/// The epochs of all shards, from rows of shards and epochs.
pub(super) fn epochs_of(rows: &[PgRow]) -> Result<[u64; 256], sqlx::Error> {
    let mut epochs = [0; 256];
    for row in rows {
        let shard = usize::try_from(row.try_get::<i16, _>(0)?).unwrap_or_default();
        epochs[shard] = unsigned(row.try_get(1)?);
    }
    Ok(epochs)
}

fn namespaces<'a>(names: &[&'a Reservation]) -> Vec<&'a str> {
    names.iter().map(|name| &*name.namespace).collect()
}

fn keys<'a>(names: &[&'a Reservation]) -> Vec<&'a str> {
    names.iter().map(|name| &*name.key).collect()
}
