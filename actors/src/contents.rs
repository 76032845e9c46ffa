//! Bodies: small ones are kept in events, large ones as artifacts by their digest.

use bytes::Bytes;
use events::Digest;
use events::api::{Problem, ProblemKind};
use serde::Serialize;
use serde_json::{Value, json};

use crate::core::Core;

/// Larger bodies are kept as artifacts (DESIGN §4).
const INLINE_BYTES_MAX: usize = 4 * 1024;
/// The longest text that a handler's message about itself is kept with.
pub(crate) const MESSAGE_CHARS_MAX: usize = 2_000;
/// The field that stands for a body kept as an artifact.
const REFERENCE: &str = "$artifact";

/// Plain data as JSON.
pub(crate) fn wire(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("wire types are plain data with string keys")
}

/// What an event keeps for `body`: the body itself, or where it is.
pub(crate) async fn put(core: &Core, body: Value) -> Result<Value, Problem> {
    let text = body.to_string();
    if text.len() <= INLINE_BYTES_MAX {
        return Ok(body);
    }
    let bytes = text.len();
    let artifact = core.artifacts.put(Bytes::from(text)).await.map_err(unavailable)?;
    Ok(json!({ REFERENCE: artifact.digest, "bytes": bytes }))
}

/// The size of the body that [`put`] was given, in bytes of JSON.
pub(crate) fn bytes(kept: &Value) -> usize {
    let elsewhere = kept.get(REFERENCE).and_then(|_| usize::try_from(kept["bytes"].as_u64()?).ok());
    elsewhere.unwrap_or_else(|| kept.to_string().len())
}

/// The body that [`put`] was given.
pub(crate) async fn get(core: &Core, kept: &Value) -> Result<Value, Problem> {
    let Some(digest) = kept.get(REFERENCE).and_then(Value::as_str) else { return Ok(kept.clone()) };
    let digest: Digest = digest.parse().map_err(|_| {
        Problem::new(ProblemKind::Internal, format!("artifact digest `{digest}` is malformed"))
    })?;
    let bytes = core.artifacts.get(digest).await.map_err(unavailable)?.ok_or_else(|| {
        Problem::new(
            ProblemKind::Internal,
            format!("artifact {digest} of a body is not in the artifact store"),
        )
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Problem::new(ProblemKind::Internal, format!("artifact {digest} is no body: {error}"))
    })
}

fn unavailable(error: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Unavailable, error.to_string())
}
