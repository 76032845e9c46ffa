//! The state of `platform/access`, as far as it was read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::api::{Problem, ProblemKind};
use events::domain::access::{Access, Event, ID, State};
use events::domain::{Decider as _, DomainEvent as _};
use events::{EntityKind, EventStore, Recorded, StreamId, Timestamp, Version};

/// How old what is known may be when somebody comes in.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Events read at a time.
const BATCH_EVENTS: usize = 1_000;

pub(super) struct Known {
    pub(super) store: Arc<dyn EventStore>,
    folded: Mutex<Folded>,
    /// Held by whoever reads on.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
pub(super) struct Folded {
    pub(super) state: Arc<State>,
    pub(super) version: Version,
    read_at: Option<Instant>,
}

pub(super) fn stream() -> StreamId {
    StreamId::new(EntityKind::Platform, ID)
}

impl Known {
    pub(super) fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store, folded: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// The state, not older than [`AGE_MAX`].
    pub(super) async fn current(&self) -> Result<Arc<State>, Problem> {
        if let Some(state) = self.fresh() {
            return Ok(state);
        }
        let reading = self.reading.lock().await;
        // Somebody else may have read on meanwhile.
        if let Some(state) = self.fresh() {
            return Ok(state);
        }
        self.read_on(&reading).await.map(|folded| folded.state)
    }

    /// The state as the log has it now.
    pub(super) async fn refreshed(&self) -> Result<Arc<State>, Problem> {
        self.folded().await.map(|folded| folded.state)
    }

    /// The same, with its version.
    pub(super) async fn folded(&self) -> Result<Folded, Problem> {
        let reading = self.reading.lock().await;
        self.read_on(&reading).await
    }

    /// The state at some time in the past.
    pub(super) async fn at(&self, time: Timestamp) -> Result<State, Problem> {
        let (mut state, mut after) = (State::default(), Version::default());
        loop {
            let batch = self.store.read_stream(&stream(), after, BATCH_EVENTS).await?;
            let Some(last) = batch.last() else { return Ok(state) };
            after = last.version;
            for event in batch.iter().filter(|event| event.recorded_at <= time) {
                state = Access::evolve(state, &decoded(event)?);
            }
        }
    }

    fn fresh(&self) -> Option<Arc<State>> {
        let folded = self.lock();
        folded.read_at.is_some_and(|at| at.elapsed() < AGE_MAX).then(|| Arc::clone(&folded.state))
    }

    async fn read_on(&self, _: &tokio::sync::MutexGuard<'_, ()>) -> Result<Folded, Problem> {
        let (mut folded, begun) = (self.lock().clone(), Instant::now());
        loop {
            let batch = self.store.read_stream(&stream(), folded.version, BATCH_EVENTS).await?;
            let Some(last) = batch.last() else { break };
            folded.version = last.version;
            let mut state = State::clone(&folded.state);
            for event in &batch {
                state = Access::evolve(state, &decoded(event)?);
            }
            folded.state = Arc::new(state);
        }
        folded.read_at = Some(begun);
        *self.lock() = folded.clone();
        Ok(folded)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Folded> {
        self.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decoded(event: &Recorded) -> Result<Event, Problem> {
    Event::decode(&event.kind, event.schema, &event.payload).map_err(|error| {
        let detail = format!("read who may come in, at position {}: {error}", event.position);
        Problem::new(ProblemKind::Internal, detail)
    })
}
