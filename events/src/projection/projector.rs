//! The one task that writes the views.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Row as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::entities::Entities;
use super::{Fault, Options, Projection, Status, file};
use super::{attempts::Attempts, audit::Audit, messages::Messages, profiles::Profiles};
use crate::domain::agent::Agent;
use crate::domain::crew::Crew;
use crate::domain::task::Task;
use crate::event::Recorded;
use crate::id::Position;
use crate::store::EventStore;
use crate::subscription::Subscription;

/// What the projector is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    Rebuild { name: Option<String>, done: oneshot::Sender<Result<(), sqlx::Error>> },
    Close,
}

struct Running {
    projection: Box<dyn Projection>,
    status: Status,
}

pub(super) struct Projector {
    file: PathBuf,
    db: SqliteConnection,
    subscription: Subscription,
    options: Options,
    orders: mpsc::Receiver<Order>,
    progress: watch::Sender<Position>,
    projections: Vec<Running>,
}

fn all() -> Vec<Box<dyn Projection>> {
    vec![
        Box::new(Profiles),
        Box::new(Entities::<Crew>::new()),
        Box::new(Entities::<Agent>::new()),
        Box::new(Entities::<Task>::new()),
        Box::new(Attempts),
        Box::new(Messages),
        Box::new(Audit::new()),
    ]
}

impl Projector {
    pub(super) async fn new(
        file: PathBuf,
        mut db: SqliteConnection,
        store: Arc<dyn EventStore>,
        options: Options,
        orders: mpsc::Receiver<Order>,
        progress: watch::Sender<Position>,
    ) -> Result<Self, sqlx::Error> {
        let stored =
            statuses(sqlx::query(include_str!("sql/load_projections.sql")).fetch_all(&mut db).await?)?;
        let running = |projection: Box<dyn Projection>| {
            let stored = stored.iter().find(|status| status.name == projection.name()).cloned();
            let fresh = || fresh(projection.name());
            // What stopped it may be mended by now, so it is tried again.
            let status = Status { error: None, ..stored.unwrap_or_else(fresh) };
            Running { projection, status }
        };
        let projections = all().into_iter().map(running).collect();
        let subscription = Subscription::after(store, Position(0), options.subscription);
        let mut projector = Self { file, db, subscription, options, orders, progress, projections };
        projector.resume();
        Ok(projector)
    }

