//! What queries read: views made from the log, kept beside it, and made again whenever they do not fit it.
//!
//! One projector follows the log and applies each batch in one transaction, with the cursors in it. Each
//! projection has a savepoint of its own: an event that one cannot read stops that one alone, visibly
//! ([`Views::status`]). Rebuilding from position zero gives the same bytes (RP-1).

mod attempts;
mod audit;
mod common;
mod compare;
mod database;
mod dump;
mod entities;
mod file;
mod messages;
mod origin;
mod profiles;
mod projector;
mod query;
mod rows;
mod sealed;
mod snapshots;
mod spending;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::world::world;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::database::{Reader, Writer};
use self::projector::{Order, Projector, Session};
use crate::event::Recorded;
use crate::id::Position;
use crate::seal::{Seal, SealError};
use crate::store::postgres::Database;
use crate::store::{EventStore, ReadError};
use crate::subscription;

pub use self::audit::summarize;
pub use self::compare::{Comparison, Difference, Frozen};
pub use self::query::{Direction, PAGE_ITEMS_MAX, Page, PageRequest, Unfinished};
pub use self::rows::{
    AgentFilter, AgentView, AttemptView, AuditEntry, AuditFilter, CrewFilter, CrewView, Delivery, Lifespan,
    MessageFilter, MessageView, Outcome, ProfileView, TaskFilter, TaskView,
};

/// The views' file in the data directory.
pub const VIEWS_FILE: &str = "views.db";

/// The views' limits.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How the log is followed.
    pub subscription: subscription::Options,
    /// The shortest time between two batches while the projector keeps up with the log, in milliseconds: what comes
    /// in between is applied at once, which costs little more than one event does.
    pub pace_ms: u64,
    /// How long the projector waits after an error before it tries again, in milliseconds.
    pub retry_ms: u64,
    /// Connections that read.
    pub read_connections_max: u32,
    /// How long a query waits for a connection, in milliseconds.
    pub read_wait_ms: u64,
    /// How often a node looks how far another has come that writes the views, in milliseconds.
    pub follow_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        let subscription = subscription::Options::default();
        Self {
            subscription,
            pace_ms: 20,
            retry_ms: 500,
            read_connections_max: 4,
            read_wait_ms: 10_000,
            follow_ms: 50,
        }
    }
}

/// Why the views could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// They cannot be used where they are.
    #[error("use the views in `{place}`: {reason}")]
    Unavailable {
        /// The file or the database.
        place: Arc<str>,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// Personal data in them cannot be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The views did not come so far in time.
    #[error("wait for position {wanted}: the views are at {reached}; try again")]
    Behind {
        /// The position that was waited for.
        wanted: Position,
        /// The position that they have reached.
        reached: Position,
    },
    /// There is no such projection.
    #[error("rebuild projection `{name}`: there is none; there are {}", NAMES.join(", "))]
    UnknownProjection {
        /// The name.
        name: String,
    },
}

impl From<ViewError> for crate::api::Problem {
    fn from(error: ViewError) -> Self {
        use crate::api::ProblemKind;
        let kind = match error {
            ViewError::Unavailable { .. } | ViewError::Log(_) | ViewError::Seal(_) => {
                ProblemKind::Unavailable
            }
            ViewError::Behind { .. } => ProblemKind::Timeout,
            ViewError::UnknownProjection { .. } => ProblemKind::NotFound,
        };
        Self::new(kind, error.to_string())
    }
}

/// The names of all projections, in the order in which they are applied.
pub const NAMES: &[&str] =
    &["profiles", "crews", "agents", "tasks", "attempts", "messages", "spending", "audit"];

/// Where a projection stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The last event that it has applied.
    pub position: Position,
    /// Events of kinds that were unknown to it.
    pub skipped: u64,
    /// Why it stopped before the next event, if it did.
    pub error: Option<String>,
}

/// Why a projection did not apply its events.
#[derive(Debug)]
enum Fault {
    /// It cannot read the event at this position.
    Poison { position: Position, reason: String },
    /// The database cannot be used.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// One view of the log.
#[async_trait]
trait Projection: Send + Sync {
    /// Its name, one of [`NAMES`].
    fn name(&self) -> &'static str;
    /// Its tables, to be emptied before it is made again.
    fn tables(&self) -> &'static [&'static str];
    /// Applies events in their order; says how many of them were of kinds that it should know but does not.
    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<u64, Fault>;
}

