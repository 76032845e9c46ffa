//! Appending to the log, until it is known what became of it.

use std::sync::Arc;
use std::time::Duration;

use events::store::Epoch;
use events::{
    AppendError, AppendRequest, Appended, CommandId, Digest, EventStore, Expected, Meta, NewEvent, Principal,
    StreamId, Tenant, Timestamp,
};
use link::ErrorType;

use crate::host::Peer;
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

/// A request to append what an agent did, under a fresh command id.
pub(crate) fn by_agent(
    peer: &Peer,
    epoch: Option<Epoch>,
    stream: StreamId,
    events: Vec<NewEvent>,
) -> AppendRequest {
    request(&peer.tenant, Principal::agent(&peer.agent), epoch, stream, events)
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
