//! The embedded store: one SQLite file, one appender with group commit, readers beside it.
//!
//! The data directory belongs to one process at a time ([`OpenError::InUse`]), so the appender's cache of the
//! head and the streams' versions is the truth, and the file's unique constraints are the belt.

mod appender;
mod error;
mod lines;
mod lock;
mod read;
mod reader;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::appender::Appender;
use self::lock::DirectoryLock;
use self::writer::Writer;
use super::intake::{self, Intake};
use super::{AppendError, AppendRequest, Appended, Epoch, EventStore, Head, ReadError, Reservation};
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};

pub use self::error::OpenError;
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
    reader: SqlitePool,
    head: watch::Receiver<Position>,
    appender: Mutex<Option<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens the log of `directory`, which is made if it is missing, and takes the directory for this process.
    pub async fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let directory = directory.as_ref();
        let lock = DirectoryLock::take(directory)?;
        let file = directory.join(LOG_FILE);
        schema::prepare(&file, schema::IfOlder::Refuse).await?;
        let (writer, known) = Writer::open(&file, &options).await?;
        let reader = reader(&file, &options).await?;
        let (intake, queue) = intake::open(intake::Limits {
            requests_max: options.intake_requests_max,
            bytes_max: options.intake_bytes_max,
            batch_requests_max: options.batch_requests_max,
            batch_bytes_max: options.batch_bytes_max,
        });
        let (head_sender, head) = watch::channel(known.head.position);
        let appender = Appender::new(file, options, lock, writer, known, queue, head_sender);
        let shared =
            Shared { intake, reader, head, appender: Mutex::new(Some(tokio::spawn(appender.run()))) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Brings the log of `directory` to this version's schema; says whether there was anything to do.
    pub async fn migrate(directory: impl AsRef<Path>) -> Result<bool, OpenError> {
        let directory = directory.as_ref();
        let _lock = DirectoryLock::take(directory)?;
        schema::prepare(&directory.join(LOG_FILE), schema::IfOlder::Migrate).await
    }

    /// Refuses further appends, makes durable what was taken in, and gives the directory back.
    pub async fn close(&self) {
        self.shared.intake.close().await;
        let appender = self.shared.appender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(appender) = appender
            && let Err(error) = appender.await
        {
            tracing::error!(%error, "the log's appender ended badly");
        }
        self.shared.reader.close().await;
    }
}

#[async_trait]
impl EventStore for Sqlite {
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        self.shared.intake.append(request).await
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        read::command(&self.shared.reader, id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        read::log(&self.shared.reader, after, limit.min(READ_EVENTS_MAX)).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        read::stream(&self.shared.reader, stream, after, limit.min(READ_EVENTS_MAX)).await
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        read::holder(&self.shared.reader, name).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        read::head(&self.shared.reader).await
    }

    async fn take_shard(&self, shard: u8, holder: &str) -> Result<Epoch, AppendError> {
        self.shared.intake.take_shard(shard, holder).await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.shared.head.clone()
    }
}

/// What every connection to a file of the data directory has in common.
fn connection(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
}

async fn reader(file: &Path, options: &Options) -> Result<SqlitePool, OpenError> {
    let connection = connection(file).read_only(true);
    SqlitePoolOptions::new()
        .max_connections(options.read_connections_max)
        .acquire_timeout(Duration::from_millis(options.read_wait_ms))
        .connect_with(connection)
        .await
        .map_err(|error| OpenError::database(file, &error))
}
