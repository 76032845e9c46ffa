//! The log of a data directory, only read: beside the process that has it, or where none has.

use std::path::Path;

use async_trait::async_trait;
use sqlx::sqlite::SqlitePool;
use tokio::sync::watch;

use super::{LOG_FILE, OpenError, Options, READ_EVENTS_MAX, read, schema};
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};
use crate::store::{AppendError, AppendRequest, Appended, Epoch, EventStore, Head, ReadError, Reservation};

/// A log that is only read. It takes no lock, and appends nothing.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    pool: SqlitePool,
}

impl ReadOnly {
    /// Opens the log of a data directory, or a log file by its own path.
    pub async fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join(LOG_FILE) } else { path.to_owned() };
        let pool = super::reader(&file, options).await?;
        schema::inspect(&file, &pool).await?;
        Ok(Self { pool })
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

#[async_trait]
impl EventStore for ReadOnly {
    async fn append(&self, _: AppendRequest) -> Result<Appended, AppendError> {
        Err(AppendError::Unavailable { reason: "the log was opened to be read only".into() })
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        read::command(&self.pool, id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        read::log(&self.pool, after, limit.min(READ_EVENTS_MAX)).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        read::stream(&self.pool, stream, after, limit.min(READ_EVENTS_MAX)).await
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        read::holder(&self.pool, name).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        read::head(&self.pool).await
    }

    async fn take_shard(&self, _: u8, _: &str) -> Result<Epoch, AppendError> {
        Err(AppendError::Unavailable { reason: "the log was opened to be read only".into() })
    }

    /// Nobody hints: whoever follows looks from time to time.
    fn watch(&self) -> watch::Receiver<Position> {
        watch::channel(Position(0)).1
    }
}
