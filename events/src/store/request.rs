//! What makes a request legal before anything is known of the log.

use serde::de::IgnoredAny;

use super::{AppendError, AppendRequest};

/// Most events that one append may carry.
pub const EVENTS_MAX: usize = 1_000;
/// Most bytes that one event's payload may have; larger bodies are artifacts.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Most names that one append may take or give back.
pub const NAMES_MAX: usize = 256;
/// Most bytes that any other text of a request may have.
pub const TEXT_BYTES_MAX: usize = 192;

/// Checks `request` and says how many bytes of payload it carries.
pub(crate) fn check(request: &AppendRequest) -> Result<usize, AppendError> {
    inspect(request)
        .map_err(|reason| AppendError::Invalid { stream: request.stream.clone(), reason: reason.into() })
}

fn inspect(request: &AppendRequest) -> Result<usize, String> {
    if request.events.is_empty() || request.events.len() > EVENTS_MAX {
        return Err(format!("expected 1 to {EVENTS_MAX} events, found {}", request.events.len()));
    }
    if request.reserve.len() > NAMES_MAX || request.release.len() > NAMES_MAX {
        return Err(format!("expected at most {NAMES_MAX} names to reserve or to release"));
    }
    let meta = &request.meta;
    if request.stream.id.is_empty() {
        return Err("the stream has no id".to_owned());
    }
    text("stream", &request.stream.id)?;
    for (field, value) in [
        ("correlation id", &meta.correlation_id),
        ("causation id", &meta.causation_id),
        ("traceparent", &meta.traceparent),
    ] {
        value.as_deref().map_or(Ok(()), |value| text(field, value))?;
    }
    for name in request.reserve.iter().chain(&request.release) {
        text("namespace", &name.namespace)?;
        text("reserved name", &name.key)?;
    }
    let mut bytes = 0;
    for event in &request.events {
        kind(&event.kind)?;
        payload(&event.kind, &event.payload)?;
        bytes += event.payload.len();
    }
    Ok(bytes)
}

fn text(field: &str, value: &str) -> Result<(), String> {
    if value.len() > TEXT_BYTES_MAX {
        return Err(format!("{field} has {} bytes, at most {TEXT_BYTES_MAX} are allowed", value.len()));
    }
    if value.chars().any(char::is_control) {
        return Err(format!("{field} `{}` has control characters", value.escape_debug()));
    }
    Ok(())
}

fn kind(kind: &str) -> Result<(), String> {
    let legal = kind.len() <= 64
        && kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if legal { Ok(()) } else { Err(format!("event kind `{}` is not snake_case", kind.escape_debug())) }
}

fn payload(kind: &str, payload: &str) -> Result<(), String> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!(
            "the payload of `{kind}` has {} bytes, at most {PAYLOAD_BYTES_MAX} are allowed: make it an artifact",
            payload.len()
        ));
    }
    serde_json::from_str::<IgnoredAny>(payload)
        .map(|_| ())
        .map_err(|error| format!("the payload of `{kind}` is not JSON: {error}"))
}
