//! The gateway alone says who sent a frame, for whom, and when. A runner's frame that says so itself is refused.

use serde_json::Value;

use crate::{Error, ErrorType};

const FORBIDDEN: &[&str] = &["from", "sender", "tenant", "crew", "principal", "position"];
const TIMES: &[&str] = &["time", "timestamp", "ts", "date", "now"];

/// What is under these belongs to the user: parts, and the other places where the protocol lets any JSON through.
const OPAQUE: &[&str] = &[
    "answers",
    "arguments",
    "checkpoint",
    "choices",
    "content",
    "data",
    "default",
    "fields",
    "input",
    "metadata",
    "output",
    "parts",
    "requests",
    "schema",
    "text",
    "value",
];

fn is_forbidden(field: &str) -> bool {
    FORBIDDEN.contains(&field) || TIMES.contains(&field) || field.ends_with("At") || field.ends_with("_at")
}

/// Refuses a frame that names an identity or a time of its own outside the user's content.
/// Depth is bounded by the caller.
pub(crate) fn check(frame: &Value) -> Result<(), Error> {
    match frame {
        Value::Object(fields) => fields.iter().try_for_each(|(field, value)| {
            if is_forbidden(field) {
                let message = format!("a frame does not say its own `{field}`: the platform does");
                return Err(Error::new(ErrorType::IdentityField, message).with("field", field.as_str()));
            }
            if OPAQUE.contains(&field.as_str()) { Ok(()) } else { check(value) }
        }),
        Value::Array(items) => items.iter().try_for_each(check),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn identity_and_time_are_refused_wherever_the_protocol_has_fields() {
        for field in
            ["from", "sender", "tenant", "crew", "principal", "position", "time", "recordedAt", "sent_at"]
        {
            for frame in [
                json!({"t": "call", field: "x"}),
                json!({"t": "call", "params": {field: "x"}}),
                json!({"t": "task.result", "result": {"artifacts": [{field: 1}]}}),
            ] {
                assert_eq!(check(&frame).unwrap_err().kind, Some(ErrorType::IdentityField), "{frame}");
            }
        }
    }

    #[test]
    fn the_users_own_content_may_say_anything() {
        for frame in [
            json!({"params": {"parts": [{"data": {"from": "x", "time": 1}}]}}),
            json!({"params": {"value": {"tenant": 1}, "key": "k", "format": "x", "data": {"createdAt": 1}}}),
        ] {
            assert_eq!(check(&frame), Ok(()));
        }
    }
}
