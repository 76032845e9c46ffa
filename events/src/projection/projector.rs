//! The one task that writes the views.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::database::{Row, Statement, Value, Writer, twins};
use super::entities::Entities;
use super::{Fault, Options, Projection, Status, common};
use super::{attempts::Attempts, audit::Audit, messages::Messages, profiles::Profiles, spending::Spending};
use crate::domain::agent::Agent;
use crate::domain::crew::Crew;
use crate::domain::pool::Pool;
use crate::domain::task::Task;
use crate::event::Recorded;
use crate::id::Position;
use crate::store::EventStore;
use crate::store::postgres::Database;
use crate::subscription::Subscription;

pub(super) const LOAD_STATUSES: Statement = Statement::common(include_str!("sql/load_projections.sql"));

/// How often the node that writes shows the server that it lives, and looks whether another node has begun a rebuild.
const KEEP: Duration = Duration::from_secs(1);

/// A projection that follows the log.
pub(super) struct Running {
    projection: Box<dyn Projection>,
    pub(super) status: Status,
}

/// Where this projector writes.
#[derive(Debug)]
pub(super) enum Session {
    /// To a file that is its own.
    Own(Writer),
    /// To a database that other nodes write to as well, one at a time.
    Common { database: Box<Database>, writer: Option<Writer>, leads: bool },
}

/// What others are told of it.
pub(super) struct Told {
    /// How far every projection has come that is not stopped.
    pub(super) progress: watch::Sender<Position>,
    /// Those that are stopped.
    pub(super) stopped: watch::Sender<Vec<Status>>,
}

pub(super) struct Projector {
    session: Session,
    subscription: Subscription,
    options: Options,
    /// When its other end is used or gone, the projector ends.
    closing: oneshot::Receiver<()>,
    told: Told,
    projections: Vec<Running>,
    /// When the next batch may be read.
    not_before: Instant,
}

/// Whether there is more to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
}

/// All projections, or the one of this name, at the beginning of the log.
pub(super) fn all(name: Option<&str>) -> Vec<Running> {
    let all: Vec<Box<dyn Projection>> = vec![
        Box::new(Profiles),
        Box::new(Entities::<Crew>::new()),
        Box::new(Entities::<Agent>::new()),
        Box::new(Entities::<Task>::new()),
        Box::new(Entities::<Pool>::new()),
        Box::new(Attempts),
        Box::new(Messages),
        Box::new(Spending),
        Box::new(Audit::new()),
    ];
    let running = |projection: Box<dyn Projection>| {
        let name = projection.name().to_owned();
        Running { projection, status: Status { name, position: Position(0), skipped: 0, error: None } }
    };
    let is_chosen = |projection: &dyn Projection| name.is_none_or(|name| name == projection.name());
    all.into_iter().filter(|projection| is_chosen(&**projection)).map(running).collect()
}

impl Projector {
    pub(super) async fn new(
        session: Session,
        store: Arc<dyn EventStore>,
        options: Options,
        closing: oneshot::Receiver<()>,
        told: Told,
    ) -> Result<Self, sqlx::Error> {
        let subscription = Subscription::after(store, Position(0), options.subscription);
        let not_before = Instant::now();
        let mut projector =
            Self { session, subscription, options, closing, told, projections: all(None), not_before };
        match projector.leads() {
            false => projector.try_lead().await?,
            true => {
                projector.load().await?;
                projector.forgive().await?;
                projector.resume();
            }
        }
        Ok(projector)
    }

    /// Runs until it is closed or every handle is gone.
    pub(super) async fn run(mut self) {
        loop {
            let done = if self.leads() { self.lead().await } else { self.follow().await };
            match done {
                Ok(Then::GoOn) => {}
                Ok(Then::Close) => break,
                Err(error) => {
                    tracing::warn!(error, "the views stand still for a moment");
                    self.recover().await;
                    tokio::time::sleep(Duration::from_millis(self.options.retry_ms)).await;
                }
            }
        }
        let writer = match self.session {
            Session::Own(writer) => Some(writer),
            Session::Common { writer, .. } => writer,
        };
        if let Some(writer) = writer
            && let Err(error) = writer.close().await
        {
            tracing::warn!(%error, "the views were not closed cleanly");
        }
    }

    fn leads(&self) -> bool {
        matches!(self.session, Session::Own(_) | Session::Common { leads: true, .. })
    }

