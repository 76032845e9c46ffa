//! JSON in events: small where it stands, large as an artifact.

use std::sync::Arc;

use events::artifact::{ArtifactError, ArtifactStore};
use events::body::{self, BodyError};
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
    let kept = body::keep(&**artifacts, text.as_bytes()).await;
    kept.map(Body::Stored).map_err(|error| refusal(&error))
}

/// The JSON of a body.
pub(crate) async fn load(artifacts: &Arc<dyn ArtifactStore>, body: &Body) -> Result<Value, Lost> {
    let stored = match body {
        Body::Inline(value) if value == ERASED => return Err(erased()),
        Body::Inline(value) => return Ok(value.clone()),
        Body::Stored(stored) => stored,
    };
    match stored.load(&**artifacts).await {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| gone(&error)),
        Err(error @ BodyError::Artifact(ArtifactError::Damaged { .. })) => Err(gone(&error)),
        Err(BodyError::Artifact(error)) => {
            tracing::warn!(digest = %stored.digest, %error, "a body cannot be read now");
            Err(Lost::ForNow)
        }
        Err(BodyError::Erased) => Err(erased()),
        Err(error) => Err(gone(&error)),
    }
}

fn erased() -> Lost {
    tracing::info!("a body was erased with its data subject");
    Lost::ForGood
}

fn gone(error: &dyn std::fmt::Display) -> Lost {
    tracing::error!(%error, "a body is lost");
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
