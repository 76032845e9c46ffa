//! The store of many nodes: one Postgres database, one appender with group commit in each node, readers beside it.
//!
//! The head is one row. An append moves it from where its appender believes it to be, in the same statement that
//! inserts the events; so whoever succeeds has judged by the newest truth, and whoever does not looks again while
//! it holds the row. The row's `fence` grows with every takeover of a shard, with every key of a data subject that is
//! retired and with every connection of an appender: a statement of a connection that was lost can no longer succeed once the next one is there, and what
//! became of it is then found by the ids of its commands.

mod answer;
mod appender;
mod copy;
mod database;
mod error;
mod leases;
mod read;
mod reader;
mod rows;
mod schema;
#[cfg(any(test, feature = "test-util"))]
pub mod server;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::answer::Reader;
use self::appender::Appender;
use self::writer::Writer;
use super::columns::above;
use super::intake::{self, Intake};
use super::{AppendError, AppendRequest, Appended, EventStore, Head, ReadError, Reservation};
use crate::event::Recorded;
use crate::id::{CommandId, KeyId, Position, StreamId, Version};

pub(crate) use self::answer::{answered, give_back, within};
pub(super) use self::copy::Side;
pub use self::database::{Database, InvalidUrl};
pub use self::error::OpenError;
pub use self::reader::ReadOnly;
pub use self::schema::Standing;

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
    /// How long the server may work at one statement before it gives up, in milliseconds.
    pub statement_ms: u64,
    /// How long an answer of the server is waited for before the connection counts as lost, in milliseconds.
    pub answer_ms: u64,
    /// How long a lost connection is tried anew, to learn what became of its last batch, before the batch is
    /// answered with [`AppendError::Unknown`], in milliseconds.
    pub resolve_ms: u64,
    /// How long to wait between two tries to connect, in milliseconds.
    pub retry_ms: u64,
    /// How often to look for what other nodes have appended, in milliseconds.
    pub poll_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            intake_requests_max: 8_192,
            intake_bytes_max: 64 << 20,
            batch_requests_max: 512,
            batch_bytes_max: 4 << 20,
            cached_keys_max: 100_000,
            read_connections_max: 8,
            read_wait_ms: 5_000,
            statement_ms: 10_000,
            answer_ms: 15_000,
            resolve_ms: 20_000,
            retry_ms: 50,
            poll_ms: 100,
        }
    }
}

/// An event store in a Postgres database, which any number of processes share. Clones are handles to the same
/// appender.
#[derive(Clone, Debug)]
pub struct Postgres {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    intake: Intake,
    reader: Reader,
    leases: PgPool,
    head: watch::Receiver<Position>,
    appender: Mutex<Option<JoinHandle<()>>>,
}

impl Postgres {
    /// Opens the log of `database`; one without any tables of the log is given them.
    pub async fn open(database: &Database, options: Options) -> Result<Self, OpenError> {
        schema::prepare(database, schema::IfOlder::Refuse).await?;
        let (writer, known) = Writer::open(database, &options).await?;
        let reader = Reader::open(database, &options).await?;
        let leases = leases::connect(database).await?;
        leases::forget(&leases).await;
        let (intake, queue) = intake::open(intake::Limits {
            requests_max: options.intake_requests_max,
            bytes_max: options.intake_bytes_max,
            batch_requests_max: options.batch_requests_max,
            batch_bytes_max: options.batch_bytes_max,
        });
        let head = Arc::new(watch::Sender::new(known.head.position));
        tokio::spawn(look_around(Arc::clone(&head), reader.clone(), Duration::from_millis(options.poll_ms)));
        let receiver = head.subscribe();
        let appender = Appender::new(database.clone(), options, writer, known, queue, head);
        let appender = Mutex::new(Some(tokio::spawn(appender.run())));
        Ok(Self { shared: Arc::new(Shared { intake, reader, leases, head: receiver, appender }) })
    }

    /// Brings the log of `database` to this version's schema; says whether there was anything to do.
    pub async fn migrate(database: &Database) -> Result<bool, OpenError> {
        schema::prepare(database, schema::IfOlder::Migrate).await
    }

    /// Says what `database` holds, and changes nothing.
    pub async fn look(database: &Database) -> Result<Standing, OpenError> {
        schema::look(database).await
    }

    /// Refuses further appends, makes durable what was taken in, and closes the connections.
    pub async fn close(&self) {
        self.shared.intake.close().await;
        let appender = self.shared.appender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(appender) = appender
            && let Err(error) = appender.await
        {
            tracing::error!(%error, "the log's appender ended badly");
        }
        self.shared.reader.close().await;
        self.shared.leases.close().await;
    }
}

#[async_trait]
impl EventStore for Postgres {
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        self.shared.intake.append(request, Vec::new()).await
    }

    async fn append_sealed(&self, request: AppendRequest, keys: Vec<KeyId>) -> Result<Appended, AppendError> {
        self.shared.intake.append(request, keys).await
    }

    async fn fence(&self) -> Result<(), AppendError> {
        let raised = sqlx::query(include_str!("postgres/sql/raise_fence.sql")).execute(&self.shared.leases);
        let unavailable = |error: sqlx::Error| AppendError::Unavailable { reason: error.to_string().into() };
        raised.await.map(drop).map_err(unavailable)
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        read::command(&self.shared.reader, id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        read::log(&self.shared.reader, above(after), limit.min(READ_EVENTS_MAX)).await
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

    fn watch(&self) -> watch::Receiver<Position> {
        self.shared.head.clone()
    }
}

/// Hints at what other nodes append, until nobody watches any more.
async fn look_around(head: Arc<watch::Sender<Position>>, reader: Reader, pause: Duration) {
    loop {
        tokio::select! {
            () = head.closed() => return,
            () = reader.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        // A database that is away says so to whoever appends or reads.
        if let Ok(found) = read::head(&reader).await {
            hint(&head, found.position);
        }
    }
}

/// A head never goes back, whoever saw it first.
fn hint(head: &watch::Sender<Position>, found: Position) {
    head.send_if_modified(|seen| {
        let is_new = found > *seen;
        *seen = found.max(*seen);
        is_new
    });
}
