//! Snapshots: states of entities, so that a long stream need not be folded from its beginning.
//!
//! A cache and nothing more: whatever is missing, older, of another schema or unreadable is ignored, and the
//! stream is folded from its beginning.

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::Decider;
use crate::id::{StreamId, Version};

/// A stored state: what it was folded up to, and the state as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the last event in it.
    pub version: Version,
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

/// The state of `D` in `stream` that was saved last, if it can be used.
pub async fn load<D: Decider>(store: &dyn SnapshotStore, stream: &StreamId) -> Option<(Version, D::State)>
where
    D::State: DeserializeOwned,
{
    let snapshot = store.load(stream, D::KIND.as_str(), D::STATE_SCHEMA).await?;
    match serde_json::from_str(&snapshot.state) {
        Ok(state) => Some((snapshot.version, state)),
        Err(error) => {
            tracing::warn!(%stream, %error, "a snapshot cannot be read: the stream is folded from its beginning");
            None
        }
    }
}

/// Saves the state of `D` in `stream` as it was after `version`.
pub async fn save<D: Decider>(
    store: &dyn SnapshotStore,
    stream: &StreamId,
    version: Version,
    state: &D::State,
) where
    D::State: Serialize,
{
    match serde_json::to_string(state) {
        Ok(state) => store.save(stream, D::KIND.as_str(), D::STATE_SCHEMA, Snapshot { version, state }).await,
        Err(error) => tracing::warn!(%stream, %error, "a state cannot be saved as a snapshot"),
    }
}
