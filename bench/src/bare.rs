//! The raw limits. Of the log: its table and nothing around it, written with group commit and read in one go; it judges
//! nothing, hashes nothing, and keeps no head: what it does is what any store of these rows must do. Of agents: a
//! sandbox with one small program in it.

pub(crate) mod docker;
pub(crate) mod postgres;
pub(crate) mod sqlite;
pub(crate) mod start;

use std::sync::Arc;

use events::{EventId, StreamId};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::Result;
use crate::append::{Target, request};

/// Rows that wait for the writer.
const INTAKE_ROWS_MAX: usize = 8_192;
/// Rows that become durable in one commit.
const BATCH_ROWS_MAX: usize = 512;

/// A row as its writer has it; the log gives it its position.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    stream: String,
    version: i64,
    kind: String,
    schema: i16,
    event_id: Uuid,
    command_id: Uuid,
    ordinal: i32,
    tenant: String,
    principal: String,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    traceparent: Option<String>,
    recorded_at: i64,
    epoch: i64,
    payload: String,
    hash: Vec<u8>,
}

impl Row {
    /// The event that a [`request`] appends; the hash is as long as a real one.
    fn new(stream: &StreamId, version: u64) -> Self {
        let request = request(stream, version);
        let text = |text: Option<Arc<str>>| text.map(|text| text.to_string());
        Self {
            stream: stream.to_string(),
            version: version.cast_signed(),
            kind: request.events[0].kind.to_string(),
            schema: 1,
            event_id: EventId(Uuid::now_v7()).0,
            command_id: request.command_id.0,
            ordinal: 0,
            tenant: request.meta.tenant.to_string(),
            principal: request.meta.principal.to_string(),
            correlation_id: text(request.meta.correlation_id),
            causation_id: text(request.meta.causation_id),
            traceparent: text(request.meta.traceparent),
            recorded_at: request.recorded_at.0,
            epoch: 0,
            payload: request.events[0].payload.to_string(),
            hash: vec![0xa5; 32],
        }
    }
}

/// What a chain of all rows comes to: each row's columns are hashed once, behind the hash before.
#[derive(Clone, Copy, Default)]
pub(crate) struct Chain([u8; 32]);

impl Chain {
    pub(crate) fn add(&mut self, row: &Row) {
        let mut hash = Sha256::new();
        hash.update(self.0);
        for text in [&row.stream, &row.kind, &row.tenant, &row.principal, &row.payload] {
            hash.update(text);
        }
        for text in [&row.correlation_id, &row.causation_id, &row.traceparent].into_iter().flatten() {
            hash.update(text);
        }
        for number in [row.version, row.schema.into(), row.ordinal.into(), row.recorded_at, row.epoch] {
            hash.update(number.to_be_bytes());
        }
        hash.update(row.event_id);
        hash.update(row.command_id);
        self.0 = hash.finalize().into();
    }
}

/// A row that waits for its commit.
type Waiting = (Row, oneshot::Sender<()>);

/// Hands rows to the one writer, and waits until they are durable.
#[derive(Clone)]
pub(crate) struct Group(mpsc::Sender<Waiting>);

impl Target for Group {
    async fn append(&self, stream: &StreamId, version: u64) -> Result<()> {
        let (answer, done) = oneshot::channel();
        self.0.send((Row::new(stream, version), answer)).await?;
        done.await?;
        Ok(())
    }
}
