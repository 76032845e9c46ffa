//! The log as one life of the platform sees it: cut when that life ends, and broken on purpose where a test asks.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use events::lease::{LeaseError, Leases, Secret, Table};
use events::store::{Epoch, Expected, Head, Memory, ReadError, Reservation};
use events::{
    AppendError, AppendRequest, Appended, CommandId, EventStore, Position, Recorded, StreamId, Version,
};
use tokio::sync::watch;

use super::life::Life;

/// Which law is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// None.
    None,
    /// The store takes a command that it has taken before for a new one (ES-5).
    Dedupe,
    /// The store gives neighbouring events in the wrong order (ES-1).
    Order,
    /// The gateway stamps the newest fence on every result, however old the attempt (TK-2).
    Fencing,
}

/// A log that is cut off when a life ends.
pub struct Wire {
    log: Memory,
    life: Life,
    /// While it says so, nothing gets through, and all of it does afterwards: a process that is stopped for a while.
    stopped: watch::Receiver<bool>,
    sabotage: Sabotage,
    forged: Arc<AtomicU64>,
    /// How long an answer about leases takes.
    answer: Duration,
}

impl Wire {
    pub fn new(log: Memory, life: Life, stopped: watch::Receiver<bool>, sabotage: Sabotage) -> Self {
        Self { log, life, stopped, sabotage, forged: Arc::default(), answer: Duration::ZERO }
    }

    /// The same with leases far away.
    pub fn answering_within(self, answer: Duration) -> Self {
        Self { answer, ..self }
    }

    /// What the process does with the leases.
    async fn answered<T>(&self, step: impl Future<Output = T>) -> T {
        if !self.answer.is_zero() {
            tokio::time::sleep(self.answer).await;
        }
        self.through(step).await
    }

    /// What the process does with the log, while it lives and is not stopped.
    async fn through<T>(&self, step: impl Future<Output = T>) -> T {
        let step = async {
            // Asked again and again, since a watch wakes those who wait in an order of its own.
            while *self.stopped.borrow() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            step.await
        };
        self.life.within(step).await
    }

    /// The same command under another id: what a store does that forgets which commands it has taken.
    async fn forget(&self, mut request: AppendRequest) -> AppendRequest {
        let known = self.log.find_command(request.command_id).await.ok().flatten();
        if self.sabotage == Sabotage::Dedupe && known.is_some() {
            let count = self.forged.fetch_add(1, Ordering::Relaxed).to_string();
            request.command_id = CommandId::derive(&["forged", &request.command_id.to_string(), &count]);
            request.expected = Expected::Any;
        }
        request
    }
}

#[async_trait]
impl EventStore for Wire {
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        let kinds: Vec<Arc<str>> = request.events.iter().map(|event| Arc::clone(&event.kind)).collect();
        kinds.iter().for_each(|kind| self.life.before(kind));
        let append = async {
            let appended = self.log.append(self.forget(request).await).await;
            kinds.iter().for_each(|kind| self.life.after(kind));
            appended
        };
        self.through(append).await
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        self.through(self.log.find_command(id)).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        let mut events = self.through(self.log.read(after, limit)).await?;
        if self.sabotage == Sabotage::Order && events.len() > 7 {
            events.swap(5, 6);
        }
        Ok(events)
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.through(self.log.read_stream(stream, after, limit)).await
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        self.through(self.log.find_reservation(name)).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.through(self.log.head()).await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.log.watch()
    }
}

#[async_trait]
impl Leases for Wire {
    async fn renew(&self, node: &str, held: &[Epoch], ttl: Duration) -> Result<Vec<Epoch>, LeaseError> {
        self.answered(self.log.renew(node, held, ttl)).await
    }

    async fn claim(
        &self,
        node: &str,
        held: &[Epoch],
        most: usize,
        ttl: Duration,
    ) -> Result<Vec<Epoch>, LeaseError> {
        self.answered(self.log.claim(node, held, most, ttl)).await
    }

    async fn release(&self, node: &str, leases: &[Epoch]) -> Result<(), LeaseError> {
        self.answered(self.log.release(node, leases)).await
    }

    async fn leave(&self, node: &str) -> Result<(), LeaseError> {
        self.answered(self.log.leave(node)).await
    }

    async fn secret(&self) -> Result<Secret, LeaseError> {
        self.answered(self.log.secret()).await
    }

    async fn table(&self) -> Result<Table, LeaseError> {
        self.answered(self.log.table()).await
    }
}
