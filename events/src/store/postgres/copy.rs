//! A database as one end of a copy. That no platform works on it is seen by the nodes that live, and, from then on, by
//! the fence, which everybody raises who opens the log to write to it.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Postgres, Row as _, Transaction};

use super::error::unreadable;
use super::read::head_of;
use super::writer::{epochs_of, make_durable};
use super::{Database, OpenError, Options, ReadOnly, rows, schema};
use crate::artifact::{self, ArtifactStore};
use crate::event::Recorded;
use crate::id::{CommandId, Digest, StreamId};
use crate::lease::NodeState;
use crate::store::columns::{self, digest, parse_stream, signed, unsigned};
use crate::store::copy::{self, CopyError, Place, Rest};
use crate::store::{EventStore, Head, ReadError, Reservation};

/// How long the server may work at a statement, in milliseconds.
const STATEMENT_MS: u64 = 600_000;

/// The log of a database that is copied from or to.
pub(in crate::store) struct Side {
    place: Place,
    log: ReadOnly,
    artifacts: artifact::Postgres,
    writer: Option<Writer>,
}

/// The connection that writes, and the fence of a log that nobody else has opened meanwhile.
struct Writer {
    connection: PgConnection,
    fence: i64,
}

impl Side {
    /// The database's log, to be read.
    pub(in crate::store) async fn source(database: &Database) -> Result<Self, CopyError> {
        schema::check(database).await?;
        Self::open(database, None).await
    }

    /// The database's log, or an empty one, to be written to.
    pub(in crate::store) async fn target(database: &Database) -> Result<Self, CopyError> {
        schema::prepare(database, schema::IfOlder::Refuse).await?;
        let failed = |error: sqlx::Error| CopyError::from(OpenError::unreachable(database, &error));
        let mut connection =
            PgConnection::connect_with(&database.settings(STATEMENT_MS)).await.map_err(failed)?;
        make_durable(&mut connection).await.map_err(failed)?;
        let lock = sqlx::query_scalar(include_str!("sql/lock_copy.sql"));
        if !lock.fetch_one(&mut connection).await.map_err(failed)? {
            return Err(CopyError::Busy { place: Place::Database(Box::new(database.clone())) });
        }
        let fence = sqlx::query_scalar(include_str!("sql/select_fence.sql")).fetch_one(&mut connection).await;
        let fence = fence.map_err(failed)?;
        Self::open(database, Some(Writer { connection, fence })).await
    }

    async fn open(database: &Database, writer: Option<Writer>) -> Result<Self, CopyError> {
        let log = ReadOnly::open(database, &Options::default()).await?;
        let place = Place::Database(Box::new(database.clone()));
        let (nodes, wait) = living(&log).await?;
        if !nodes.is_empty() {
            return Err(CopyError::InUse { place, nodes: nodes.join(", "), wait_s: wait.as_secs() + 1 });
        }
        let artifacts = artifact::Postgres::open(database).await?;
        Ok(Self { place, log, artifacts, writer })
    }

    /// A transaction in which nobody else can move the head or raise the fence.
    async fn begin(&mut self) -> Result<(Transaction<'_, Postgres>, i64), CopyError> {
        let target = self.place.clone();
        let failed = |error: sqlx::Error| unwritten(&target, &error);
        let Some(Writer { connection, fence }) = &mut self.writer else {
            return Err(CopyError::Write { target, reason: "it was opened to be read".into() });
        };
        let mut tx = connection.begin().await.map_err(failed)?;
        let row = sqlx::query(include_str!("sql/lock_head.sql")).fetch_one(&mut *tx).await.map_err(failed)?;
        match row.try_get::<i64, _>(2).map_err(failed)? == *fence {
            true => Ok((tx, *fence)),
            false => Err(CopyError::Moved { place: target }),
        }
    }
}

fn unwritten(target: &Place, error: &sqlx::Error) -> CopyError {
    CopyError::Write { target: target.clone(), reason: error.to_string().into() }
}

