//! The embedded store: one SQLite file, one appender with group commit, readers beside it.
//!
//! The data directory belongs to one process at a time ([`OpenError::InUse`]), so the appender's cache of the
//! head and the streams' versions is the truth, and the file's unique constraints are the belt.

mod appender;
mod connection;
mod copy;
mod error;
mod leases;
mod lock;
mod read;
mod reader;
mod rows;
mod schema;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use self::appender::Appender;
use self::read::Readers;
use self::tail::Tail;
use self::writer::Writer;
use super::columns::above;
use super::intake::{self, Intake};
use super::{AppendError, AppendRequest, Appended, EventStore, Head, ReadError, Reservation};
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};

pub(super) use self::copy::Side;
pub use self::error::OpenError;
pub use self::lock::{DirectoryLock, LOCK_FILE};
pub use self::reader::ReadOnly;

/// The log's file in the data directory.
pub const LOG_FILE: &str = "log.db";

/// Most events that one read gives.
pub const READ_EVENTS_MAX: usize = 10_000;

/// The store's limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most requests that wait for the appender; above it an append answers [`AppendError::Full`].
    pub intake_requests_max: usize,
    /// Most bytes that wait for the appender.
    pub intake_bytes_max: usize,
    /// Most requests that become durable in one commit.
    pub batch_requests_max: usize,
    /// Most bytes that become durable in one commit.
    pub batch_bytes_max: usize,
    /// Streams and commands that the appender remembers.
    pub cached_keys_max: usize,
    /// Newest events that are kept in memory for those who follow the log.
    pub tail_events_max: usize,
    /// Most bytes of payload in them.
    pub tail_bytes_max: usize,
    /// Connections that read.
    pub read_connections_max: u32,
    /// How long a read waits for a connection, in milliseconds.
    pub read_wait_ms: u64,
    /// Most pages of 4 KiB that the file may have; above it an append answers [`AppendError::Unavailable`].
    pub file_pages_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            intake_requests_max: 8_192,
            intake_bytes_max: 64 << 20,
            batch_requests_max: 512,
            batch_bytes_max: 4 << 20,
            cached_keys_max: 100_000,
            tail_events_max: 4_096,
            tail_bytes_max: 8 << 20,
            read_connections_max: 4,
            read_wait_ms: 10_000,
            file_pages_max: u32::MAX - 1,
        }
    }
}

/// An event store in `log.db` of a data directory. Clones are handles to the same log.
#[derive(Clone, Debug)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    intake: Intake,
    file: PathBuf,
    readers: Arc<Readers>,
    tail: Arc<Tail>,
    head: watch::Receiver<Position>,
    appender: Mutex<Option<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens the log of `directory`, which is made if it is missing, and takes the directory for this process.
    pub async fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let directory = directory.as_ref().to_owned();
        unblocked(move || Self::open_now(&directory, options)).await
    }

    fn open_now(directory: &Path, options: Options) -> Result<Self, OpenError> {
        let lock = DirectoryLock::take(directory)?;
        let file = directory.join(LOG_FILE);
        schema::prepare(&file, schema::IfOlder::Refuse)?;
        leases::end_all(&file)?;
        let (writer, known) = Writer::open(&file, &options)?;
        let readers = Arc::new(Readers::open(file.clone(), &options)?);
        let (intake, queue) = intake::open(intake::Limits {
            requests_max: options.intake_requests_max,
            bytes_max: options.intake_bytes_max,
            batch_requests_max: options.batch_requests_max,
            batch_bytes_max: options.batch_bytes_max,
        });
        let last = known.head.position;
        let tail = Arc::new(Tail::new(last, options.tail_events_max, options.tail_bytes_max));
        let (head_sender, head) = watch::channel(last);
        let appender = Appender {
            file: file.clone(),
            options,
            writer: Some(writer),
            known,
            queue,
            tail: Arc::clone(&tail),
            head: head_sender,
            _lock: lock,
        };
        let runtime = Handle::current();
        let thread = thread::Builder::new().name("log-appender".to_owned());
        let thread = thread
            .spawn(move || appender.run(&runtime))
            .map_err(|error| OpenError::Directory { directory: directory.into(), error: Arc::new(error) })?;
        let shared = Shared { intake, file, readers, tail, head, appender: Mutex::new(Some(thread)) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Brings the log of `directory` to this version's schema; says whether there was anything to do.
    pub async fn migrate(directory: impl AsRef<Path>) -> Result<bool, OpenError> {
        let directory = directory.as_ref().to_owned();
        unblocked(move || {
            let _lock = DirectoryLock::take(&directory)?;
            schema::prepare(&directory.join(LOG_FILE), schema::IfOlder::Migrate)
        })
        .await
    }

    /// Refuses further appends, makes durable what was taken in, and gives the directory back.
    pub async fn close(&self) {
        self.shared.intake.close().await;
        let appender = self.shared.appender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(appender) = appender
            && !matches!(spawn_blocking(move || appender.join()).await, Ok(Ok(())))
        {
            tracing::error!("the log's appender ended badly");
        }
        self.shared.readers.close().await;
    }
}

#[async_trait]
impl EventStore for Sqlite {
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        self.shared.intake.append(request, Vec::new()).await
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        self.shared.readers.command(id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        // Whoever begins at the beginning wants to know what the file has.
        let kept = (after > Position(0)).then(|| self.shared.tail.after(after, limit.min(READ_EVENTS_MAX)));
        match kept.flatten() {
            Some(events) => Ok(events),
            None => self.shared.readers.log(above(after), limit).await,
        }
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.shared.readers.stream(stream, after, limit).await
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        self.shared.readers.holder(name).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.shared.readers.head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.shared.head.clone()
    }
}

/// Runs what may wait for the disk beside the runtime's threads.
async fn unblocked<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    spawn_blocking(work).await.unwrap_or_else(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => unreachable!("nobody cancels it: {error}"),
    })
}
