//! The reference: artifacts in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{ARTIFACT_BYTES_MAX, Artifact, ArtifactError, ArtifactStore};
use crate::id::Digest;

/// An artifact store in memory. Clones are handles to the same store.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<Digest, Bytes>>>);

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Digest, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ArtifactStore for Memory {
    async fn put_from(&self, source: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Artifact, ArtifactError> {
        let mut bytes = Vec::new();
        let read = source.take(ARTIFACT_BYTES_MAX + 1).read_to_end(&mut bytes).await;
        let size =
            read.map_err(|error| ArtifactError::Interrupted { reason: error.to_string().into() })? as u64;
        if size > ARTIFACT_BYTES_MAX {
            return Err(ArtifactError::TooLarge);
        }
        let digest = Digest::of(&bytes);
        self.kept().insert(digest, bytes.into());
        Ok(Artifact { digest, size })
    }

    async fn get(&self, digest: Digest) -> Result<Option<Bytes>, ArtifactError> {
        Ok(self.kept().get(&digest).cloned())
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, ArtifactError> {
        Ok(self.kept().get(&digest).map(|bytes| bytes.len() as u64))
    }

    async fn after(&self, after: Option<Digest>, limit: usize) -> Result<Vec<Digest>, ArtifactError> {
        Ok(self.kept().keys().filter(|digest| Some(**digest) > after).take(limit).copied().collect())
    }

    async fn delete(&self, digest: Digest) -> Result<bool, ArtifactError> {
        Ok(self.kept().remove(&digest).is_some())
    }
}

#[cfg(test)]
mod tests {
    crate::artifact_store_conformance!(async { super::Memory::new() });
}
