//! What the log has of a data subject: found by its key, in one pass over the log.

mod seen;

use std::collections::BTreeSet;

use serde::Deserialize as _;
use serde_json::Value;

use super::field::marked;
use super::store::Heading;
use super::{Seal, SealError, keys_of};
use crate::api::{Problem, ProblemKind};
use crate::artifact::{ArtifactError, ArtifactStore};
use crate::body::{BodyError, Stored};
use crate::domain::{DomainEvent as _, crew, task};
use crate::event::Recorded;
use crate::id::{AgentId, CrewId, Digest, EntityKind, KeyId, Position, StreamId, TaskId, Version};
use crate::store::EventStore;

use seen::{Reference, Seen};

/// Events that are read at once.
const READ_EVENTS: usize = 1_000;

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

/// Reads a log, as it is stored, for what is sealed with one key, which must still be there. Its memory grows with what
/// the subject has, not with the log.
///
/// That an agent may read an artifact is no reference to it. Bodies that are artifacts are followed.
pub struct Tracer<'a> {
    log: &'a dyn EventStore,
    seal: &'a Seal,
    artifacts: &'a dyn ArtifactStore,
    id: &'a KeyId,
    /// Up to where the log was read.
    position: Position,
    tasks: BTreeSet<TaskId>,
    crews: BTreeSet<CrewId>,
    /// What the subject's events refer to.
    own: BTreeSet<Digest>,
    /// What all other events refer to.
    others: Seen,
}

impl<'a> Tracer<'a> {
    /// A search for what is sealed with the key `id`, which has read nothing yet.
    pub async fn new(
        log: &'a dyn EventStore,
        seal: &'a Seal,
        artifacts: &'a dyn ArtifactStore,
        id: &'a KeyId,
    ) -> Result<Self, Problem> {
        Ok(Self {
            log,
            seal,
            artifacts,
            id,
            position: Position(0),
            tasks: BTreeSet::new(),
            crews: BTreeSet::new(),
            own: BTreeSet::new(),
            others: Seen::new().await.map_err(unavailable)?,
        })
    }

    /// Reads on, from where it ended the last time to where the log ends now.
    pub async fn read_on(&mut self) -> Result<(), Problem> {
        let head = self.log.head().await?.position;
        while self.position < head {
            let events = self.log.read(self.position, READ_EVENTS).await?;
            let Some(last) = events.last() else { break };
            let mut others = BTreeSet::new();
            for event in &events {
                self.look_at(event, &mut others).await?;
            }
            self.others.add(&others).await.map_err(unavailable)?;
            self.position = last.position;
        }
        Ok(())
    }

    /// What was found so far.
    pub async fn found(&mut self) -> Result<Trace, Problem> {
        let mut trace = Trace { tasks: self.tasks.clone(), ..Trace::default() };
        for crew in &self.crews {
            trace.agents.extend(agents(self.log, crew).await?);
        }
        let mut artifacts = self.own.clone();
        for agent in &trace.agents {
            artifacts.extend(self.others.logs(agent).await.map_err(unavailable)?);
        }
        for digest in artifacts {
            // What is not there is a digest of something else.
            if self.artifacts.has(digest).await.map_err(unavailable)?
                && !self.others.has_others(digest, &trace.agents).await.map_err(unavailable)?
            {
                trace.artifacts.insert(digest);
            }
        }
        Ok(trace)
    }

    async fn look_at(&mut self, event: &Recorded, others: &mut BTreeSet<Reference>) -> Result<(), Problem> {
        match &*event.kind {
            "artifact_granted" | "artifact_kept" => {}
            "agent_log_kept" => {
                let agent: Option<AgentId> = event.stream.id.parse().ok();
                others.extend(digests(&event.payload).into_iter().map(|digest| (digest, agent.clone())));
            }
            _ if self.is_sealed(event).await? || self.is_about_own_task(event) => {
                if let Ok(task) = event.stream.id.parse()
                    && event.stream.kind == EntityKind::Task
                {
                    self.tasks.insert(task);
                    self.crews.extend(crew_of(event));
                }
                self.own.extend(self.references(event).await?);
            }
            _ => others.extend(self.references(event).await?.into_iter().map(|digest| (digest, None))),
        }
        Ok(())
    }

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

    /// Whether it is a message or a value about one of the tasks, with a body that older versions kept in clear: of such
    /// an event nothing is sealed.
    fn is_about_own_task(&self, event: &Recorded) -> bool {
        if !matches!(&*event.kind, "message_sent" | "state_put") {
            return false;
        }
        let Ok(payload) = serde_json::from_str::<Value>(&event.payload) else { return false };
        let in_clear = bodies(&payload).iter().any(|stored| stored.key.is_none());
        in_clear
            && serde_json::from_value::<Heading>(payload).is_ok_and(|heading| {
                heading.tasks().any(|task| task.parse().is_ok_and(|task: TaskId| self.tasks.contains(&task)))
            })
    }

    /// Every digest that the event has, and those in bodies that it keeps as artifacts.
    async fn references(&self, event: &Recorded) -> Result<BTreeSet<Digest>, Problem> {
        let Ok(mut payload) = serde_json::from_str(&event.payload) else {
            return Ok(digests(&event.payload));
        };
        self.seal.open_in(&event.stream, &mut payload).await?;
        let mut found = digests(&payload.to_string());
        for stored in bodies(&payload) {
            match stored.load(self.artifacts).await {
                Ok(body) => found.extend(digests(&String::from_utf8_lossy(&body))),
                // Nobody can say what it referred to.
                Err(BodyError::Erased | BodyError::Lost { .. })
                | Err(BodyError::Artifact(ArtifactError::Damaged { .. })) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(found)
    }
}

fn unavailable(error: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Unavailable, error.to_string())
}

/// The crew of a task, which its first event names.
fn crew_of(event: &Recorded) -> Option<CrewId> {
    match task::Event::decode(&event.kind, event.schema, &event.payload) {
        Ok(task::Event::Submitted(submitted)) => Some(submitted.crew),
        _ => None,
    }
}

/// The agents that a crew has and has had.
async fn agents(log: &dyn EventStore, crew: &CrewId) -> Result<BTreeSet<AgentId>, Problem> {
    let stream = StreamId::new(EntityKind::Crew, crew.as_str());
    let (mut found, mut after) = (BTreeSet::new(), Version(0));
    loop {
        let events = log.read_stream(&stream, after, READ_EVENTS).await?;
        let Some(last) = events.last() else { return Ok(found) };
        after = last.version;
        for event in &events {
            let seats = match crew::Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(crew::Event::AssemblyStarted(started)) => started.seats,
                Ok(crew::Event::Scaled(scaled)) => scaled.added,
                _ => continue,
            };
            found.extend(seats.into_iter().map(|seat| seat.agent));
        }
    }
}

/// The bodies that a payload refers to.
fn bodies(payload: &Value) -> Vec<Stored> {
    let (mut found, mut waiting) = (Vec::new(), vec![payload]);
    while let Some(value) = waiting.pop() {
        match value {
            Value::Array(items) => waiting.extend(items),
            Value::Object(fields) => {
                let field = fields.get("stored").and_then(|stored| Stored::deserialize(stored).ok());
                found.extend(field.or_else(|| Stored::referred_to_by(value)));
                waiting.extend(fields.values());
            }
            _ => {}
        }
    }
    found
}

/// Runs of exactly 64 hex digits.
fn digests(text: &str) -> BTreeSet<Digest> {
    let runs = text.split(|c: char| !c.is_ascii_hexdigit());
    runs.filter(|run| run.len() == 64).filter_map(|run| run.parse().ok()).collect()
}
