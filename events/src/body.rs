//! Bodies that are too large for an event: artifacts, each encrypted under a key of its own that stands beside its digest
//! in the event.
//!
//! Where the event is about a data subject, that key is sealed with the subject's like everything else that is personal
//! in it. So what makes the event unreadable makes its large bodies unreadable, and nobody who keeps one has to know
//! whom it is about.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifact::{ArtifactError, ArtifactStore};
use crate::id::Digest;
use crate::seal::{ERASED, Secret, random};

/// What the key of a body is good for.
const CONTEXT: &str = "body";

/// Where a body is that is not in its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The artifact: the SHA-256 of the ciphertext, or where there is no key, of the body.
    pub digest: Digest,
    /// The size of the body, in bytes of JSON.
    pub bytes: u64,
    /// What opens it. Bodies that older versions kept are in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

/// Opens one body; sealed with the key of the data subject that the body is about, where it is about one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Arc<str>);

impl Key {
    /// The key as it stands in the event.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What stands for a body where any JSON could stand.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    #[serde(rename = "$artifact")]
    digest: Digest,
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
}

/// Why a body cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The data subject that it was about was erased.
    #[error("read a body: it was erased with its data subject")]
    Erased,
    /// It is gone, or nothing opens it.
    #[error("read the body in artifact `{digest}`: {reason}")]
    Lost {
        /// Where it should be.
        digest: Digest,
        /// What is wrong.
        reason: &'static str,
    },
    /// Its artifact cannot be read.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// Keeps `body` among the artifacts.
pub async fn keep(artifacts: &dyn ArtifactStore, body: &[u8]) -> Result<Stored, ArtifactError> {
    let key = random();
    let sealed = Secret::new(&key).encrypt(CONTEXT, body);
    let kept = artifacts.put(sealed.into()).await?;
    let key = Some(Key(BASE64.encode(key).into()));
    Ok(Stored { digest: kept.digest, bytes: body.len() as u64, key })
}

impl Stored {
    /// The body as it was kept.
    pub async fn load(&self, artifacts: &dyn ArtifactStore) -> Result<Vec<u8>, BodyError> {
        let lost = |reason| BodyError::Lost { digest: self.digest, reason };
        if self.is_erased() {
            return Err(BodyError::Erased);
        }
        let kept =
            artifacts.get(self.digest).await?.ok_or_else(|| lost("it is not in the artifact store"))?;
        let Some(key) = &self.key else { return Ok(kept.into()) };
        let secret = BASE64.decode(key.as_str()).ok().and_then(|bytes| bytes.try_into().ok());
        let secret = Secret::new(&secret.ok_or_else(|| lost("its key is not opened"))?);
        secret.decrypt(CONTEXT, &kept).ok_or_else(|| lost("its key does not open it"))
    }

    /// Whether its key is gone with a data subject.
    pub fn is_erased(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.as_str() == ERASED)
    }

    /// The body that `value` stands for, if it stands for one.
    pub fn referred_to_by(value: &Value) -> Option<Self> {
        let Reference { digest, bytes, key } = Reference::deserialize(value).ok()?;
        Some(Self { digest, bytes, key })
    }

    /// What stands for the body where any JSON could stand.
    pub fn reference(self) -> Value {
        let Self { digest, bytes, key } = self;
        serde_json::to_value(Reference { digest, bytes, key }).expect("it is plain data with string keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Memory;

    #[tokio::test]
    async fn only_its_key_opens_a_body() {
        let artifacts = Memory::new();
        let stored = keep(&artifacts, b"\"my knee hurts\"").await.expect("kept");
        assert_eq!(stored.load(&artifacts).await.as_deref(), Ok(&b"\"my knee hurts\""[..]));
        let kept = artifacts.get(stored.digest).await.expect("read").expect("there");
        assert!(!String::from_utf8_lossy(&kept).contains("knee"));
        let again = keep(&artifacts, b"\"my knee hurts\"").await.expect("kept");
        assert_ne!(again.digest, stored.digest, "nobody can tell that it is the same");

        let with = |key: &str| Stored { key: Some(Key(key.into())), ..stored.clone() };
        assert_eq!(with(ERASED).load(&artifacts).await, Err(BodyError::Erased));
        for key in [again.key.as_ref().expect("a key").as_str(), "sealed:1:k_1:AAAA", ""] {
            let refused = with(key).load(&artifacts).await;
            assert!(matches!(refused, Err(BodyError::Lost { .. })), "{refused:?}");
        }
        artifacts.delete(stored.digest).await.expect("deleted");
        assert!(matches!(stored.load(&artifacts).await, Err(BodyError::Lost { .. })));
    }

    #[tokio::test]
    async fn bodies_of_older_logs_are_read_as_they_are() {
        let artifacts = Memory::new();
        let digest = artifacts.put("[1]".into()).await.expect("kept").digest;
        let value = serde_json::json!({"$artifact": digest, "bytes": 3});
        let stored = Stored::referred_to_by(&value).expect("a reference");
        assert_eq!(stored.load(&artifacts).await.as_deref(), Ok(&b"[1]"[..]));
        assert_eq!(stored.reference(), value);
        let other = serde_json::json!({"$artifact": digest, "bytes": 3, "more": 1});
        assert_eq!(Stored::referred_to_by(&other), None);
    }
}
