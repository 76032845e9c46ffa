//! Erasing a data subject: its tasks are called off, the act is recorded, its key and what only it refers to are
//! destroyed.

use std::sync::Arc;

use events::api::{Caller, Command, Commands, Problem, ProblemKind, Reply};
use events::artifact::ArtifactStore;
use events::domain::DomainEvent as _;
use events::domain::platform::{self, SubjectErased};
use events::seal::{Seal, Trace, Tracer};
use events::{EntityKind, EventStore, KeyId, Position, Recorded, StreamId, Version};
use serde_json::json;

use crate::acts;

/// The part of the platform in whose stream erasures are recorded, and nothing else.
const PART: &str = "erasures";

/// Erasures that are read at once.
const READ_EVENTS: usize = 1_000;

/// A data subject that is to be erased.
pub(crate) struct Erasure {
    pub(crate) subject: String,
    pub(crate) reason: String,
}

/// What erasing goes through.
pub struct Eraser {
    /// The keys.
    pub seal: Seal,
    /// The log as it is stored.
    pub store: Arc<dyn EventStore>,
    /// Bodies and files.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// Calls tasks off.
    pub commands: Arc<dyn Commands>,
}

impl Eraser {
    /// Erases a subject. Once this is recorded it is done, be it by the next start of the platform.
    ///
    /// # Errors
    /// When there is no such subject (any more), or the act cannot be recorded: then nothing is erased.
    pub(crate) async fn erase(&self, caller: &Caller, erasure: Erasure) -> Result<Reply, Problem> {
        let Erasure { subject, reason } = erasure;
        if caller.idempotency_key.is_some() && self.store.find_command(caller.command_id()).await?.is_some() {
            return self.repeated(caller, &reason).await;
        }
        let Some(key) = self.seal.keys().find_subject(&caller.tenant, &subject).await? else {
            return self.repeated(caller, &reason).await;
        };
        let mut tracer = self.trace(&key).await?;
        let found = tracer.found().await?;
        self.call_off(caller, &found).await;
        self.forget_logs(caller, &found).await?;
        // Logs that were kept until then are to go too.
        tracer.read_on().await?;
        let found = tracer.found().await?;
        let erased = SubjectErased {
            key: key.clone(),
            reason,
            tasks: found.tasks.len() as u64,
            artifacts: found.artifacts.len() as u64,
        };
        let appended = acts::record(&*self.store, caller, PART, erased.clone()).await?;
        self.delete(&found).await?;
        self.seal.keys().destroy(&key).await?;
        Ok(reply(&erased, appended.position))
    }

    /// Looks for all that is sealed with a key, once nothing more is: what is said from now on is not kept.
    async fn trace<'a>(&'a self, key: &'a KeyId) -> Result<Tracer<'a>, Problem> {
        self.seal.keys().retire(key, &*self.store).await?;
        let mut tracer = Tracer::new(&*self.store, &self.seal, &*self.artifacts, key).await?;
        tracer.read_on().await?;
        Ok(tracer)
    }

    /// What an erasure under the same idempotency key was answered with, once it is finished: the subject itself is not
    /// known any more.
    async fn repeated(&self, caller: &Caller, reason: &str) -> Result<Reply, Problem> {
        let none = || {
            let detail = "nothing is kept of this data subject; no task names it, or it was erased before";
            Problem::new(ProblemKind::NotFound, detail)
        };
        let appended = self.store.find_command(caller.command_id()).await?.ok_or_else(none)?;
        let erased = self.erased_at(appended.position).await?.filter(|erased| erased.reason == reason);
        let erased = erased.ok_or_else(|| {
            Problem::new(ProblemKind::KeyConflict, "the idempotency key was used for something else")
        })?;
        self.finish_one(&erased.key).await?;
        self.seal.keys().finish().await?;
        Ok(reply(&erased, appended.position))
    }

    async fn erased_at(&self, position: Position) -> Result<Option<SubjectErased>, Problem> {
        let events = self.store.read(Position(position.0.saturating_sub(1)), 1).await?;
        Ok(events.first().filter(|event| event.position == position).and_then(erased))
    }

    /// Calls off what is still being done about the subject. What cannot be called off now ends by itself, and what it
    /// then says is not kept.
    async fn call_off(&self, caller: &Caller, found: &Trace) {
        let caller = Caller { idempotency_key: None, ..caller.clone() };
        for task in &found.tasks {
            let reason = "its data subject was erased".to_owned();
            let canceled = self.commands.execute(&caller, Command::TaskCancel { task: task.clone(), reason });
            if let Err(problem) = canceled.await
                && problem.kind != ProblemKind::Conflict
            {
                tracing::warn!(%task, %problem, "a task of an erased subject could not be called off");
            }
        }
    }

    /// Has the agents that may have written about the subject keep nothing of it, neither now nor when they end.
    async fn forget_logs(&self, caller: &Caller, found: &Trace) -> Result<(), Problem> {
        let caller = Caller { idempotency_key: None, ..caller.clone() };
        for agent in &found.agents {
            let done = self.commands.execute(&caller, Command::AgentEraseLogs { agent: agent.clone() }).await;
            // A seat that was never filled has no agent.
            if let Err(problem) = done
                && problem.kind != ProblemKind::NotFound
            {
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Destroys keys whose erasure was recorded and that are there all the same: the platform was stopped in between,
    /// or an older copy of the keys was put back.
    pub(crate) async fn finish(&self) -> Result<(), Problem> {
        let stream = StreamId::new(EntityKind::Platform, PART);
        let mut after = Version(0);
        loop {
            let events = self.store.read_stream(&stream, after, READ_EVENTS).await?;
            let Some(last) = events.last() else { break };
            after = last.version;
            for erased in events.iter().filter_map(erased) {
                self.finish_one(&erased.key).await?;
            }
        }
        // Nothing opens with what may be left of them, so the platform need not stand still for it.
        if let Err(error) = self.seal.keys().finish().await {
            tracing::error!(%error, "destroyed keys are not wiped out yet; the next start tries again");
        }
        Ok(())
    }

    async fn finish_one(&self, key: &KeyId) -> Result<(), Problem> {
        if !self.seal.keys().has(key).await? {
            return Ok(());
        }
        tracing::warn!(%key, "a key whose erasure was recorded was still there: it is destroyed now");
        match self.found(key).await {
            Ok(found) => self.delete(&found).await?,
            // Without the key they could never be found.
            Err(problem) if problem.kind.is_retryable() => return Err(problem),
            Err(problem) => tracing::error!(%key, %problem, "its artifacts could not be found"),
        }
        self.seal.keys().destroy(key).await?;
        Ok(())
    }

    async fn found(&self, key: &KeyId) -> Result<Trace, Problem> {
        self.trace(key).await?.found().await
    }

    async fn delete(&self, found: &Trace) -> Result<(), Problem> {
        for digest in &found.artifacts {
            let deleted = self.artifacts.delete(*digest).await;
            deleted.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
        }
        Ok(())
    }
}

/// The erasure that an event records, if it does.
fn erased(event: &Recorded) -> Option<SubjectErased> {
    match platform::Event::decode(&event.kind, event.schema, &event.payload) {
        Ok(platform::Event::SubjectErased(erased)) => Some(erased),
        _ => None,
    }
}

fn reply(erased: &SubjectErased, position: Position) -> Reply {
    let body = json!({"key": erased.key, "tasks": erased.tasks, "artifacts": erased.artifacts});
    Reply { kind: EntityKind::Platform, id: PART.to_owned(), position, body }
}