/// The nodes that live, and until when they do.
async fn living(log: &ReadOnly) -> Result<(Vec<String>, Duration), ReadError> {
    let rows = log.reader.all(sqlx::query(include_str!("sql/select_nodes.sql"))).await;
    let (mut nodes, mut wait) = (Vec::new(), 0);
    for row in rows.map_err(|error| unreadable(&error))? {
        let moments = |column| row.try_get::<i64, _>(column).map_err(|error| unreadable(&error));
        let (expires_at, now) = (moments(3)?, moments(4)?);
        let id: &str = row.try_get(0).map_err(|error| unreadable(&error))?;
        if columns::node(id, moments(1)?, moments(2)?, expires_at, now).state == NodeState::Live {
            nodes.push(format!("`{id}`"));
            wait = wait.max(expires_at - now);
        }
    }
    Ok((nodes, Duration::from_micros(unsigned(wait))))
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
        let last = self.log.reader.first(sqlx::query(include_str!("sql/select_last_event.sql")));
        let last = last.await.and_then(|row| row.as_ref().map_or(Ok(Head::EMPTY), head_of));
        last.map_err(|error| unreadable(&error))
    }

    async fn digests(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<(CommandId, Digest)>, ReadError> {
        let query = sqlx::query(include_str!("sql/read_commands.sql"));
        let query = query.bind(after.map(|after| after.0)).bind(signed(limit as u64));
        let pair = |row: &PgRow| Ok((CommandId(row.try_get(0)?), digest(row.try_get(1)?)?));
        let rows = self.log.reader.all(query).await;
        rows.and_then(|rows| rows.iter().map(pair).collect()).map_err(|error| unreadable(&error))
    }

    async fn names(
        &self,
        after: Option<Reservation>,
        limit: usize,
    ) -> Result<Vec<(Reservation, StreamId)>, ReadError> {
        let name = |row: &PgRow| {
            let (namespace, key) = (row.try_get::<&str, _>(0)?.into(), row.try_get::<&str, _>(1)?.into());
            Ok((Reservation { namespace, key }, parse_stream(row.try_get(2)?)?))
        };
        let (namespace, key) = after.map_or_else(Default::default, |after| (after.namespace, after.key));
        let query = sqlx::query(include_str!("sql/read_reservations.sql"));
        let query = query.bind(namespace.to_string()).bind(key.to_string()).bind(signed(limit as u64));
        let rows = self.log.reader.all(query).await;
        rows.and_then(|rows| rows.iter().map(name).collect()).map_err(|error| unreadable(&error))
    }

    async fn set_aside(&mut self, names: Vec<(Reservation, StreamId)>) -> Result<(), CopyError> {
        let target = self.place.clone();
        let failed = |error: sqlx::Error| unwritten(&target, &error);
        let (mut tx, _) = self.begin().await?;
        sqlx::query(include_str!("sql/make_names_aside.sql")).execute(&mut *tx).await.map_err(failed)?;
        let column =
            |of: fn(&Reservation) -> &str| -> Vec<&str> { names.iter().map(|(name, _)| of(name)).collect() };
        let streams: Vec<String> = names.iter().map(|(_, stream)| stream.to_string()).collect();
        let insert = sqlx::query(include_str!("sql/set_names_aside.sql"))
            .bind(column(|name| &name.namespace))
            .bind(column(|name| &name.key))
            .bind(streams);
        insert.execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn rest(&self) -> Result<Rest, ReadError> {
        rest(self).await.map_err(|error| unreadable(&error))
    }

    async fn insert_events(&mut self, events: Vec<Recorded>) -> Result<(), CopyError> {
        let target = self.place.clone();
        let failed = |error: sqlx::Error| unwritten(&target, &error);
        let (mut tx, _) = self.begin().await?;
        let insert = rows::bind(sqlx::query(include_str!("sql/carry_events.sql")), &events);
        insert.execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn insert_digests(&mut self, digests: Vec<(CommandId, Digest)>) -> Result<(), CopyError> {
        let target = self.place.clone();
        let failed = |error: sqlx::Error| unwritten(&target, &error);
        let (mut tx, _) = self.begin().await?;
        let (ids, digests): (Vec<_>, Vec<_>) =
            digests.into_iter().map(|(id, digest)| (id.0, digest.0)).unzip();
        let insert = sqlx::query(include_str!("sql/carry_commands.sql")).bind(ids).bind(digests);
        insert.execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn finish(&mut self, head: Head, rest: Rest) -> Result<(), CopyError> {
        let (target, before) = (self.place.clone(), self.log.head().await?);
        let failed = |error: sqlx::Error| unwritten(&target, &error);
        let (mut tx, fence) = self.begin().await?;
        take_over(&mut tx, &rest).await.map_err(failed)?;
        let moved = sqlx::query(include_str!("sql/carry_head.sql"))
            .bind(signed(before.position.0))
            .bind(fence)
            .bind(signed(head.position.0))
            .bind(head.hash.0.to_vec())
            .bind(rest.fence);
        if moved.execute(&mut *tx).await.map_err(failed)?.rows_affected() != 1 {
            return Err(CopyError::Moved { place: target });
        }
        tx.commit().await.map_err(failed)
    }
}

async fn rest(side: &Side) -> Result<Rest, sqlx::Error> {
    let reader = &side.log.reader;
    let fence = reader.one(sqlx::query(include_str!("sql/select_fence.sql"))).await?.try_get(0)?;
    let epochs = reader.all(sqlx::query(include_str!("sql/select_epochs.sql"))).await?;
    Ok(Rest { fence, epochs: epochs_of(&epochs)?.to_vec() })
}

async fn take_over(connection: &mut PgConnection, rest: &Rest) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM reservations").execute(&mut *connection).await?;
    sqlx::query(include_str!("sql/make_names_aside.sql")).execute(&mut *connection).await?;
    sqlx::query(include_str!("sql/carry_reservations.sql")).execute(&mut *connection).await?;
    sqlx::query("DROP TABLE names_aside").execute(&mut *connection).await?;
    let (shards, epochs): (Vec<i16>, Vec<i64>) =
        (0_i16..).zip(&rest.epochs).map(|(shard, epoch)| (shard, signed(*epoch))).unzip();
    sqlx::query(include_str!("sql/carry_epochs.sql")).bind(shards).bind(epochs).execute(connection).await?;
    Ok(())
}
