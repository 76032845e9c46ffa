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
mod rebuild;
mod rows;
mod sealed;
mod snapshots;
mod spending;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::world::world;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use self::database::{Reader, Writer};
use self::projector::{Projector, Session, Told};
use crate::domain::UPGRADE;
use crate::event::Recorded;
use crate::id::Position;
use crate::seal::{Seal, SealError};
use crate::store::postgres::Database;
use crate::store::{EventStore, ReadError};
use crate::subscription;

pub use self::audit::summarize;
pub use self::compare::{Comparison, Difference, Frozen};
pub use self::query::{Direction, PAGE_ITEMS_MAX, Page, PageRequest, Unfinished, Within};
pub use self::rebuild::Rebuilding;
pub use self::rows::{
    AgentFilter, AgentView, AttemptView, AuditEntry, AuditFilter, CrewFilter, CrewView, Delivery, Lifespan,
    MessageFilter, MessageView, Outcome, PoolView, ProfileView, TaskFilter, TaskView,
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
    /// Whether an event that a projection cannot read is passed over instead of stopping it. For views that only have to
    /// show what can be seen at all.
    pub passes_over: bool,
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
            passes_over: false,
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
    /// An event stands in the way of a rebuild.
    #[error("rebuild projection `{name}`: {reason}; the old one stays")]
    Stopped {
        /// The projection.
        name: String,
        /// The event's position, and what is wrong with it.
        reason: Arc<str>,
    },
    /// Another rebuild runs.
    #[error("rebuild: another rebuild is under way on this node; wait until it has ended")]
    Busy,
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
            ViewError::Stopped { .. } => ProblemKind::Failed,
            ViewError::Busy => ProblemKind::Conflict,
        };
        Self::new(kind, error.to_string())
    }
}

/// The names of all projections, in the order in which they are applied.
pub const NAMES: &[&str] =
    &["profiles", "crews", "agents", "tasks", "pools", "attempts", "messages", "spending", "audit"];

/// Where a projection stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The last event that it has applied.
    pub position: Position,
    /// Events that it could not read and has passed over.
    pub skipped: u64,
    /// Why it stopped before the next event, if it did.
    pub error: Option<String>,
}

impl Status {
    /// Whether it stopped at what a newer version of the platform has written.
    pub fn is_outdated(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.ends_with(UPGRADE))
    }
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
    /// Its tables, of which it writes and reads no others.
    fn tables(&self) -> &'static [&'static str];
    /// Applies events in their order. One of a kind or a schema that it does not know, in a stream that it reads, is poison
    /// like one that is damaged: what it did to the entity cannot be shown.
    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<(), Fault>;
}

/// The views of a log. Clones are handles to the same views.
#[derive(Clone, Debug)]
pub struct Views {
    shared: Arc<Shared>,
    /// What opens personal data in answers; the views themselves hold it sealed.
    seal: Option<Seal>,
}

struct Shared {
    home: Home,
    place: Arc<str>,
    store: Arc<dyn EventStore>,
    options: Options,
    reader: Reader,
    progress: watch::Receiver<Position>,
    stopped: watch::Receiver<Vec<Status>>,
    rebuilding: watch::Sender<Option<Rebuilding>>,
    tasks: Mutex<Option<Tasks>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("home", &self.home).finish_non_exhaustive()
    }
}

/// Where the views are kept.
#[derive(Clone, Debug)]
enum Home {
    File(PathBuf),
    Common(Box<Database>),
}

/// What runs until the views are closed.
#[derive(Debug)]
struct Tasks {
    projector: JoinHandle<()>,
    /// Ends the projector.
    close: oneshot::Sender<()>,
    rebuild: Option<JoinHandle<()>>,
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
        Self::follow(Home::File(file), session, reader, store, options).await
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
        Self::follow(Home::Common(Box::new(database.clone())), session, reader, store, options).await
    }

    async fn follow(
        home: Home,
        session: Session,
        reader: Reader,
        store: Arc<dyn EventStore>,
        options: Options,
    ) -> Result<Self, ViewError> {
        let place: Arc<str> = match &home {
            Home::File(file) => file.display().to_string().into(),
            Home::Common(database) => database.to_string().into(),
        };
        let (close, closing) = oneshot::channel();
        let (progress_sender, progress) = watch::channel(Position(0));
        let (stopped_sender, stopped) = watch::channel(Vec::new());
        let told = Told { progress: progress_sender, stopped: stopped_sender };
        let projector = Projector::new(session, Arc::clone(&store), options, closing, told);
        let projector = projector.await.map_err(|error| ViewError::unavailable(&place, &error))?;
        let tasks = Tasks { projector: tokio::spawn(projector.run()), close, rebuild: None };
        let shared = Shared {
            home,
            place,
            store,
            options,
            reader,
            progress,
            stopped,
            rebuilding: watch::Sender::new(None),
            tasks: Mutex::new(Some(tasks)),
        };
        Ok(Self { shared: Arc::new(shared), seal: None })
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

    /// The projections that have stopped, as far as this node knows.
    pub fn stopped(&self) -> Vec<Status> {
        self.shared.stopped.borrow().clone()
    }

    /// Stops following the log and closes the connections.
    pub async fn close(&self) {
        let tasks = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Tasks { projector, close, rebuild }) = tasks {
            // A projector that has ended already need not be told to.
            let _ = close.send(());
            if let Err(error) = projector.await {
                tracing::error!(%error, "the projector ended badly");
            }
            if let Some(rebuild) = rebuild {
                rebuild.abort();
                // It was either ended now, or before.
                let _ = rebuild.await;
            }
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
