//! What is behind a gateway whose checks are measured: a log that refuses at once, and a platform that does nothing.

use std::time::Instant;

use async_trait::async_trait;
use events::domain::message::Recipient;
use events::store::{Head, Memory, ReadError, Reservation};
use events::{
    AppendError, AppendRequest, Appended, CommandId, CrewId, EventStore, Position, Recorded, SandboxId,
    StreamId, Version,
};
use gateway::{Activity, Host, HostCall, Linked, Peer, Process};
use link::ErrorType;
use serde_json::Value;
use tokio::sync::{mpsc::UnboundedSender, watch};

/// Longer than the bench: heartbeats are no part of it.
const HEARTBEAT_MS: u64 = 3_600_000;

/// An empty log that tells when something is to be appended, and takes nothing.
pub(super) struct Log {
    empty: Memory,
    asked: UnboundedSender<Instant>,
}

impl Log {
    pub(super) fn new(asked: UnboundedSender<Instant>) -> Self {
        Self { empty: Memory::new(), asked }
    }
}

#[async_trait]
impl EventStore for Log {
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        // A bench that is over does not ask.
        let _ = self.asked.send(Instant::now());
        Err(AppendError::Invalid { stream: request.stream, reason: "nothing is kept here".into() })
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        self.empty.find_command(id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.empty.read(after, limit).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.empty.read_stream(stream, after, limit).await
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        self.empty.find_reservation(name).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.empty.head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.empty.watch()
    }
}

/// A platform that lets this process in and answers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nobody;

#[async_trait]
impl Host for Nobody {
    async fn admits(&self, _: &SandboxId, process: Process) -> Option<bool> {
        Some(process.pid == std::process::id())
    }

    async fn linked(&self, _: &SandboxId, _: &link::Hello, _: bool) -> Result<Linked, link::Error> {
        Ok(Linked { heartbeat_ms: HEARTBEAT_MS, ..Linked::default() })
    }

    async fn ready(&self, _: &SandboxId, _: link::Ready) {}
    async fn failed(&self, _: &SandboxId, _: link::Failed) {}
    async fn exited(&self, _: &SandboxId, _: link::Exited) {}
    async fn drained(&self, _: &SandboxId) {}
    async fn refused(&self, _: &SandboxId, _: link::Id, _: link::Error) {}
    fn heartbeat(&self, _: &SandboxId, _: &link::Heartbeat) {}
    fn activity(&self, _: &SandboxId, _: Activity) {}
    fn link_lost(&self, _: &SandboxId, _: &str) {}

    async fn task_result(&self, _: &Peer, _: CommandId, _: link::TaskResultFrame) -> Result<(), link::Error> {
        Err(nobody())
    }

    async fn call(&self, _: &Peer, _: CommandId, _: HostCall) -> Result<Value, link::Error> {
        Err(nobody())
    }

    fn posted(&self, _: &CrewId, _: &[Recipient]) {}
    async fn messages_spent(&self, _: &Peer, _: u64) {}
    async fn spoofed(&self, _: &Peer, _: u32) {}
    async fn note(&self, _: &Peer, _: link::Note) {}
}

fn nobody() -> link::Error {
    link::Error::new(ErrorType::Unavailable, "nobody is here")
}
