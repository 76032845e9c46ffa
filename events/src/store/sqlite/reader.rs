//! The log of a data directory, only read: beside the process that has it, or where none has.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::read::Readers;
use super::{LOG_FILE, OpenError, Options, unblocked};
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};
use crate::store::columns::{above, signed};
use crate::store::{AppendError, AppendRequest, Appended, EventStore, Head, ReadError, Reservation};

/// A log that is only read. It takes no lock, and appends nothing.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    pub(super) readers: Arc<Readers>,
}

impl ReadOnly {
    /// Opens the log of a data directory, or a log file by its own path.
    pub async fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join(LOG_FILE) } else { path.to_owned() };
        let options = options.clone();
        let readers = unblocked(move || Readers::open(file, &options)).await?;
        Ok(Self { readers: Arc::new(readers) })
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
    }
}

#[async_trait]
impl EventStore for ReadOnly {
    async fn append(&self, _: AppendRequest) -> Result<Appended, AppendError> {
        Err(AppendError::Unavailable { reason: "the log was opened to be read only".into() })
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        self.readers.command(id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.readers.log(above(after), limit).await
    }

    async fn read_counted(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.readers.log(signed(after.0), limit).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.readers.stream(stream, after, limit).await
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        self.readers.holder(name).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.readers.head().await
    }

    /// Nobody hints: whoever follows looks from time to time.
    fn watch(&self) -> watch::Receiver<Position> {
        watch::channel(Position(0)).1
    }
}
