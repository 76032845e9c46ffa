//! What is told of a command that may have been given before.

use events::api::{Problem, Reply};
use events::domain::task::{Event, State, Status, Task};
use events::domain::{Decider as _, DomainEvent as _};
use events::{EntityKind, Position, StreamId, TaskId, Version};
use serde_json::json;

use super::{Answerer, Asked, reply};
use crate::entity::Outcome;

/// Events of a task that are read at a time.
const BATCH_EVENTS: usize = 200;

impl Answerer {
    /// A task and where it stood when the command had been carried out, also where that was long ago.
    pub(super) async fn told(
        &self,
        asked: &Asked<'_>,
        id: &TaskId,
        outcome: &Outcome<Task>,
    ) -> Result<Reply, Problem> {
        let position = self.position(asked, outcome).await?;
        let status = match outcome.position {
            Position(0) => self.status_at(id, position).await?,
            _ => outcome.state.status,
        };
        let body = json!({ "task": id, "status": status });
        Ok(reply(EntityKind::Task, id.as_str(), position, body))
    }

    async fn status_at(&self, id: &TaskId, position: Position) -> Result<Status, Problem> {
        let stream = StreamId::new(EntityKind::Task, id.as_str());
        let (mut state, mut after) = (State::default(), Version(0));
        loop {
            let batch = self.core.store.read_stream(&stream, after, BATCH_EVENTS).await?;
            let Some(last) = batch.last() else { return Ok(state.status) };
            after = last.version;
            for recorded in &batch {
                if recorded.position > position {
                    return Ok(state.status);
                }
                // A state that this version cannot read was refused before the command was.
                if let Ok(event) = Event::decode(&recorded.kind, recorded.schema, &recorded.payload) {
                    state = Task::evolve(state, &event);
                }
            }
        }
    }
}