/// The views of a log. Clones are handles to the same views.
#[derive(Clone, Debug)]
pub struct Views {
    shared: Arc<Shared>,
    /// What opens personal data in answers; the views themselves hold it sealed.
    seal: Option<Seal>,
}

#[derive(Debug)]
struct Shared {
    place: Arc<str>,
    reader: Reader,
    orders: mpsc::Sender<Order>,
    progress: watch::Receiver<Position>,
    projector: Mutex<Option<JoinHandle<()>>>,
}

impl Views {
    /// Opens the views of `store` in `directory`, or makes them anew if they are missing, of another program
    /// version, ahead of the log or of another log; then follows the log.
    pub async fn open(
        directory: impl AsRef<Path>,
        store: Arc<dyn EventStore>,
        options: Options,
    ) -> Result<Self, ViewError> {
        let file = directory.as_ref().join(VIEWS_FILE);
        let session = Session::Own(file::open(&file, &*store).await?);
        let reader = file::reader(&file, &options).await?;
        Self::follow(file.display().to_string().into(), session, reader, store, options).await
    }

    /// Opens the views of `store` in `database`, which any number of nodes share, as [`Views::open`] does. One of
    /// the nodes follows the log and writes; when it ends, another goes on.
    pub async fn open_common(
        database: &Database,
        store: Arc<dyn EventStore>,
        options: Options,
    ) -> Result<Self, ViewError> {
        common::prepare(database, &*store).await?;
        let session = Session::Common { database: Box::new(database.clone()), writer: None, leads: false };
        let reader = common::reader(database, &options).await?;
        Self::follow(database.to_string().into(), session, reader, store, options).await
    }

    async fn follow(
        place: Arc<str>,
        session: Session,
        reader: Reader,
        store: Arc<dyn EventStore>,
        options: Options,
    ) -> Result<Self, ViewError> {
        let (orders, ordered) = mpsc::channel(1);
        let (progress_sender, progress) = watch::channel(Position(0));
        let projector = Projector::new(session, store, options, ordered, progress_sender);
        let projector = projector.await.map_err(|error| ViewError::unavailable(&place, &error))?;
        let projector = Mutex::new(Some(tokio::spawn(projector.run())));
        Ok(Self { shared: Arc::new(Shared { place, reader, orders, progress, projector }), seal: None })
    }

    /// The same views, in whose answers personal data is opened.
    #[must_use]
    pub fn opened_by(self, seal: Seal) -> Self {
        Self { seal: Some(seal), ..self }
    }

    /// Waits until every projection that is not stopped has applied the event at `position`.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), ViewError> {
        let mut progress = self.shared.progress.clone();
        match tokio::time::timeout(timeout, progress.wait_for(|reached| *reached >= position)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ViewError::Behind { wanted: position, reached: *self.shared.progress.borrow() }),
        }
    }

    /// The position up to which every projection that is not stopped has come.
    pub fn position(&self) -> Position {
        *self.shared.progress.borrow()
    }

    /// Makes a projection, or all of them, again from the beginning of the log. Answers when it has begun;
    /// [`Views::wait_for`] tells when it is done.
    pub async fn rebuild(&self, name: Option<&str>) -> Result<(), ViewError> {
        if let Some(name) = name.filter(|name| !NAMES.contains(name)) {
            return Err(ViewError::UnknownProjection { name: name.to_owned() });
        }
        let (done, answer) = oneshot::channel();
        let ended = || self.unavailable("the projector has ended");
        let order = Order::Rebuild { name: name.map(str::to_owned), done };
        self.shared.orders.send(order).await.map_err(|_| ended())?;
        let rebuilt = answer.await.map_err(|_| ended())?;
        rebuilt.map_err(|error| ViewError::unavailable(&self.shared.place, &error))
    }

    /// Stops following the log and closes the connections.
    pub async fn close(&self) {
        // A projector that has ended already takes no orders.
        let _ = self.shared.orders.send(Order::Close).await;
        let projector = self.shared.projector.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(projector) = projector
            && let Err(error) = projector.await
        {
            tracing::error!(%error, "the projector ended badly");
        }
        self.shared.reader.close().await;
    }

    fn unavailable(&self, reason: &str) -> ViewError {
        ViewError::Unavailable { place: Arc::clone(&self.shared.place), reason: reason.into() }
    }
}

impl ViewError {
    fn unavailable(place: &Arc<str>, error: &dyn std::error::Error) -> Self {
        Self::Unavailable { place: Arc::clone(place), reason: error.to_string().into() }
    }
}
