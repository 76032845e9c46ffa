//! JSON in events: small where it stands, large as an artifact.

use std::sync::Arc;

use events::Digest;
use events::artifact::{ArtifactError, ArtifactStore};
use events::domain::message::Body;
use events::seal::ERASED;
use link::ErrorType;
use serde_json::Value;

/// Why a body cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Not at the moment.
    ForNow,
    /// It is gone or damaged.
    ForGood,
}

/// Makes a body of JSON, storing what is larger than `inline_max` bytes.
pub(crate) async fn keep(
    artifacts: &Arc<dyn ArtifactStore>,
    value: Value,
    inline_max: usize,
) -> Result<Body, link::Error> {
    let text = value.to_string();
    if text.len() <= inline_max {
        return Ok(Body::Inline(value));
    }
    match artifacts.put(text.into()).await {
        Ok(kept) => Ok(Body::Stored { digest: kept.digest, bytes: kept.size }),
        Err(error) => Err(refusal(&error)),
    }
}

/// The JSON of a body.
pub(crate) async fn load(artifacts: &Arc<dyn ArtifactStore>, body: &Body) -> Result<Value, Lost> {
    let digest = match body {
        Body::Inline(value) if value == ERASED => {
            tracing::info!("a body was erased with its data subject");
            return Err(Lost::ForGood);
        }
        Body::Inline(value) => return Ok(value.clone()),
        Body::Stored { digest, .. } => *digest,
    };
    match artifacts.get(digest).await {
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|_| gone(digest, "it is not JSON")),
        Ok(None) => Err(gone(digest, "it is not there")),
        Err(error @ ArtifactError::Damaged { .. }) => Err(gone(digest, &error.to_string())),
        Err(error) => {
            tracing::warn!(%digest, %error, "a body cannot be read now");
            Err(Lost::ForNow)
        }
    }
}

fn gone(digest: Digest, reason: &str) -> Lost {
    tracing::error!(%digest, reason, "a body is lost");
    Lost::ForGood
}

/// What an agent is told when the artifact store failed.
pub(crate) fn refusal(error: &ArtifactError) -> link::Error {
    match error {
        ArtifactError::TooLarge => link::Error::new(ErrorType::TooLarge, error),
        _ => {
            tracing::warn!(%error, "the artifact store could not do what an agent asked");
            link::Error::new(ErrorType::Unavailable, "the artifact store cannot do it now")
                .with("retryAfterMs", 1_000)
        }
    }
}
