//! The artifact store seam: bytes kept by their SHA-256.
//!
//! Laws: what was put is durable when the answer comes; what is read is what was put, or an error; putting the
//! same bytes again changes nothing; a put that fails or is dropped leaves nothing that could be read; what was
//! deleted is not there until it is put again.

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
mod files;
mod memory;
mod postgres;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::id::Digest;

pub use files::Files;
pub use memory::Memory;
pub use postgres::Postgres;

/// Most bytes that one artifact may have: 64 MiB.
pub const ARTIFACT_BYTES_MAX: u64 = 64 << 20;

/// What was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Why an artifact could not be put or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// It has more bytes than an artifact may have.
    #[error("keep artifact: it has more than {ARTIFACT_BYTES_MAX} bytes")]
    TooLarge,
    /// What stands under this digest is not what was put.
    #[error(
        "read artifact `{digest}`: its bytes do not match its digest; restore it from a backup or put it again"
    )]
    Damaged {
        /// The digest.
        digest: Digest,
    },
    /// The bytes that were to be put could not be read to their end.
    #[error("keep artifact: its bytes ended early: {reason}")]
    Interrupted {
        /// What happened.
        reason: Arc<str>,
    },
    /// The store cannot be used at the moment.
    #[error("use the artifact store: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: Arc<str>,
    },
}

/// Bytes by their digest.
#[async_trait]
pub trait ArtifactStore: Send + Sync + 'static {
    /// Keeps everything that `source` gives, up to [`ARTIFACT_BYTES_MAX`].
    async fn put_from(&self, source: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Artifact, ArtifactError>;
    /// The bytes under `digest`, checked against it; `None` if there are none.
    async fn get(&self, digest: Digest) -> Result<Option<Bytes>, ArtifactError>;
    /// The size of what is kept under `digest`, in bytes, without reading it.
    async fn size(&self, digest: Digest) -> Result<Option<u64>, ArtifactError>;
    /// Up to `limit` of the digests above `after` under which something is kept, in order; from the beginning where
    /// it is `None`. Only an empty answer means that there are no more.
    async fn after(&self, after: Option<Digest>, limit: usize) -> Result<Vec<Digest>, ArtifactError>;

    /// Deletes what is kept under `digest`. Says whether there was anything.
    async fn delete(&self, digest: Digest) -> Result<bool, ArtifactError>;

    /// Keeps `bytes`.
    async fn put(&self, bytes: Bytes) -> Result<Artifact, ArtifactError> {
        self.put_from(&mut &*bytes).await
    }
    /// Whether something is kept under `digest`.
    async fn has(&self, digest: Digest) -> Result<bool, ArtifactError> {
        Ok(self.size(digest).await?.is_some())
    }
}