    /// Applies the next events, or does what is asked.
    async fn lead(&mut self) -> Result<Then, String> {
        let is_common = matches!(self.session, Session::Common { .. });
        let next = async {
            sleep_until(self.not_before).await;
            self.subscription.next().await
        };
        tokio::select! {
            biased;
            _ = &mut self.closing => Ok(Then::Close),
            events = next => {
                let events = events.map_err(|error| error.to_string())?;
                if events.len() < self.options.subscription.batch_events_max {
                    self.not_before = Instant::now() + Duration::from_millis(self.options.pace_ms);
                }
                self.apply(&events).await.map_err(|error| error.to_string())?;
                Ok(Then::GoOn)
            }
            () = tokio::time::sleep(KEEP), if is_common => {
                self.load().await.map_err(|error| error.to_string())?;
                self.resume();
                Ok(Then::GoOn)
            }
        }
    }

    /// Looks how far the node that writes has come, and whether it is still there.
    async fn follow(&mut self) -> Result<Then, String> {
        let poll = Duration::from_millis(self.options.follow_ms);
        tokio::select! {
            biased;
            _ = &mut self.closing => Ok(Then::Close),
            () = tokio::time::sleep(poll) => {
                self.try_lead().await.map_err(|error| error.to_string())?;
                Ok(Then::GoOn)
            }
        }
    }

    async fn try_lead(&mut self) -> Result<(), sqlx::Error> {
        if let Session::Common { leads, .. } = &mut self.session {
            *leads = false;
        }
        let is_mine = common::try_lead(self.writer().await?).await?;
        self.load().await?;
        if is_mine {
            self.forgive().await?;
        }
        self.resume();
        if let Session::Common { leads, .. } = &mut self.session {
            *leads = is_mine;
        }
        Ok(())
    }

    /// After a failure: what was begun is undone, and what stands there counts.
    async fn recover(&mut self) {
        match &mut self.session {
            // On a full disk SQLite has rolled back by itself (sqlite.org/lang_transaction.html); then there is
            // nothing to undo, as where nothing was begun.
            Session::Own(writer) => drop(writer.rollback().await),
            Session::Common { writer, leads, .. } => (*writer, *leads) = (None, false),
        }
        self.resume();
    }

    async fn writer(&mut self) -> Result<&mut Writer, sqlx::Error> {
        match &mut self.session {
            Session::Own(writer) => Ok(writer),
            Session::Common { database, writer, .. } => match writer {
                Some(writer) => Ok(writer),
                None => Ok(writer.insert(common::connect(database).await?)),
            },
        }
    }

    /// Takes over where the projections stand.
    async fn load(&mut self) -> Result<(), sqlx::Error> {
        let stored = statuses(&self.writer().await?.fetch(LOAD_STATUSES, []).await?)?;
        self.take_over(&stored);
        Ok(())
    }

    /// Says whether anything was not as it was believed to be.
    fn take_over(&mut self, stored: &[Status]) -> bool {
        let mut is_other = false;
        for running in &mut self.projections {
            if let Some(stored) = stored.iter().find(|stored| stored.name == running.status.name) {
                is_other |= *stored != running.status;
                running.status = stored.clone();
            }
        }
        is_other
    }

    /// Goes on after the slowest projection that is not stopped; without any, after the newest.
    fn resume(&mut self) {
        let running = self.projections.iter().filter(|running| running.status.error.is_none());
        let slowest = running.map(|running| running.status.position).min();
        let newest = self.projections.iter().map(|running| running.status.position).max();
        let cursor = slowest.or(newest).unwrap_or_default();
        self.subscription.seek(cursor);
        let stopped = self.projections.iter().map(|running| &running.status);
        let stopped: Vec<Status> = stopped.filter(|status| status.error.is_some()).cloned().collect();
        self.told.stopped.send_if_modified(|known| {
            let is_new = *known != stopped;
            *known = stopped;
            is_new
        });
        self.told.progress.send_replace(cursor);
    }

    /// What stopped a projection may be mended by now, so it is tried again.
    async fn forgive(&mut self) -> Result<(), sqlx::Error> {
        if self.projections.iter().all(|running| running.status.error.is_none()) {
            return Ok(());
        }
        if !self.begin().await? {
            return self.writer().await?.rollback().await;
        }
        for running in &mut self.projections {
            running.status.error = None;
        }
        let projections = std::mem::take(&mut self.projections);
        let saved = save(self.writer().await?, &projections).await;
        self.projections = projections;
        saved?;
        self.writer().await?.commit().await
    }

