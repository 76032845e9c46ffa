//! What the log has of a data subject: found by its key, in two passes over the log.

use std::collections::BTreeSet;

use super::{Seal, SealError};
use crate::api::{Problem, ProblemKind};
use crate::artifact::{ArtifactError, ArtifactStore};
use crate::event::Recorded;
use crate::id::{Digest, EntityKind, KeyId, Position, TaskId};
use crate::store::EventStore;

/// Events that are read at once.
const READ_EVENTS: usize = 1_000;

/// The fields that refer to a body which is an artifact.
const BODIES: [&str; 2] = ["\"$artifact\"", "\"stored\""];

/// What the log has of a data subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Tasks about it.
    pub tasks: BTreeSet<TaskId>,
    /// What those tasks and the messages about them refer to, and nobody else does.
    pub artifacts: BTreeSet<Digest>,
}

/// Reads the whole of `log`, as it is stored, for what is sealed with the key `id`, which must still be there.
///
/// That an agent may read an artifact is no reference to it. Artifacts that large bodies refer to are followed.
pub async fn trace(
    log: &dyn EventStore,
    seal: &Seal,
    artifacts: &dyn ArtifactStore,
    id: &KeyId,
) -> Result<Trace, Problem> {
    let search = Search { seal, artifacts };
    let mut trace = Trace::default();
    let mut after = Position(0);
    loop {
        let events = log.read(after, READ_EVENTS).await?;
        let Some(last) = events.last() else { break };
        after = last.position;
        for event in events.iter().filter(|event| event.payload.contains(id.as_str())) {
            if event.stream.kind == EntityKind::Task
                && let Ok(task) = event.stream.id.parse()
            {
                trace.tasks.insert(task);
            }
            trace.artifacts.extend(search.references(event).await?);
        }
    }
    let mut after = Position(0);
    while !trace.artifacts.is_empty() {
        let events = log.read(after, READ_EVENTS).await?;
        let Some(last) = events.last() else { break };
        after = last.position;
        let elses =
            |event: &&Recorded| &*event.kind != "artifact_granted" && !event.payload.contains(id.as_str());
        for event in events.iter().filter(elses) {
            for digest in search.references(event).await? {
                trace.artifacts.remove(&digest);
            }
        }
    }
    Ok(trace)
}

struct Search<'a> {
    seal: &'a Seal,
    artifacts: &'a dyn ArtifactStore,
}

impl Search<'_> {
    /// Every digest that the event has, and those in bodies that it keeps as artifacts.
    async fn references(&self, event: &Recorded) -> Result<BTreeSet<Digest>, Problem> {
        let text = self.clear(event).await?;
        let mut found = digests(&text);
        if BODIES.iter().any(|field| text.contains(field)) {
            for digest in found.clone() {
                let body = match self.artifacts.get(digest).await {
                    Ok(body) => body,
                    // Nobody can say what it referred to.
                    Err(ArtifactError::Damaged { .. }) => None,
                    Err(error) => return Err(Problem::new(ProblemKind::Unavailable, error.to_string())),
                };
                found.extend(body.iter().flat_map(|body| digests(&String::from_utf8_lossy(body))));
            }
        }
        Ok(found)
    }

    async fn clear(&self, event: &Recorded) -> Result<String, SealError> {
        let Ok(mut payload) = serde_json::from_str(&event.payload) else {
            return Ok(event.payload.as_ref().to_owned());
        };
        self.seal.open_in(&event.stream, &mut payload).await?;
        Ok(payload.to_string())
    }
}

/// Runs of exactly 64 hex digits.
fn digests(text: &str) -> BTreeSet<Digest> {
    let runs = text.split(|c: char| !c.is_ascii_hexdigit());
    runs.filter(|run| run.len() == 64).filter_map(|run| run.parse().ok()).collect()
}
