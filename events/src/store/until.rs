//! A log as it was: its first events, and nothing after.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{AppendError, AppendRequest, Appended, EventStore, Head, ReadError, Reservation};
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};

/// Another log's events up to a head. Nothing is appended to it; names and commands are those of now.
pub struct Until {
    store: Arc<dyn EventStore>,
    head: Head,
}

impl Until {
    /// `store` as it was when its head was `head`.
    pub fn new(store: Arc<dyn EventStore>, head: Head) -> Self {
        Self { store, head }
    }

    fn cut(&self, mut events: Vec<Recorded>) -> Vec<Recorded> {
        events.retain(|event| event.position <= self.head.position);
        events
    }
}

fn past() -> AppendError {
    AppendError::Unavailable { reason: "what was is only read".into() }
}

#[async_trait]
impl EventStore for Until {
    async fn append(&self, _: AppendRequest) -> Result<Appended, AppendError> {
        Err(past())
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        self.store.find_command(id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        Ok(self.cut(self.store.read(after, limit).await?))
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        Ok(self.cut(self.store.read_stream(stream, after, limit).await?))
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        self.store.find_reservation(name).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        Ok(self.head)
    }

    fn watch(&self) -> watch::Receiver<Position> {
        watch::channel(self.head.position).1
    }
}
