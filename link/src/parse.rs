//! Strict parsing of frames: bounded in size and depth, never panicking.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Error, ErrorType, ToGateway, ToRunner, frame, identity,
    limits::{DEPTH_MAX, FRAME_BYTES_MAX},
};

/// Longest message about input that does not fit: serde repeats values, and they may be huge or hostile.
const MESSAGE_CHARS_MAX: usize = 300;

/// Reads a frame that came from a runner.
///
/// Errors: `too_large`, `parse_error`, `invalid_request` (not a frame, or its fields do not fit), `unknown_frame` (the
/// link stays), `identity_field` (record it).
pub fn parse_to_gateway(text: &str) -> Result<ToGateway, Error> {
    let frame = json(text, FRAME_BYTES_MAX)?;
    identity::check(&frame)?;
    typed(frame, frame::RUNNER_TAGS)
}

/// Reads a frame that came from the gateway. Errors as [`parse_to_gateway`], without `identity_field`.
pub fn parse_to_runner(text: &str) -> Result<ToRunner, Error> {
    typed(json(text, FRAME_BYTES_MAX)?, frame::GATEWAY_TAGS)
}

/// Whether the other side would take this frame: whoever sends one that it refuses waits for ever.
///
/// Errors: `too_large`, for its bytes or its depth.
pub fn check_frame(text: &str) -> Result<(), Error> {
    check(text, FRAME_BYTES_MAX)
}

fn check(text: &str, bytes_max: usize) -> Result<(), Error> {
    if text.len() > bytes_max {
        let message = format!("{} bytes are too many: at most {bytes_max} fit", text.len());
        return Err(Error::new(ErrorType::TooLarge, message));
    }
    if too_deep(text.as_bytes()) {
        let message = format!("arrays and objects are nested more than {DEPTH_MAX} deep");
        return Err(Error::new(ErrorType::TooLarge, message));
    }
    Ok(())
}

/// Reads JSON of bounded size and depth.
pub(crate) fn json(text: &str, bytes_max: usize) -> Result<Value, Error> {
    check(text, bytes_max)?;
    serde_json::from_str(text).map_err(|error| {
        let message = format!("not JSON at column {}: {}", error.column(), brief(&error.to_string()));
        Error::new(ErrorType::ParseError, message)
    })
}

/// Whether brackets outside strings nest too deep. Judged before parsing, so that depth costs no stack.
fn too_deep(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

/// How many levels of arrays and objects a value has.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn typed<F: DeserializeOwned>(frame: Value, tags: &[&str]) -> Result<F, Error> {
    let invalid = |message: String| Error::new(ErrorType::InvalidRequest, message);
    let tag = match frame.get("t").and_then(Value::as_str) {
        Some(tag) => tag.to_owned(),
        None => return Err(invalid("a frame is a JSON object with a text `t`".to_owned())),
    };
    if !tags.contains(&tag.as_str()) {
        return Err(Error::new(ErrorType::UnknownFrame, format_args!("no frame `{}`", brief(&tag))));
    }
    serde_json::from_value(frame)
        .map_err(|error| invalid(format!("the frame `{tag}` does not fit: {}", brief(&error.to_string()))))
}

/// The beginning of a text.
pub(crate) fn brief(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> Option<ErrorType> {
        parse_to_gateway(text).unwrap_err().kind
    }

    #[test]
    fn what_is_no_frame_is_an_error_of_its_own_kind() {
        assert_eq!(kind("{"), Some(ErrorType::ParseError));
        assert_eq!(kind("[]"), Some(ErrorType::InvalidRequest));
        assert_eq!(kind(r#"{"t": 1}"#), Some(ErrorType::InvalidRequest));
        assert_eq!(kind(r#"{"t": "welcome"}"#), Some(ErrorType::UnknownFrame));
        assert_eq!(
            kind(r#"{"t": "call", "id": -1, "method": "x", "params": {}}"#),
            Some(ErrorType::InvalidRequest)
        );
        assert_eq!(
            kind(r#"{"t": "call", "id": 1, "method": "x", "params": {}, "from": "me"}"#),
            Some(ErrorType::IdentityField)
        );
        assert_eq!(kind(&"x".repeat(FRAME_BYTES_MAX + 1)), Some(ErrorType::TooLarge));
        assert_eq!(kind(&"[".repeat(FRAME_BYTES_MAX)), Some(ErrorType::TooLarge));
    }

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        assert!(!too_deep(format!("\"{}\\\"[\"", "[".repeat(DEPTH_MAX * 2)).as_bytes()));
        assert!(!too_deep("[]".repeat(DEPTH_MAX * 2).as_bytes()));
        assert!(too_deep("[".repeat(DEPTH_MAX + 1).as_bytes()));
    }

    #[test]
    fn an_error_does_not_repeat_what_it_refuses_at_length() {
        let text = format!(r#"{{"t": "call", "id": "{}"}}"#, "x".repeat(100_000));
        assert!(parse_to_gateway(&text).unwrap_err().message.len() < 1000);
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic(text in r#"[\[\]{}":,tcalhe0-9 \\]{0,200}"#) {
            let _ = parse_to_gateway(&text);
            let _ = parse_to_runner(&text);
            let _ = crate::rpc::parse(text.as_bytes());
        }
    }
}
