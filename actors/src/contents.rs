//! Bodies: small ones are kept in events, large ones as artifacts by their digest.

use events::api::{Problem, ProblemKind};
use events::body::{self, BodyError, Stored};
use events::seal::ERASED;
use serde::Serialize;
use serde_json::Value;

use crate::core::Core;

/// Larger bodies are kept as artifacts (DESIGN §4).
const INLINE_BYTES_MAX: usize = 4 * 1024;
/// The longest text that a handler's message about itself is kept with.
pub(crate) const MESSAGE_CHARS_MAX: usize = 2_000;

/// Plain data as JSON.
pub(crate) fn wire(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("wire types are plain data with string keys")
}

/// What an event keeps for `body`: the body itself, or where it is.
pub(crate) async fn put(core: &Core, body: Value) -> Result<Value, Problem> {
    let text = body.to_string();
    // What a handler made to look like a reference is not to be followed.
    if text.len() <= INLINE_BYTES_MAX && Stored::referred_to_by(&body).is_none() {
        return Ok(body);
    }
    let stored = body::keep(&*core.artifacts, text.as_bytes()).await.map_err(unavailable)?;
    Ok(stored.reference())
}

/// The size of the body that [`put`] was given, in bytes of JSON.
pub(crate) fn bytes(kept: &Value) -> usize {
    let elsewhere = Stored::referred_to_by(kept).and_then(|stored| usize::try_from(stored.bytes).ok());
    elsewhere.unwrap_or_else(|| kept.to_string().len())
}

/// The body that [`put`] was given, or [`ERASED`].
pub(crate) async fn get(core: &Core, kept: &Value) -> Result<Value, Problem> {
    let Some(stored) = Stored::referred_to_by(kept) else { return Ok(kept.clone()) };
    let internal = |error: &dyn std::fmt::Display| Problem::new(ProblemKind::Internal, error.to_string());
    match stored.load(&*core.artifacts).await {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| internal(&error)),
        Err(BodyError::Erased) => Ok(ERASED.into()),
        Err(BodyError::Artifact(error)) => Err(unavailable(error)),
        Err(error) => Err(internal(&error)),
    }
}

fn unavailable(error: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Unavailable, error.to_string())
}
