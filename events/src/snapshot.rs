//! Snapshots: states of entities, so that a long stream need not be folded from its beginning.
//!
//! A cache and nothing more: whatever is missing, of another schema, of another log or unreadable is ignored, and the
//! stream is folded from its beginning.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::Decider;
use crate::id::{Digest, StreamId, Version};

/// A stored state: what it was folded up to, and the state as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the last event in it.
    pub version: Version,
    /// The hash of that event: of a log that has another one there, this is no snapshot.
    pub hash: Digest,
    /// The state as JSON text.
    pub state: String,
}

/// Where snapshots are kept, keyed by stream, decider and the schema of its state.
#[async_trait]
pub trait SnapshotStore: Send + Sync + 'static {
    /// The snapshot of `stream` by this decider and schema, if there is one.
    async fn load(&self, stream: &StreamId, decider: &str, state_schema: u16) -> Option<Snapshot>;
    /// Keeps a snapshot in place of an older one. Failing is allowed.
    async fn save(&self, stream: &StreamId, decider: &str, state_schema: u16, snapshot: Snapshot);
}

/// Snapshots in memory.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<(StreamId, String), (u16, Snapshot)>>);

#[async_trait]
impl SnapshotStore for Memory {
    async fn load(&self, stream: &StreamId, decider: &str, state_schema: u16) -> Option<Snapshot> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (schema, snapshot) = kept.get(&(stream.clone(), decider.to_owned()))?;
        (*schema == state_schema).then(|| snapshot.clone())
    }

    async fn save(&self, stream: &StreamId, decider: &str, state_schema: u16, snapshot: Snapshot) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (stream.clone(), decider.to_owned());
        let is_newer = kept
            .get(&key)
            .is_none_or(|(schema, known)| *schema != state_schema || known.version < snapshot.version);
        if is_newer {
            kept.insert(key, (state_schema, snapshot));
        }
    }
}

/// A state that was saved, and the event that it was saved after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved<S> {
    /// The version of that event.
    pub version: Version,
    /// Its hash.
    pub hash: Digest,
    /// The state after it.
    pub state: S,
}

/// The state of `D` in `stream` that was saved last, if it can be read.
pub async fn load<D: Decider>(store: &dyn SnapshotStore, stream: &StreamId) -> Option<Saved<D::State>>
where
    D::State: DeserializeOwned,
{
    let Snapshot { version, hash, state } = store.load(stream, D::KIND.as_str(), D::STATE_SCHEMA).await?;
    match serde_json::from_str(&state) {
        Ok(state) => Some(Saved { version, hash, state }),
        Err(error) => {
            tracing::warn!(%stream, %error, "a snapshot cannot be read: the stream is folded from its beginning");
            None
        }
    }
}

/// Saves a state of `D` in `stream`.
pub async fn save<D: Decider>(store: &dyn SnapshotStore, stream: &StreamId, saved: Saved<&D::State>)
where
    D::State: Serialize,
{
    let Saved { version, hash, state } = saved;
    match serde_json::to_string(state) {
        Ok(state) => {
            store.save(stream, D::KIND.as_str(), D::STATE_SCHEMA, Snapshot { version, hash, state }).await;
        }
        Err(error) => tracing::warn!(%stream, %error, "a state cannot be saved as a snapshot"),
    }
}
