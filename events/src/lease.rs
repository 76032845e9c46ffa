//! The lease seam: which node runs the entities of which shard.
//!
//! ```text
//!   node a  ──renew──> |   lease of shard 7: a, epoch 3   |        ... a is silent, the lease runs out
//!   node b  ──claim──> |   lease of shard 7: b, epoch 4   |        an append of a under epoch 3 is refused (ES-8)
//! ```
//!
//! Leases live beside the log, in its database and by its clock, so that a takeover and an append cannot cross: a
//! claim raises the shard's epoch and the log's fence in one transaction. A lease says who may act; that nobody else
//! can write rests on the epoch alone.
//!
//! Laws: a shard has one holder. A claim takes only what nobody holds, and every claim raises the epoch, for ever. A
//! lease that is renewed in time is not taken. One that ran out and was not taken can still be renewed: nobody has
//! acted in between.

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::id::{Digest, Timestamp};
use crate::store::Epoch;

/// Number of shards. Entities of one crew share a shard, and so run on one node.
pub const SHARDS: usize = 256;

/// After so long a node that was not seen is forgotten, when the log is opened the next time: 30 days.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The shard that `key` belongs to: the same on every node and in every version.
pub fn shard_of(key: &str) -> u8 {
    Digest::of(key.as_bytes()).0[0]
}

/// The lease of one shard, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub shard: u8,
    /// The epoch of its newest claim; 0 if there was none.
    pub epoch: u64,
    /// Who holds it; `None` if it was given back or ran out.
    pub holder: Option<Arc<str>>,
    /// How long it lasts if it is not renewed; zero without a holder.
    pub lasts: Duration,
}

/// How a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It renews in time.
    Live,
    /// It said that it ends.
    Left,
    /// It has not renewed in time.
    Silent,
}

impl NodeState {
    /// Its name in tables and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Left => "left",
            Self::Silent => "silent",
        }
    }
}

/// A node, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: Arc<str>,
    /// How it is doing.
    pub state: NodeState,
    /// Since when it has been live without a gap.
    pub joined_at: Timestamp,
    /// When it renewed last.
    pub seen_at: Timestamp,
}

/// What only the nodes of one log know. It does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Who lives and who holds what, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The nodes, by their ids.
    pub nodes: Vec<Node>,
    /// The leases of all shards, in their order.
    pub leases: Vec<Lease>,
}

impl Table {
    /// Who holds the shard.
    pub fn holder(&self, shard: u8) -> Option<&Arc<str>> {
        self.leases.get(usize::from(shard))?.holder.as_ref()
    }

    /// The nodes that live.
    pub fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.state == NodeState::Live)
    }

    /// The shards that the node holds.
    pub fn shards_of(&self, node: &str) -> impl Iterator<Item = u8> {
        self.leases.iter().filter(move |lease| lease.holder.as_deref() == Some(node)).map(|lease| lease.shard)
    }

    /// How many they are.
    pub fn held_by(&self, node: &str) -> usize {
        self.shards_of(node).count()
    }
}

/// Why the leases could not be read or changed. A change may have been made all the same: whoever asks again finds out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The store cannot be used at the moment.
    #[error("use the leases: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: Arc<str>,
    },
}

impl From<LeaseError> for crate::api::Problem {
    fn from(error: LeaseError) -> Self {
        Self::new(crate::api::ProblemKind::Unavailable, format!("failed to {error}"))
    }
}

/// The leases of a log's shards.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Says that `node` lives, and prolongs those of the `held` leases that are still its own, by `ttl` from now; in
    /// one statement. Answers with those, in the order of the shards: the others were taken over.
    async fn renew(&self, node: &str, held: &[Epoch], ttl: Duration) -> Result<Vec<Epoch>, LeaseError>;
    /// Takes up to `most` shards that nobody holds, for `ttl` from now, those first that `node` held before. What the
    /// store says is the node's own and is not among `held` is of an earlier life of it, and is taken too.
    async fn claim(
        &self,
        node: &str,
        held: &[Epoch],
        most: usize,
        ttl: Duration,
    ) -> Result<Vec<Epoch>, LeaseError>;
    /// Gives back those of the leases that are still the node's own: whoever claims next has them.
    async fn release(&self, node: &str, leases: &[Epoch]) -> Result<(), LeaseError>;
    /// Says that the node ends, and gives back all that it holds.
    async fn leave(&self, node: &str) -> Result<(), LeaseError>;
    /// Who lives and who holds what.
    async fn table(&self) -> Result<Table, LeaseError>;
    /// What only the nodes of this log know, so that they know each other's messages.
    async fn secret(&self) -> Result<Secret, LeaseError>;
}
