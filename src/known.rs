//! The state of an entity that every node folds for itself, as far as it was read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::api::{Caller, Problem, ProblemKind};
use events::domain::{Decider, DomainEvent};
use events::{AppendRequest, Digest, EventStore, Expected, Recorded, StreamId, Timestamp, Version};

/// How old what is known may be when somebody comes in.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Events read at a time.
const BATCH_EVENTS: usize = 1_000;

pub(crate) struct Known<D: Decider> {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) stream: StreamId,
    folded: Mutex<Folded<D>>,
    /// Held by whoever reads on.
    reading: tokio::sync::Mutex<()>,
}

pub(crate) struct Folded<D: Decider> {
    pub(crate) state: Arc<D::State>,
    pub(crate) version: Version,
    read_at: Option<Instant>,
}

impl<D: Decider> Clone for Folded<D> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), version: self.version, read_at: self.read_at }
    }
}

impl<D: Decider> Known<D> {
    /// What is known of the entity with this id.
    pub(crate) fn new(store: Arc<dyn EventStore>, id: &str) -> Self {
        let folded = Folded { state: Arc::default(), version: Version::default(), read_at: None };
        let (folded, stream) = (Mutex::new(folded), StreamId::new(D::KIND, id));
        Self { store, stream, folded, reading: tokio::sync::Mutex::default() }
    }

    /// The state, not older than [`AGE_MAX`].
    pub(crate) async fn current(&self) -> Result<Arc<D::State>, Problem> {
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
    pub(crate) async fn refreshed(&self) -> Result<Arc<D::State>, Problem> {
        self.folded().await.map(|folded| folded.state)
    }

    /// The same, with its version.
    pub(crate) async fn folded(&self) -> Result<Folded<D>, Problem> {
        let reading = self.reading.lock().await;
        self.read_on(&reading).await
    }

    /// The state at some time in the past.
    pub(crate) async fn at(&self, time: Timestamp) -> Result<D::State, Problem> {
        let (mut state, mut after) = (D::State::default(), Version::default());
        loop {
            let batch = self.store.read_stream(&self.stream, after, BATCH_EVENTS).await?;
            let Some(last) = batch.last() else { return Ok(state) };
            after = last.version;
            for event in batch.iter().filter(|event| event.recorded_at <= time) {
                state = D::evolve(state, &decoded::<D>(event)?);
            }
        }
    }

    /// What would append these events as the next ones, in the name of `caller`.
    pub(crate) fn request(
        &self,
        caller: &Caller,
        digest: Digest,
        folded: &Folded<D>,
        events: &[D::Event],
    ) -> AppendRequest {
        AppendRequest {
            stream: self.stream.clone(),
            expected: Expected::Exact(folded.version),
            command_id: caller.command_id(),
            command_digest: Some(digest),
            epoch: None,
            meta: caller.meta(),
            recorded_at: Timestamp::now(),
            events: events.iter().map(DomainEvent::encode).collect(),
            reserve: Vec::new(),
            release: Vec::new(),
        }
    }

    fn fresh(&self) -> Option<Arc<D::State>> {
        let folded = self.lock();
        folded.read_at.is_some_and(|at| at.elapsed() < AGE_MAX).then(|| Arc::clone(&folded.state))
    }

    async fn read_on(&self, _: &tokio::sync::MutexGuard<'_, ()>) -> Result<Folded<D>, Problem> {
        let (mut folded, begun) = (self.lock().clone(), Instant::now());
        loop {
            let batch = self.store.read_stream(&self.stream, folded.version, BATCH_EVENTS).await?;
            let Some(last) = batch.last() else { break };
            folded.version = last.version;
            let mut state = D::State::clone(&folded.state);
            for event in &batch {
                state = D::evolve(state, &decoded::<D>(event)?);
            }
            folded.state = Arc::new(state);
        }
        folded.read_at = Some(begun);
        *self.lock() = folded.clone();
        Ok(folded)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Folded<D>> {
        self.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decoded<D: Decider>(event: &Recorded) -> Result<D::Event, Problem> {
    D::Event::decode(&event.kind, event.schema, &event.payload).map_err(|error| {
        let detail = format!("read `{}`, at position {}: {error}", event.stream, event.position);
        Problem::new(ProblemKind::Internal, detail)
    })
}
