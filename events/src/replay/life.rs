//! The life of one entity: its own events, what caused them, what they led to, and who else speaks of it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::event::Recorded;
use crate::id::{Position, StreamId, Version};

/// How an event belongs to an entity's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// It happened to the entity.
    Own,
    /// An event of the entity caused it.
    Effect,
    /// It names the entity.
    Mention,
}

/// One event of a life.
#[derive(Clone, Debug)]
pub struct Step {
    /// The event.
    pub event: Recorded,
    /// How it belongs.
    pub relation: Relation,
    /// The event that caused it, as far as it says: position and kind.
    pub cause: Option<(Position, Arc<str>)>,
    /// Milliseconds since the entity's event before; 0 for the first.
    pub since_ms: u64,
}

/// Picks the events of one entity's life from the log, in order.
pub struct Life {
    entity: StreamId,
    prefix: String,
    /// Where the event of a stream's version is. The key is a hash of both, so that a long log takes little memory.
    places: HashMap<u64, (Position, Arc<str>)>,
    hasher: RandomState,
    kinds: HashMap<Arc<str>, Arc<str>>,
    last: Option<crate::id::Timestamp>,
}

impl Life {
    /// The life of `entity`.
    pub fn of(entity: StreamId) -> Self {
        let prefix = format!("{entity}@");
        Self {
            entity,
            prefix,
            places: HashMap::new(),
            hasher: RandomState::new(),
            kinds: HashMap::new(),
            last: None,
        }
    }

    /// The next event of the log, as a step if it belongs to the life.
    pub fn step(&mut self, event: &Recorded) -> Option<Step> {
        let cause = event.meta.causation_id.as_deref().and_then(|cause| self.place(cause));
        self.remember(event);
        let relation = self.relation(event)?;
        let since_ms = self.last.map_or(0, |last| event.recorded_at.ms_since(last));
        if relation == Relation::Own {
            self.last = Some(event.recorded_at);
        }
        Some(Step { event: event.clone(), relation, cause, since_ms })
    }

    fn relation(&self, event: &Recorded) -> Option<Relation> {
        let caused = event.meta.causation_id.as_deref().is_some_and(|cause| cause.starts_with(&self.prefix));
        match () {
            () if event.stream == self.entity => Some(Relation::Own),
            () if caused => Some(Relation::Effect),
            () if event.payload.contains(&*self.entity.id) || event.stream.id.contains(&*self.entity.id) => {
                Some(Relation::Mention)
            }
            () => None,
        }
    }

    fn key(&self, stream: &str, version: Version) -> u64 {
        self.hasher.hash_one((stream, version))
    }

    fn remember(&mut self, event: &Recorded) {
        let kind =
            Arc::clone(self.kinds.entry(Arc::clone(&event.kind)).or_insert_with(|| Arc::clone(&event.kind)));
        let key = self.key(&event.stream.to_string(), event.version);
        self.places.insert(key, (event.position, kind));
    }

    /// The event that `<stream>@<version>` names.
    fn place(&self, cause: &str) -> Option<(Position, Arc<str>)> {
        let (stream, version) = cause.rsplit_once('@')?;
        self.places.get(&self.key(stream, Version(version.parse().ok()?))).cloned()
    }
}