    /// Begins a transaction, and says whether the projections stand where they were believed to: a rebuild may have
    /// moved them.
    async fn begin(&mut self) -> Result<bool, sqlx::Error> {
        let writer = self.writer().await?;
        writer.begin_alone().await?;
        let stored = statuses(&writer.fetch(LOAD_STATUSES, []).await?)?;
        Ok(!self.take_over(&stored))
    }

    /// Applies a batch to every projection that is not stopped, in one transaction with the cursors.
    async fn apply(&mut self, events: &[Recorded]) -> Result<(), sqlx::Error> {
        const SOURCE: Statement = Statement::common(include_str!("sql/store_source.sql"));
        if !self.begin().await? {
            self.writer().await?.rollback().await?;
            self.resume();
            return Ok(());
        }
        let mut projections = std::mem::take(&mut self.projections);
        let passes_over = self.options.passes_over;
        let applied = apply_all(self.writer().await?, &mut projections, events, passes_over).await;
        self.projections = projections;
        let statuses = applied?;
        let writer = self.writer().await?;
        let last = events.last().expect("a batch has at least one event");
        writer.execute(SOURCE, [last.position.0.into(), Value::Bytes(last.hash.0.to_vec())]).await?;
        writer.commit().await?;
        for (running, status) in self.projections.iter_mut().zip(statuses) {
            running.status = status;
        }
        self.resume();
        Ok(())
    }
}

/// Applies a batch to each projection, and says where they stand then.
async fn apply_all(
    db: &mut Writer,
    projections: &mut [Running],
    events: &[Recorded],
    passes_over: bool,
) -> Result<Vec<Status>, sqlx::Error> {
    let mut statuses = Vec::with_capacity(projections.len());
    for running in projections {
        statuses.push(running.advance(db, events, passes_over).await?);
    }
    store(db, &statuses).await?;
    Ok(statuses)
}

impl Running {
    /// Its tables.
    pub(super) fn tables(&self) -> &'static [&'static str] {
        self.projection.tables()
    }

    /// Applies what it has not applied yet; an event that it cannot read stops it just before, or is passed over.
    pub(super) async fn advance(
        &mut self,
        db: &mut Writer,
        events: &[Recorded],
        passes_over: bool,
    ) -> Result<Status, sqlx::Error> {
        let mut status = self.status.clone();
        if status.error.is_some() {
            return Ok(status);
        }
        let mut start = events.partition_point(|event| event.position <= status.position);
        let mut end = events.len();
        loop {
            db.save_point().await?;
            match self.projection.apply(db, &events[start..end]).await {
                Ok(()) => {
                    db.release().await?;
                    status.position = events[start..end].last().map_or(status.position, |last| last.position);
                    if status.error.is_some() || end == events.len() {
                        return Ok(status);
                    }
                    // What stands at the end is passed over.
                    status.skipped += 1;
                    status.position = events[end].position;
                    (start, end) = (end + 1, events.len());
                }
                Err(Fault::Poison { position, reason }) => {
                    db.roll_back_to_save_point().await?;
                    db.release().await?;
                    end = start + events[start..end].partition_point(|event| event.position < position);
                    if !passes_over {
                        tracing::error!(projection = status.name, %position, reason, "a projection stopped");
                        status.error = Some(format!("event at position {position}: {reason}"));
                    }
                }
                Err(Fault::Database(error)) => return Err(error),
            }
        }
    }
}

pub(super) fn statuses(rows: &[Row]) -> Result<Vec<Status>, sqlx::Error> {
    let status = |row: &Row| {
        Ok(Status {
            name: row.get(0)?,
            position: Position(row.unsigned(1)?),
            skipped: row.unsigned(2)?,
            error: row.get(3)?,
        })
    };
    rows.iter().map(status).collect()
}

/// Writes down where projections stand.
pub(super) async fn save(db: &mut Writer, projections: &[Running]) -> Result<(), sqlx::Error> {
    let statuses: Vec<_> = projections.iter().map(|running| running.status.clone()).collect();
    store(db, &statuses).await
}

async fn store(db: &mut Writer, statuses: &[Status]) -> Result<(), sqlx::Error> {
    let row = |Status { name, position, skipped, error }: &Status| json!([name, position, skipped, error]);
    let rows: serde_json::Value = statuses.iter().map(row).collect();
    db.execute(twins!("store_projections.sql"), [rows.into()]).await
}
