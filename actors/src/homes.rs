//! Which crew an agent or a task belongs to: its stream begins with it, and it never changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use events::api::{Problem, ProblemKind};
use events::domain::DomainEvent;
use events::{CrewId, StreamId, Version};

use crate::core::Core;
use crate::entity::Hosted;

/// Answers kept in memory.
const CACHED_MAX: usize = 65_536;

/// Crews of agents and tasks, by their ids. The log is asked, not the views, which may not have seen them yet.
#[derive(Default)]
pub(crate) struct Homes(Mutex<HashMap<Arc<str>, CrewId>>);

impl Homes {
    /// The crew of an entity; `None` where there is no such entity.
    pub(crate) async fn of<D: Hosted>(&self, core: &Core, id: &str) -> Result<Option<CrewId>, Problem> {
        if let Some(crew) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(Some(crew.clone()));
        }
        let stream = StreamId::new(D::KIND, id);
        let events = core.store.read_stream(&stream, Version(0), 1).await?;
        let Some(first) = events.first() else { return Ok(None) };
        let event = D::Event::decode(&first.kind, first.schema, &first.payload)
            .map_err(|error| Problem::new(ProblemKind::Internal, format!("load {stream}: {error}")))?;
        let crew = D::crew(&D::evolve(D::State::default(), &event)).cloned();
        if let Some(crew) = &crew {
            let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if cached.len() >= CACHED_MAX {
                cached.clear();
            }
            cached.insert(id.into(), crew.clone());
        }
        Ok(crew)
    }
}
