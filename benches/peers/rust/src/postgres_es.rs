//! postgres-es: one table, and one row a commit.

use std::collections::HashMap;
use std::sync::Arc;

use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{EventStoreAggregateContext, PersistedEventStore};
use cqrs_es::{Aggregate, DomainEvent, EventStore as _};
use postgres_es::PostgresEventRepository;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPool;

use crate::{Peer, Progressed, Result};

/// The tables that its documentation asks for.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS events (
        aggregate_type text NOT NULL,
        aggregate_id text NOT NULL,
        sequence bigint CHECK (sequence >= 0) NOT NULL,
        event_type text NOT NULL,
        event_version text NOT NULL,
        payload json NOT NULL,
        metadata json NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    )";

impl DomainEvent for Progressed {
    fn event_type(&self) -> String {
        "progressed".to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Task {
    progress: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the task refuses")]
struct Refused;

impl Aggregate for Task {
    const TYPE: &'static str = "task";
    type Command = ();
    type Event = Progressed;
    type Error = Refused;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> std::result::Result<(), Refused> {
        Ok(())
    }

    fn apply(&mut self, event: Progressed) {
        self.progress = event.progress;
    }
}

/// A store over a pool of connections.
#[derive(Clone)]
pub(crate) struct Store(Arc<PersistedEventStore<PostgresEventRepository, Task>>);

/// Where a stream ends.
pub(crate) struct Writer {
    stream: String,
    sequence: usize,
}

impl Store {
    pub(crate) async fn open(pool: PgPool) -> Result<Self> {
        crate::prepare(&pool, TABLES).await?;
        Ok(Self(Arc::new(PersistedEventStore::new_event_store(PostgresEventRepository::new(pool)))))
    }
}

impl Peer for Store {
    type Writer = Writer;

    fn writer(&self, stream: String) -> Writer {
        Writer { stream, sequence: 0 }
    }

    async fn append(&self, writer: &mut Writer, events: Vec<Progressed>) -> Result<()> {
        let context = EventStoreAggregateContext {
            aggregate_id: writer.stream.clone(),
            aggregate: Task::default(),
            current_sequence: writer.sequence,
            current_snapshot: None,
        };
        writer.sequence += events.len();
        self.0.commit(events, context, HashMap::new()).await?;
        Ok(())
    }

    async fn load(&self, stream: &str) -> Result<u64> {
        Ok(self.0.load_events(stream).await?.len() as u64)
    }
}
