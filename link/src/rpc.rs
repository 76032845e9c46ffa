//! JSON-RPC 2.0 lines of the handler protocol on stdio.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, json};

use crate::{Error, ErrorType, limits::LINE_BYTES_MAX, params, parse};

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
    /// Meant as a request or a notification, but wrong: answer with this error, to this id.
    BadCall(Option<RequestId>, Error),
    /// Meant as an answer, but wrong: the request of this id has failed with this error. Without an id nobody can tell
    /// which request that is. Not to be answered.
    BadAnswer(Option<RequestId>, Error),
}

/// Reads one line, without its newline.
pub fn parse(line: &[u8]) -> Parsed {
    if !line.trim_ascii_start().starts_with(b"{") {
        return Parsed::Noise;
    }
    let mut object = match read(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Parsed::Noise,
        Err(error) => return Head::of(line).broken(error),
    };
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Parsed::Noise;
    }
    let is_call = object.contains_key("method");
    let id = match object.remove("id") {
        None | Some(Value::Null) => None,
        Some(id) => match RequestId::try_from(id) {
            Ok(id) => Some(id),
            Err(message) => return invalid(is_call, None, message),
        },
    };
    match object.remove("method") {
        Some(Value::String(method)) => call(id, method, object),
        Some(_) => invalid(is_call, id, "a `method` is a text"),
        None => response(id, object),
    }
}

fn read(line: &[u8]) -> Result<Value, Error> {
    let text = std::str::from_utf8(line).map_err(|error| {
        let message = format!("the line is not UTF-8 from byte {} on", error.valid_up_to());
        Error::new(ErrorType::ParseError, message)
    })?;
    parse::json(text, LINE_BYTES_MAX)
}

fn invalid(is_call: bool, id: Option<RequestId>, message: &str) -> Parsed {
    let error = Error::new(ErrorType::InvalidRequest, message);
    if is_call { Parsed::BadCall(id, error) } else { Parsed::BadAnswer(id, error) }
}

/// What a line that cannot be read says of itself before the place where it breaks.
#[derive(Debug, Default)]
struct Head {
    is_rpc: bool,
    is_call: bool,
    id: Option<RequestId>,
}

impl Head {
    /// Depth costs nothing here, for what is nested is skipped.
    fn of(line: &[u8]) -> Self {
        let mut head = Self::default();
        // That it breaks is known; what came before is what counts.
        let _ =
            (&mut head).deserialize(&mut serde_json::Deserializer::from_str(&String::from_utf8_lossy(line)));
        head
    }

    fn broken(self, error: Error) -> Parsed {
        match (self.is_rpc, self.is_call) {
            (false, _) => Parsed::Noise,
            (true, true) => Parsed::BadCall(self.id, error),
            (true, false) => Parsed::BadAnswer(self.id, error),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Head {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Head {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<(), M::Error> {
        while let Some(field) = fields.next_key::<String>()? {
            match field.as_str() {
                "jsonrpc" => self.is_rpc = fields.next_value::<String>()? == "2.0",
                "id" => self.id = fields.next_value()?,
                field => {
                    self.is_call |= field == "method";
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
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
        (Some(_), None) if id.is_none() => {
            return invalid(false, None, "an answer has the `id` of its request");
        }
        (Some(result), None) => Ok(result),
        (None | Some(Value::Null), Some(error)) => match params("an `error`", error) {
            Ok(error) => Err(error),
            Err(error) => return invalid(false, id, &error.message),
        },
        (Some(_), Some(_)) => {
            return invalid(false, id, "an answer has one of `result` and `error`, not both");
        }
        (None, None) => {
            return invalid(
                false,
                id,
                "a line has a `method`, or one of `result` and `error`: this one has none",
            );
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

    fn is_bad_call(line: &str) -> bool {
        matches!(parse(line.as_bytes()), Parsed::BadCall(..))
    }

    #[test]
    fn a_broken_call_is_told_to_its_author() {
        for broken in [
            json!({"jsonrpc": "2.0", "id": 1, "method": 5}),
            json!({"jsonrpc": "2.0", "id": 1.5, "method": "log"}),
        ] {
            assert!(is_bad_call(&broken.to_string()), "{broken}");
        }
        assert!(is_bad_call(r#"{"jsonrpc": "2.0", "method": "task/progress", "params": {"progress": NaN}}"#));
    }

    #[test]
    fn a_broken_answer_names_the_request_that_it_answers_as_far_as_that_can_be_read() {
        let deep = "[".repeat(80) + &"]".repeat(80);
        let deeper = "[".repeat(5_000) + &"]".repeat(5_000);
        for (broken, id, said) in [
            (r#"{"jsonrpc": "2.0", "id": 7}"#.to_owned(), Some(7), "has none"),
            (r#"{"jsonrpc": "2.0", "id": 7, "result": 1, "error": {"code": 1}}"#.into(), Some(7), "not both"),
            (
                r#"{"jsonrpc": "2.0", "id": 7, "error": "boo"}"#.into(),
                Some(7),
                "an `error`: this is an object, not the text \"boo\"",
            ),
            (r#"{"jsonrpc": "2.0", "id": 7, "error": {}}"#.into(), Some(7), "`code` is missing"),
            (r#"{"jsonrpc": "2.0", "id": 1.5, "result": 1}"#.into(), None, "an `id` is"),
            (r#"{"jsonrpc": "2.0", "result": 1}"#.into(), None, "has the `id`"),
            (r#"{"jsonrpc": "2.0", "id": 7, "result": NaN}"#.into(), Some(7), "not JSON"),
            (r#"{"jsonrpc": "2.0", "id": 7, "result": "#.into(), Some(7), "not JSON"),
            (format!(r#"{{"jsonrpc": "2.0", "result": {deep}, "id": 7}}"#), Some(7), "nested"),
            (
                format!(r#"{{"jsonrpc": "2.0", "id": 7, "result": {{"output": {deeper}}}}}"#),
                Some(7),
                "nested",
            ),
        ] {
            let Parsed::BadAnswer(named, error) = parse(broken.as_bytes()) else { panic!("{broken}") };
            assert_eq!(named, id.map(RequestId::Number), "{broken}");
            assert!(error.message.contains(said), "{broken}: {error}");
        }
        let not_utf8 = b"{\"jsonrpc\": \"2.0\", \"id\": 7, \"result\": \"\xff\"}";
        assert!(matches!(parse(not_utf8), Parsed::BadAnswer(Some(RequestId::Number(7)), _)));
    }

    #[test]
    fn what_is_deep_but_not_of_the_protocol_is_noise() {
        assert_eq!(parse(format!("{{\"a\": {}", "[".repeat(300)).as_bytes()), Parsed::Noise);
    }
}
