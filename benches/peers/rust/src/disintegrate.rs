//! disintegrate: one table that is queried by what its events are about.

use disintegrate::serde::json::Json;
use disintegrate::{Event, EventStore as _, StreamItem, query};
use disintegrate_postgres::{Error, PgEventId, PgEventStore};
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPool;

use crate::{Peer, Progressed, Result};

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[stream(AnyTask, [TaskProgressed])]
enum TaskEvent {
    TaskProgressed {
        #[id]
        task_id: String,
        message: String,
        progress: u64,
        total: u64,
        note: String,
    },
}

impl TaskEvent {
    fn new(task_id: String, Progressed { message, progress, total, note }: Progressed) -> Self {
        Self::TaskProgressed { task_id, message, progress, total, note }
    }
}

/// A store over a pool of connections.
#[derive(Clone)]
pub(crate) struct Store {
    events: PgEventStore<TaskEvent, Json<TaskEvent>>,
    is_validated: bool,
}

/// The last event of a stream.
pub(crate) struct Writer {
    stream: String,
    last: PgEventId,
}

impl Store {
    /// A store whose appends are validated against what the writer has seen, or not.
    pub(crate) async fn open(pool: PgPool, is_validated: bool) -> Result<Self> {
        Ok(Self { events: PgEventStore::try_new(pool, Json::default()).await?, is_validated })
    }
}

impl Peer for Store {
    type Writer = Writer;

    fn writer(&self, stream: String) -> Writer {
        Writer { stream, last: 0 }
    }

    async fn append(&self, writer: &mut Writer, events: Vec<Progressed>) -> Result<()> {
        let stream = &writer.stream;
        let events: Vec<_> = events.into_iter().map(|event| TaskEvent::new(stream.clone(), event)).collect();
        if !self.is_validated {
            self.events.append_without_validation(events).await?;
            return Ok(());
        }
        loop {
            let query = query!(TaskEvent; task_id == stream);
            match self.events.append(events.clone(), query, writer.last).await {
                Ok(appended) => {
                    writer.last = appended.last().map_or(writer.last, |event| event.id());
                    return Ok(());
                }
                // Nobody else writes to this stream: the conflict is with a neighbour, and is tried again.
                Err(Error::Concurrency) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn load(&self, stream: &str) -> Result<u64> {
        let stream = stream.to_owned();
        let query = query!(TaskEvent; task_id == stream);
        let mut items = self.events.stream(&query);
        let mut count = 0;
        while let Some(item) = items.try_next().await? {
            count += u64::from(matches!(item, StreamItem::Event(_)));
        }
        Ok(count)
    }
}
