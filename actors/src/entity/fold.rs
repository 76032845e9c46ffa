//! What a stream says of its entity: folded from its events, or from a snapshot and the events after it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use events::api::{Problem, ProblemKind};
use events::domain::{Decider, DomainEvent};
use events::snapshot::{self, Saved};
use events::store::{Pages, ReadError};
use events::{CommandId, Meta, Recorded, StreamId, Version};

use super::Hosted;
use crate::core::Core;

/// Events read at a time when an entity is loaded.
const LOAD_BATCH_EVENTS: usize = 1_000;

/// An entity as its stream has it.
pub(super) struct Folded<D: Decider> {
    pub(super) state: Arc<D::State>,
    pub(super) version: Version,
    /// The envelope of the newest event.
    pub(super) meta: Option<Meta>,
    pub(super) obligations: Vec<D::Effect>,
}

/// Events that were in the stream before the actor knew of them, each with its command.
pub(super) type Unseen<D> = Vec<(<D as Decider>::Event, CommandId)>;

impl<D: Decider> Folded<D> {
    /// A stream without events.
    pub(super) fn nothing() -> Self {
        Self { state: Arc::default(), version: Version(0), meta: None, obligations: Vec::new() }
    }
}

impl<D: Decider> Clone for Folded<D> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            version: self.version,
            meta: self.meta.clone(),
            obligations: self.obligations.clone(),
        }
    }
}

/// An entity as its stream says it is, whichever node runs it.
pub(crate) async fn peek<D: Hosted>(core: &Arc<Core>, id: &str) -> Result<Arc<D::State>, Problem> {
    Ok(Source::<D>::new(core, &StreamId::new(D::KIND, id)).fold().await?.1.state)
}

/// Where an entity is read from.
pub(super) struct Source<'a, D> {
    core: &'a Arc<Core>,
    stream: &'a StreamId,
    entity: PhantomData<D>,
}

impl<'a, D: Hosted> Source<'a, D> {
    pub(super) fn new(core: &'a Arc<Core>, stream: &'a StreamId) -> Self {
        Self { core, stream, entity: PhantomData }
    }

    /// The entity as the stream has it now, and the version after which it was saved.
    pub(super) async fn fold(&self) -> Result<(Version, Folded<D>), Problem> {
        let saved = if D::GROWS_LONG { self.saved().await? } else { None };
        let start = saved.unwrap_or_else(Folded::nothing);
        Ok((start.version, self.read_on(start).await?.0))
    }

    /// Folds what the stream has beyond `folded`.
    pub(super) async fn read_on(&self, mut folded: Folded<D>) -> Result<(Folded<D>, Unseen<D>), Problem> {
        let stream = self.stream;
        let mut pages = Pages::after(folded.version, LOAD_BATCH_EVENTS, |after| {
            let (core, stream) = (Arc::clone(self.core), stream.clone());
            async move { until_read(&core, || core.store.read_stream(&stream, after, LOAD_BATCH_EVENTS)).await }
        });
        let mut state = (*folded.state).clone();
        let mut unseen = Vec::new();
        loop {
            let batch = pages.next().await?;
            if batch.is_empty() {
                break;
            }
            for Recorded { kind, schema, payload, version, meta, command_id, .. } in batch {
                let event = D::Event::decode(&kind, schema, &payload).map_err(|error| {
                    Problem::new(ProblemKind::Internal, format!("load {stream}: {error}"))
                })?;
                state = D::evolve(state, &event);
                folded.version = version;
                folded.meta = Some(meta);
                unseen.push((event, command_id));
            }
        }
        folded.obligations = D::obligations(&state);
        folded.state = Arc::new(state);
        Ok((folded, unseen))
    }

    /// What was saved, if the stream has the very event that it was saved after.
    async fn saved(&self) -> Result<Option<Folded<D>>, Problem> {
        let Some(saved) = snapshot::load::<D>(&*self.core.snapshots, self.stream).await else {
            return Ok(None);
        };
        let Saved { version, hash, state } = saved;
        let newest = self.event(version).await?.filter(|newest| newest.hash == hash);
        Ok(newest.map(|Recorded { meta, .. }| {
            let obligations = D::obligations(&state);
            Folded { state: Arc::new(state), version, meta: Some(meta), obligations }
        }))
    }

    /// Saves an entity that was read from here. A snapshot that fails is missed by nobody.
    pub(super) async fn save(&self, folded: &Folded<D>) {
        let (version, state) = (folded.version, &*folded.state);
        if let Ok(Some(Recorded { hash, .. })) = self.event(version).await {
            snapshot::save::<D>(&*self.core.snapshots, self.stream, Saved { version, hash, state }).await;
        }
    }

    async fn event(&self, version: Version) -> Result<Option<Recorded>, Problem> {
        let before = Version(version.0.saturating_sub(1));
        let read = || self.core.store.read_stream(self.stream, before, 1);
        let events = until_read(self.core, read).await?;
        Ok(events.into_iter().find(|event| event.version == version))
    }
}

/// Reads until the store can be read: until then nothing can be said of the entity at all.
pub(super) async fn until_read<T, F>(core: &Core, read: impl Fn() -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<T, ReadError>>,
{
    let limits = &core.options.limits;
    let mut wait = limits.effect_retry_initial_ms;
    loop {
        match read().await {
            Err(error) if core.stop.is_cancelled() => return Err(error.into()),
            Err(ReadError::Unavailable { .. }) => {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                wait = (wait * 2).min(limits.effect_retry_max_ms);
            }
            read => return Ok(read?),
        }
    }
}
