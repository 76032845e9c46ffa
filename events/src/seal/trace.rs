//! What the log has of a data subject: found by its key, in two passes over the log and one over the streams of the
//! crews concerned.

use std::collections::BTreeSet;

use serde_json::Value;

use super::field::marked;
use super::{Seal, SealError, keys_of};
use crate::api::{Problem, ProblemKind};
use crate::artifact::{ArtifactError, ArtifactStore};
use crate::domain::{DomainEvent as _, agent, crew, task};
use crate::event::Recorded;
use crate::id::{AgentId, CrewId, Digest, EntityKind, KeyId, Position, StreamId, TaskId, Version};
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
    /// The agents of the crews that had these tasks: what any of them wrote may be about it.
    pub agents: BTreeSet<AgentId>,
    /// What those tasks and the messages about them refer to, and the logs of those agents, where nobody else refers to
    /// them.
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
    let search = Search { log, seal, artifacts, id };
    let mut trace = Trace::default();
    let mut crews = BTreeSet::new();
    let mut after = Position(0);
    loop {
        let events = log.read(after, READ_EVENTS).await?;
        let Some(last) = events.last() else { break };
        after = last.position;
        for event in &events {
            if !search.is_sealed(event).await? {
                continue;
            }
            if let Ok(task) = event.stream.id.parse()
                && event.stream.kind == EntityKind::Task
            {
                trace.tasks.insert(task);
                crews.extend(crew_of(event));
            }
            trace.artifacts.extend(search.references(event).await?);
        }
    }
    for crew in &crews {
        for agent in search.agents(crew).await? {
            trace.artifacts.extend(search.logs(&agent).await?);
            trace.agents.insert(agent);
        }
    }
    search.keep_existing(&mut trace).await?;
    search.spare_others(&mut trace).await?;
    Ok(trace)
}

/// The crew of a task, which its first event names.
fn crew_of(event: &Recorded) -> Option<CrewId> {
    match task::Event::decode(&event.kind, event.schema, &event.payload) {
        Ok(task::Event::Submitted(submitted)) => Some(submitted.crew),
        _ => None,
    }
}

struct Search<'a> {
    log: &'a dyn EventStore,
    seal: &'a Seal,
    artifacts: &'a dyn ArtifactStore,
    id: &'a KeyId,
}

impl Search<'_> {
    /// Whether something of the event is sealed with the key. That a text names the key is not enough: anybody may have
    /// written it.
    async fn is_sealed(&self, event: &Recorded) -> Result<bool, SealError> {
        let Some(marked) = marked(&event.kind).filter(|_| event.payload.contains(self.id.as_str())) else {
            return Ok(false);
        };
        let Ok(payload) = serde_json::from_str::<Value>(&event.payload) else { return Ok(false) };
        for field in marked.fields {
            if let Some(text) = payload.pointer(field).and_then(Value::as_str)
                && keys_of(text).contains(self.id)
                && self.seal.open_text(&event.stream, text).await?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The agents that a crew has and has had.
    async fn agents(&self, crew: &CrewId) -> Result<BTreeSet<AgentId>, Problem> {
        let mut found = BTreeSet::new();
        for event in self.stream(EntityKind::Crew, crew.as_str()).await? {
            let seats = match crew::Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(crew::Event::AssemblyStarted(started)) => started.seats,
                Ok(crew::Event::Scaled(scaled)) => scaled.added,
                _ => continue,
            };
            found.extend(seats.into_iter().map(|seat| seat.agent));
        }
        Ok(found)
    }

    /// What is kept of an agent's logs.
    async fn logs(&self, agent: &AgentId) -> Result<BTreeSet<Digest>, Problem> {
        let events = self.stream(EntityKind::Agent, agent.as_str()).await?;
        let kept = events.iter().filter_map(|event| {
            match agent::Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(agent::Event::LogKept(kept)) => Some(kept.digest),
                _ => None,
            }
        });
        Ok(kept.collect())
    }

    async fn stream(&self, kind: EntityKind, id: &str) -> Result<Vec<Recorded>, Problem> {
        let (stream, mut found) = (StreamId::new(kind, id), Vec::<Recorded>::new());
        loop {
            let after = found.last().map_or(Version(0), |last| last.version);
            let events = self.log.read_stream(&stream, after, READ_EVENTS).await?;
            if events.is_empty() {
                return Ok(found);
            }
            found.extend(events);
        }
    }

    /// Takes out of `trace` what is a digest of something else than an artifact.
    async fn keep_existing(&self, trace: &mut Trace) -> Result<(), Problem> {
        for digest in trace.artifacts.clone() {
            let is_there = self.artifacts.has(digest).await;
            let is_there =
                is_there.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
            if !is_there {
                trace.artifacts.remove(&digest);
            }
        }
        Ok(())
    }

    /// Takes out of `trace` the artifacts that something else refers to as well.
    async fn spare_others(&self, trace: &mut Trace) -> Result<(), Problem> {
        let mut after = Position(0);
        while !trace.artifacts.is_empty() {
            let events = self.log.read(after, READ_EVENTS).await?;
            let Some(last) = events.last() else { break };
            after = last.position;
            for event in &events {
                let is_log = &*event.kind == "agent_log_kept"
                    && event.stream.id.parse().is_ok_and(|agent: AgentId| trace.agents.contains(&agent));
                if is_log || &*event.kind == "artifact_granted" || self.is_sealed(event).await? {
                    continue;
                }
                for digest in self.references(event).await? {
                    trace.artifacts.remove(&digest);
                }
            }
        }
        Ok(())
    }

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
