//! `state/put` and `state/get`: values under keys, shared by an agent's lives, a conversation or a crew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::domain::DomainEvent;
use events::domain::message::Body;
use events::domain::state::{Event, Put, Scope as Shared};
use events::{
    AppendError, Appended, CommandId, Digest, EntityKind, EventStore, Expected, Position, Recorded, StreamId,
    Version,
};
use link::{ErrorType, Id, Scope, StateGet, StatePut};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::body::{self, Lost};
use crate::core::Core;
use crate::denial::party;
use crate::host::Peer;
use crate::journal;
use crate::sandbox::Sandbox;

/// Events that are read at once.
const PAGE: usize = 1_000;
/// How often a value is written anew after another node wrote to its scope first.
const RACES_MAX: u32 = 8;

/// The scopes whose values are in memory.
#[derive(Default)]
pub(crate) struct States {
    scopes: Mutex<HashMap<StreamId, Arc<Values>>>,
}

/// The values of one scope.
struct Values {
    stream: StreamId,
    /// One writer at a time, in the order in which they came.
    turn: Semaphore,
    folded: Mutex<Folded>,
}

#[derive(Clone, Default)]
struct Folded {
    loaded: bool,
    version: Version,
    values: HashMap<String, (u64, Body)>,
}

impl Values {
    fn folded(&self) -> MutexGuard<'_, Folded> {
        self.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the log has beyond what is known.
    async fn refresh(&self, store: &dyn EventStore) -> Result<(), link::Error> {
        loop {
            let known = self.folded().version;
            let events = store.read_stream(&self.stream, known, PAGE).await.map_err(|error| {
                tracing::warn!(stream = %self.stream, %error, "state cannot be read");
                link::Error::new(ErrorType::Unavailable, "the log cannot be read now")
            })?;
            let mut folded = self.folded();
            for event in &events {
                let put = decode(event)?;
                if event.version > folded.version {
                    folded.version = event.version;
                    folded.values.insert(put.key, (put.version, put.value));
                }
            }
            if events.len() < PAGE {
                folded.loaded = true;
                return Ok(());
            }
        }
    }

    async fn load(&self, store: &dyn EventStore) -> Result<(), link::Error> {
        if self.folded().loaded {
            return Ok(());
        }
        self.refresh(store).await
    }
}

fn decode(event: &Recorded) -> Result<Put, link::Error> {
    match Event::decode(&event.kind, event.schema, &event.payload) {
        Ok(Event::Put(put)) => Ok(put),
        Err(error) => {
            tracing::error!(position = %event.position, %error, "a state event cannot be read");
            Err(link::Error::new(ErrorType::Internal, "the scope's history cannot be read"))
        }
    }
}

impl States {
    fn values(&self, stream: StreamId, scopes_max: usize) -> Arc<Values> {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(values) = scopes.get(&stream) {
            return values.clone();
        }
        if scopes.len() >= scopes_max {
            // Scopes that nobody uses now can be read again.
            scopes.retain(|_, values| Arc::strong_count(values) > 1);
        }
        let values = Arc::new(Values {
            stream: stream.clone(),
            turn: Semaphore::new(1),
            folded: Mutex::new(Folded::default()),
        });
        scopes.insert(stream, values.clone());
        values
    }
}

/// The stream of a scope.
fn stream(
    sandbox: &Sandbox,
    peer: &Peer,
    scope: Scope,
    task: Option<&Id>,
) -> Result<(Shared, StreamId), link::Error> {
    let (shared, id) = match scope {
        Scope::Agent => (Shared::Agent, format!("agent.{}", peer.agent)),
        Scope::Crew => (Shared::Crew, format!("crew.{}", peer.crew)),
        Scope::Context => {
            let state = sandbox.state();
            let named = task.map(|task| state.hand.get(task).map(|held| held.context.as_str()));
            let context = named.unwrap_or_else(|| state.hand.context()).ok_or_else(|| {
                let message = "the scope `context` needs a `taskId` in your hand that says which";
                link::Error::new(ErrorType::InvalidParams, message).with("field", "taskId")
            })?;
            // A context's id is the client's own text: it stands for itself inside its crew only.
            (Shared::Context, format!("context.{}.{}", peer.crew, Digest::of(context.as_bytes())))
        }
    };
    Ok((shared, StreamId::new(EntityKind::State, id)))
}

