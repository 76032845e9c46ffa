//! JSON-RPC 2.0 lines of the handler protocol on stdio.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Error, ErrorType, limits::LINE_BYTES_MAX, parse};

/// The id of a request: each side makes its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum RequestId {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

impl TryFrom<Value> for RequestId {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::String(text) if text.len() <= ID_BYTES_MAX => Ok(Self::Text(text)),
            Value::Number(number) => {
                number.as_i64().map(Self::Number).ok_or("an `id` is a whole number or a text")
            }
            _ => Err("an `id` is a whole number or a text of at most 256 bytes"),
        }
    }
}

/// Longest text that is taken as the id of a handler's request.
const ID_BYTES_MAX: usize = 256;

impl From<RequestId> for Value {
    fn from(id: RequestId) -> Self {
        match id {
            RequestId::Number(number) => number.into(),
            RequestId::Text(text) => text.into(),
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// Wants an answer.
    Request {
        /// Repeated by the answer.
        id: RequestId,
        /// Its method.
        method: String,
        /// Its params; absent = an empty object.
        params: Value,
    },
    /// Wants none.
    Notification {
        /// Its method.
        method: String,
        /// Its params; absent = an empty object.
        params: Value,
    },
    /// Is an answer. Without an id it answers a line that could not be read.
    Response {
        /// The request's id.
        id: Option<RequestId>,
        /// The answer.
        outcome: Result<Value, Error>,
    },
}

/// What a line that a handler wrote turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// A line of the protocol.
    Line(Line),
    /// Not a JSON object with `"jsonrpc": "2.0"`: a log line.
    Noise,
    /// Meant as the protocol, but wrong: answer with this error, to this id.
    Invalid(Option<RequestId>, Error),
}

/// Reads one line, without its newline.
pub fn parse(line: &[u8]) -> Parsed {
    let Ok(text) = std::str::from_utf8(line) else { return Parsed::Noise };
    if !text.trim_start().starts_with('{') {
        return Parsed::Noise;
    }
    let mut object = match parse::json(text, LINE_BYTES_MAX) {
        Ok(Value::Object(object)) => object,
        Err(error) if error.kind == Some(ErrorType::TooLarge) => return Parsed::Invalid(None, error),
        _ => return Parsed::Noise,
    };
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Parsed::Noise;
    }
    let id = match object.remove("id") {
        None | Some(Value::Null) => None,
        Some(id) => match RequestId::try_from(id) {
            Ok(id) => Some(id),
            Err(message) => return Parsed::Invalid(None, Error::new(ErrorType::InvalidRequest, message)),
        },
    };
    match object.remove("method") {
        Some(Value::String(method)) => call(id, method, object),
        Some(_) => Parsed::Invalid(id, Error::new(ErrorType::InvalidRequest, "a `method` is a text")),
        None => response(id, object),
    }
}

fn call(id: Option<RequestId>, method: String, mut object: Map<String, Value>) -> Parsed {
    let params = object.remove("params").unwrap_or_else(|| json!({}));
    Parsed::Line(match id {
        Some(id) => Line::Request { id, method, params },
        None => Line::Notification { method, params },
    })
}

fn response(id: Option<RequestId>, mut object: Map<String, Value>) -> Parsed {
    let outcome = match (object.remove("result"), object.remove("error")) {
        (Some(result), None) => Ok(result),
        (None | Some(Value::Null), Some(error)) => match serde_json::from_value(error) {
            Ok(error) => Err(error),
            Err(error) => {
                let message = format!("the `error` does not fit: {}", parse::brief(&error.to_string()));
                return Parsed::Invalid(id, Error::new(ErrorType::InvalidRequest, message));
            }
        },
        _ => {
            let message = "a line has a `method`, or exactly one of `result` and `error`";
            return Parsed::Invalid(id, Error::new(ErrorType::InvalidRequest, message));
        }
    };
    Parsed::Line(Line::Response { id, outcome })
}

impl Line {
    /// The line as it is written, without its newline.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Request { id, method, params } => {
                json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
            }
            Self::Notification { method, params } => {
                json!({"jsonrpc": "2.0", "method": method, "params": params})
            }
            Self::Response { id, outcome: Ok(result) } => {
                json!({"jsonrpc": "2.0", "id": id, "result": result})
            }
            Self::Response { id, outcome: Err(error) } => json!({"jsonrpc": "2.0", "id": id, "error": error}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_as_written() {
        let id = RequestId::Number(7);
        for line in [
            Line::Request { id: id.clone(), method: "ping".into(), params: json!({}) },
            Line::Notification { method: "log".into(), params: json!({"message": "hi"}) },
            Line::Response { id: Some(id), outcome: Ok(json!(null)) },
            Line::Response { id: Some(RequestId::Text("h1".into())), outcome: Err(ErrorType::Fenced.into()) },
            Line::Response { id: None, outcome: Err(ErrorType::ParseError.into()) },
        ] {
            assert_eq!(parse(line.to_json().to_string().as_bytes()), Parsed::Line(line));
        }
    }

    #[test]
    fn whatever_is_not_json_rpc_is_noise() {
        for noise in [
            &b"hello"[..],
            b"",
            b"{",
            b"[1]",
            b"{\"a\": 1}",
            b"{\"jsonrpc\": \"1.0\"}",
            b"\xff\xfe",
            b"\"x\"",
        ] {
            assert_eq!(parse(noise), Parsed::Noise);
        }
    }

    #[test]
    fn broken_json_rpc_is_told_to_its_author() {
        for broken in [
            json!({"jsonrpc": "2.0"}),
            json!({"jsonrpc": "2.0", "id": 1}),
            json!({"jsonrpc": "2.0", "id": 1, "result": 1, "error": {"code": 1}}),
            json!({"jsonrpc": "2.0", "id": 1, "error": "text"}),
            json!({"jsonrpc": "2.0", "id": 1.5, "result": 1}),
            json!({"jsonrpc": "2.0", "id": 1, "method": 5}),
        ] {
            assert!(matches!(parse(broken.to_string().as_bytes()), Parsed::Invalid(..)), "{broken}");
        }
    }
}