    /// Runs until it is closed or every handle is gone.
    pub(super) async fn run(mut self) {
        loop {
            let events = tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None | Some(Order::Close) => break,
                    Some(Order::Rebuild { name, done }) => {
                        let begun = self.rebuild(name.as_deref()).await;
                        if begun.is_err() {
                            self.reconnect().await;
                        }
                        // A caller that went away wants no answer.
                        let _ = done.send(begun);
                        continue;
                    }
                },
                events = self.subscription.next() => events,
            };
            let failed = match events {
                Ok(events) => self.apply(&events).await.err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = failed {
                tracing::warn!(%error, "the views stand still for a moment");
                self.resume();
                tokio::time::sleep(Duration::from_millis(self.options.retry_ms)).await;
                self.reconnect().await;
            }
        }
        if let Err(error) = self.db.close().await {
            tracing::warn!(%error, "the views were not closed cleanly");
        }
    }

    /// A new connection after a failure: on a full disk SQLite rolls back by itself (sqlite.org/lang_transaction.html),
    /// which the driver does not learn of, and begins no other transaction on that connection.
    async fn reconnect(&mut self) {
        match file::connect(&self.file).await {
            Ok(db) => self.db = db,
            Err(error) => tracing::warn!(%error, "the views cannot be connected to"),
        }
    }

    /// Goes on after the slowest projection that is not stopped; without any, after the newest.
    fn resume(&mut self) {
        let running = self.projections.iter().filter(|running| running.status.error.is_none());
        let slowest = running.map(|running| running.status.position).min();
        let newest = self.projections.iter().map(|running| running.status.position).max();
        let cursor = slowest.or(newest).unwrap_or_default();
        self.subscription.seek(cursor);
        self.progress.send_replace(cursor);
    }

    /// Applies a batch to every projection that is not stopped, in one transaction with the cursors.
    async fn apply(&mut self, events: &[Recorded]) -> Result<(), sqlx::Error> {
        let mut tx = self.db.begin_with("BEGIN IMMEDIATE").await?;
        let mut statuses = Vec::with_capacity(self.projections.len());
        for running in &mut self.projections {
            let status = running.advance(&mut tx, events).await?;
            save(&mut tx, &status).await?;
            statuses.push(status);
        }
        let last = events.last().expect("a batch has at least one event");
        sqlx::query(include_str!("sql/store_source.sql"))
            .bind(signed(last.position))
            .bind(last.hash.0.to_vec())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        for (running, status) in self.projections.iter_mut().zip(statuses) {
            running.status = status;
        }
        self.resume();
        Ok(())
    }

    async fn rebuild(&mut self, name: Option<&str>) -> Result<(), sqlx::Error> {
        let mut tx = self.db.begin_with("BEGIN IMMEDIATE").await?;
        let chosen = |running: &Running| name.is_none_or(|name| name == running.projection.name());
        for running in self.projections.iter().filter(|running| chosen(running)) {
            file::empty(&mut tx, running.projection.tables()).await?;
            save(&mut tx, &fresh(running.projection.name())).await?;
        }
        tx.commit().await?;
        for running in self.projections.iter_mut().filter(|running| chosen(running)) {
            running.status = fresh(running.projection.name());
        }
        self.resume();
        Ok(())
    }
}

impl Running {
    /// Applies what it has not applied yet; an event that it cannot read stops it just before.
    async fn advance(
        &mut self,
        db: &mut SqliteConnection,
        events: &[Recorded],
    ) -> Result<Status, sqlx::Error> {
        let mut status = self.status.clone();
        if status.error.is_some() {
            return Ok(status);
        }
        let new = events.partition_point(|event| event.position <= status.position);
        let mut events = &events[new..];
        loop {
            let mut savepoint = db.begin().await?;
            match self.projection.apply(&mut savepoint, events).await {
                Ok(skipped) => {
                    savepoint.commit().await?;
                    status.skipped += skipped;
                    status.position = events.last().map_or(status.position, |last| last.position);
                    return Ok(status);
                }
                Err(Fault::Poison { position, reason }) => {
                    savepoint.rollback().await?;
                    tracing::error!(projection = status.name, %position, reason, "a projection stopped");
                    status.error = Some(format!("event at position {position}: {reason}"));
                    events = &events[..events.partition_point(|event| event.position < position)];
                }
                Err(Fault::Database(error)) => return Err(error),
            }
        }
    }
}

fn fresh(name: &str) -> Status {
    Status { name: name.to_owned(), position: Position(0), skipped: 0, error: None }
}

pub(super) fn statuses(rows: Vec<sqlx::sqlite::SqliteRow>) -> Result<Vec<Status>, sqlx::Error> {
    let unsigned = |value: i64| u64::try_from(value).unwrap_or_default();
    let status = |row: sqlx::sqlite::SqliteRow| {
        Ok(Status {
            name: row.try_get(0)?,
            position: Position(unsigned(row.try_get(1)?)),
            skipped: unsigned(row.try_get(2)?),
            error: row.try_get(3)?,
        })
    };
    rows.into_iter().map(status).collect()
}

async fn save(db: &mut SqliteConnection, status: &Status) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("sql/store_projection.sql"))
        .bind(status.name.clone())
        .bind(signed(status.position))
        .bind(i64::try_from(status.skipped).unwrap_or(i64::MAX))
        .bind(status.error.clone())
        .execute(db)
        .await?;
    Ok(())
}

fn signed(position: Position) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}
