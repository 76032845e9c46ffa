//! Appending to the log, until it is known what became of it.

use std::sync::Arc;
use std::time::Duration;

use events::store::Epoch;
use events::{
    AppendError, AppendRequest, Appended, CommandId, Digest, EventStore, Expected, Meta, NewEvent, Position,
    Principal, StreamId, Tenant, Timestamp, Version,
};
use link::ErrorType;

use crate::host::{Origin, Peer};
use crate::options::Limits;

/// The log, as the gateway writes it.
pub(crate) struct Journal {
    pub(crate) store: Arc<dyn EventStore>,
    retry: Duration,
    tries_max: u32,
}

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Journal {
    pub(crate) fn new(store: Arc<dyn EventStore>, limits: &Limits) -> Self {
        let retry = Duration::from_millis(limits.append_retry_ms);
        Self { store, retry, tries_max: limits.append_tries_max }
    }

    /// Appends. When the outcome is unknown, asks the log until it is known: an answer is the truth.
    pub(crate) async fn append(&self, request: &AppendRequest) -> Result<Appended, AppendError> {
        let (mut pause, mut tries) = (self.retry, 1);
        loop {
            match self.store.append(request.clone()).await {
                Err(AppendError::Unknown { .. }) => {
                    if let Some(appended) = self.find(request.command_id).await {
                        return Ok(Appended { repeated: false, ..appended });
                    }
                }
                Err(AppendError::Full | AppendError::Unavailable { .. }) if tries < self.tries_max => {
                    tokio::time::sleep(pause).await;
                }
                known => return known,
            }
            (pause, tries) = ((pause * 2).min(PAUSE_MAX), tries + 1);
        }
    }

    /// The event at this position, as what follows from it names it; `None` where the log cannot be read.
    pub(crate) async fn origin_at(&self, position: Position) -> Option<Origin> {
        let before = Position(position.0.checked_sub(1)?);
        let event = match self.store.read(before, 1).await {
            Ok(events) => events.into_iter().next()?,
            Err(error) => {
                tracing::warn!(%position, %error, "cannot tell which event it is");
                return None;
            }
        };
        Some(Origin {
            event: named(&event.stream, event.version),
            correlation: event.meta.correlation_id.clone(),
        })
    }

    /// What became of a command. Asks for as long as the log cannot be read: whoever waits may give up.
    async fn find(&self, command: CommandId) -> Option<Appended> {
        let mut pause = self.retry;
        loop {
            match self.store.find_command(command).await {
                Ok(found) => return found,
                Err(error) => tracing::warn!(%command, %error, "cannot tell yet what became of an append"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// An event, as what follows from it names it.
pub(crate) fn named(stream: &StreamId, version: Version) -> Arc<str> {
    format!("{stream}@{version}").into()
}

/// A request to append what an agent did, and from what it follows, under a fresh command id.
pub(crate) fn by_agent(
    peer: &Peer,
    origin: Origin,
    epoch: Option<Epoch>,
    stream: StreamId,
    events: Vec<NewEvent>,
) -> AppendRequest {
    let made = request(&peer.tenant, Principal::agent(&peer.agent), epoch, stream, events);
    following(made, Some(origin))
}

/// The same request, and from what it follows.
pub(crate) fn following(mut request: AppendRequest, origin: Option<Origin>) -> AppendRequest {
    if let Some(Origin { event, correlation }) = origin {
        (request.meta.causation_id, request.meta.correlation_id) = (Some(event), correlation);
    }
    request
}

/// A request to append, under a fresh command id.
pub(crate) fn request(
    tenant: &Tenant,
    principal: Principal,
    epoch: Option<Epoch>,
    stream: StreamId,
    events: Vec<NewEvent>,
) -> AppendRequest {
    AppendRequest {
        stream,
        expected: Expected::Any,
        command_id: CommandId::fresh(),
        command_digest: None,
        epoch,
        meta: Meta {
            tenant: tenant.clone(),
            principal,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
        },
        recorded_at: Timestamp::now(),
        events,
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

/// The digest of what a command asks for.
pub(crate) fn digest(content: &impl serde::Serialize) -> Digest {
    Digest::of(&serde_json::to_vec(content).unwrap_or_default())
}

/// What an agent is told when an append failed.
pub(crate) fn refusal(error: &AppendError) -> link::Error {
    match error {
        AppendError::KeyConflict { .. } => {
            link::Error::new(ErrorType::KeyConflict, "the key was used for something else before")
        }
        AppendError::Invalid { reason, .. } => {
            link::Error::new(ErrorType::TooLarge, format_args!("it does not fit into the log: {reason}"))
        }
        _ => {
            tracing::warn!(%error, "the log could not take what an agent did");
            link::Error::new(ErrorType::Unavailable, "the log cannot take it now; nothing was done")
                .with("retryAfterMs", 1_000)
        }
    }
}
