//! The log of a database, only read: beside the nodes that append to it, by a role that may do no more.

use async_trait::async_trait;
use tokio::sync::watch;

use super::answer::Reader;
use super::{Database, OpenError, Options, READ_EVENTS_MAX, read, schema};
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};
use crate::store::columns::{above, signed};
use crate::store::{AppendError, AppendRequest, Appended, EventStore, Head, ReadError, Reservation};

/// A log that is only read.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    pub(super) reader: Reader,
}

impl ReadOnly {
    /// Opens the log of `database`, which must hold one.
    pub async fn open(database: &Database, options: &Options) -> Result<Self, OpenError> {
        schema::check(database).await?;
        Ok(Self { reader: Reader::open(database, options).await? })
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.reader.close().await;
    }
}

#[async_trait]
impl EventStore for ReadOnly {
    async fn append(&self, _: AppendRequest) -> Result<Appended, AppendError> {
        Err(AppendError::Unavailable { reason: "the log was opened to be read only".into() })
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        read::command(&self.reader, id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        read::log(&self.reader, above(after), limit.min(READ_EVENTS_MAX)).await
    }

    async fn read_counted(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        read::log(&self.reader, signed(after.0), limit.min(READ_EVENTS_MAX)).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        read::stream(&self.reader, stream, after, limit.min(READ_EVENTS_MAX)).await
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        read::holder(&self.reader, name).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        read::head(&self.reader).await
    }

    /// Nobody hints: whoever follows looks from time to time.
    fn watch(&self) -> watch::Receiver<Position> {
        watch::channel(Position(0)).1
    }
}