/// `state/put`.
pub(crate) async fn put(
    core: &Core,
    sandbox: &Sandbox,
    peer: &Peer,
    command: CommandId,
    call: StatePut,
) -> Result<Value, link::Error> {
    let limits = &core.options.limits;
    let store = &*core.journal.store;
    let (scope, stream) = stream(sandbox, peer, call.scope, call.task_id.as_ref())?;
    let digest = journal::digest(&(&call.key, &call.value, call.scope, call.if_version));
    let value = body::keep(&core.artifacts, call.value, limits.inline_bytes_max).await?;
    let values = core.states.values(stream, limits.state_scopes_cached_max);
    let _turn = values.turn.acquire().await.expect("nobody closes it");
    values.load(store).await?;
    for _ in 0..RACES_MAX {
        let (at, current, keys) = {
            let folded = values.folded();
            let current = folded.values.get(&call.key).map_or(0, |(version, _)| *version);
            (folded.version, current, folded.values.len())
        };
        if call.if_version.is_some_and(|expected| expected != current) {
            return match store.find_command(command).await {
                Ok(Some(first)) => first_outcome(store, first.position).await,
                _ => Err(conflict(current)),
            };
        }
        if current == 0 && keys >= limits.state_keys_max {
            let message = format_args!("the scope has {keys} keys already");
            return Err(link::Error::new(ErrorType::TooLarge, message));
        }
        let put = Put {
            crew: peer.crew.clone(),
            scope,
            key: call.key.clone(),
            value: value.clone(),
            version: current + 1,
            by: party(peer),
            in_hand: sandbox.state().hand.tasks(),
        };
        let events = vec![Event::from(put).encode()];
        let origin = sandbox.origin(peer, call.task_id.as_deref());
        let epoch = core.epoch(&peer.crew);
        let mut request = journal::by_agent(peer, origin, epoch, values.stream.clone(), events);
        (request.command_id, request.command_digest) = (command, Some(digest));
        request.expected = Expected::Exact(at);
        match core.journal.append(&request).await {
            Ok(Appended { repeated: true, position, .. }) => return first_outcome(store, position).await,
            Ok(_) => {
                values.refresh(store).await?;
                return Ok(json!({"version": current + 1}));
            }
            Err(AppendError::WrongVersion { .. }) => values.refresh(store).await?,
            Err(error) => return Err(journal::refusal(&error)),
        }
    }
    Err(link::Error::new(ErrorType::Unavailable, "others write to the scope all the time")
        .with("retryAfterMs", 100))
}

/// What was answered when the value was written for the first time: its event says so.
async fn first_outcome(store: &dyn EventStore, position: Position) -> Result<Value, link::Error> {
    let before = Position(position.0.saturating_sub(1));
    match store.read(before, 1).await.as_deref() {
        Ok([event]) => Ok(json!({"version": decode(event)?.version})),
        _ => Err(link::Error::new(ErrorType::Unavailable, "the log cannot be read now")),
    }
}

fn conflict(current: u64) -> link::Error {
    let message = format_args!("the value has version {current} now");
    link::Error::new(ErrorType::VersionConflict, message).with("version", current)
}

/// `state/get`.
pub(crate) async fn get(
    core: &Core,
    sandbox: &Sandbox,
    peer: &Peer,
    call: StateGet,
) -> Result<Value, link::Error> {
    let (_, stream) = stream(sandbox, peer, call.scope, call.task_id.as_ref())?;
    let values = core.states.values(stream, core.options.limits.state_scopes_cached_max);
    values.load(&*core.journal.store).await?;
    let found = values.folded().values.get(&call.key).cloned();
    let unknown = || link::Error::new(ErrorType::UnknownKey, format_args!("no value under `{}`", call.key));
    let (version, kept) = found.ok_or_else(unknown)?;
    match body::load(&core.artifacts, &kept).await {
        Ok(value) => Ok(json!({"value": value, "version": version})),
        Err(Lost::ForNow) => Err(link::Error::new(ErrorType::Unavailable, "the value cannot be read now")),
        Err(Lost::ForGood) => Err(link::Error::new(ErrorType::Internal, "the value is lost")),
    }
}
