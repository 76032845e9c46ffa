//! One table of errors for the handler protocol (`error.code`, `data.type`), the link and HTTP (status, `type`).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

macro_rules! error_types {
    ($($(#[$doc:meta])* $name:ident = $code:literal $wire:literal $retryable:literal,)+) => {
        /// The kinds of errors that the platform itself gives.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorType {
            $($(#[$doc])* #[serde(rename = $wire)] $name,)+
        }

        impl ErrorType {
            /// Every type, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// JSON-RPC `error.code`: JSON-RPC's own where it has one, else the HTTP status.
            pub fn code(self) -> i32 {
                match self { $(Self::$name => $code,)+ }
            }

            /// The name on every wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)+ }
            }

            /// Whether the same request may succeed later.
            pub fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)+ }
            }
        }
    };
}

error_types! {
    /// Not JSON.
    ParseError = -32700 "parse_error" false,
    /// JSON, but no request or frame of ours.
    InvalidRequest = -32600 "invalid_request" false,
    /// No such method.
    MethodNotFound = -32601 "method_not_found" false,
    /// The method's parameters do not fit; `data.field` names the nearest known field.
    InvalidParams = -32602 "invalid_params" false,
    /// A fault of the answering side.
    Internal = -32603 "internal" false,
    /// The crew's budget is used up.
    BudgetExhausted = 402 "budget_exhausted" false,
    /// No channel leads there.
    ChannelDenied = 403 "channel_denied" false,
    /// The profile does not allow the tool.
    ToolDenied = 403 "tool_denied" false,
    /// The profile does not allow the model.
    ModelDenied = 403 "model_denied" false,
    /// The profile does not allow the host.
    EgressDenied = 403 "egress_denied" false,
    /// A frame named its own sender, tenant, crew, position or time.
    IdentityField = 403 "identity_field" false,
    /// No such member in the crew.
    UnknownMember = 404 "unknown_member" false,
    /// No such task, or not the caller's.
    UnknownTask = 404 "unknown_task" false,
    /// No such artifact, or not the caller's to read.
    UnknownArtifact = 404 "unknown_artifact" false,
    /// No value under the key.
    UnknownKey = 404 "unknown_key" false,
    /// No such frame type; the link stays.
    UnknownFrame = 404 "unknown_frame" false,
    /// The profile offers no such door.
    NotOffered = 404 "not_offered" false,
    /// The attempt is not the current one any more.
    Fenced = 409 "fenced" false,
    /// The value has another version than the caller expected.
    VersionConflict = 409 "version_conflict" false,
    /// The receiver waits, directly or not, for the caller.
    WouldDeadlock = 409 "would_deadlock" false,
    /// The task has already ended.
    AlreadyFinal = 409 "already_final" false,
    /// The frame is not legal in the link's present state.
    OutOfOrder = 409 "out_of_order" false,
    /// Larger than the limit that the message names.
    TooLarge = 413 "too_large" false,
    /// The key was used with another input.
    KeyConflict = 422 "key_conflict" false,
    /// No protocol version in common.
    UnsupportedVersion = 422 "unsupported_version" false,
    /// Too many in too short a time; see `data.retryAfterMs`.
    RateLimited = 429 "rate_limited" true,
    /// Too many children at once.
    FanoutLimited = 429 "fanout_limited" true,
    /// The task was cancelled.
    Canceled = 499 "canceled" false,
    /// The handler asked for the next task without having answered this one.
    Abandoned = 500 "abandoned" false,
    /// The process that served the task was ended by a signal.
    Crash = 500 "crash" true,
    /// The handler failed and said no more.
    HandlerFailed = 500 "handler_failed" false,
    /// Not now.
    Unavailable = 503 "unavailable" true,
    /// The deadline passed.
    Deadline = 504 "deadline" false,
}

impl ErrorType {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self.code() {
            -32601 => 404,
            -32603 => 500,
            code => u16::try_from(code).unwrap_or(400),
        }
    }

    /// The type with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// What a handler says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The same work may succeed later.
    Transient,
    /// It will not.
    Permanent,
}

/// A JSON-RPC error object: `{code, message, data: {type, retryable, …}}`.
///
/// `kind` is absent where a handler made up a code of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(from = "Wire", into = "Wire")]
#[error("{message}")]
pub struct Error {
    /// JSON-RPC code or HTTP status.
    pub code: i32,
    /// `data.type`, where it is one of the table.
    pub kind: Option<ErrorType>,
    /// What happened, for a person.
    pub message: String,
    /// The rest of `data`.
    pub data: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    code: i32,
    #[serde(default)]
    message: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    data: Value,
}

impl Error {
    /// An error of the table.
    pub fn new(kind: ErrorType, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { code: kind.code(), kind: Some(kind), message, data: Map::new() }
    }

    /// Adds a field to `data`.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.data.insert(field.to_owned(), value.into());
        self
    }

    /// The HTTP status that goes with it.
    pub fn status(&self) -> u16 {
        match self.kind {
            Some(kind) => kind.status(),
            None => u16::try_from(self.code).ok().filter(|code| (400..600).contains(code)).unwrap_or(500),
        }
    }

    /// `data.retry`, if it is given and known.
    pub fn retry(&self) -> Option<Retry> {
        serde_json::from_value(self.data.get("retry")?.clone()).ok()
    }

    /// `data.retryAfterMs`, if it is given.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.data.get("retryAfterMs")?.as_u64()
    }

    /// RFC 9457 problem details: `type`, `status`, `detail` and the fields of `data`.
    pub fn to_problem(&self) -> Value {
        let mut problem = self.data.clone();
        problem.insert("type".into(), self.kind.map_or("about:blank", ErrorType::name).into());
        problem.insert("status".into(), self.status().into());
        problem.insert("detail".into(), self.message.clone().into());
        if let Some(kind) = self.kind {
            problem.insert("retryable".into(), kind.retryable().into());
        }
        Value::Object(problem)
    }

    /// Reads problem details that came with an HTTP status.
    pub fn from_problem(status: u16, problem: Value) -> Self {
        let Value::Object(mut fields) = problem else {
            return Self {
                code: status.into(),
                kind: None,
                message: format!("HTTP status {status}"),
                data: Map::new(),
            };
        };
        let kind = fields.remove("type").and_then(|name| ErrorType::of_name(name.as_str()?));
        let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
        let message = text(fields.remove("detail"))
            .or_else(|| text(fields.remove("title")))
            .unwrap_or_else(|| format!("HTTP status {status}"));
        fields.remove("status");
        fields.remove("retryable");
        Self { code: kind.map_or_else(|| status.into(), ErrorType::code), kind, message, data: fields }
    }
}

impl From<ErrorType> for Error {
    fn from(kind: ErrorType) -> Self {
        Self::new(kind, kind.name())
    }
}

impl From<Wire> for Error {
    fn from(wire: Wire) -> Self {
        let mut data = match wire.data {
            Value::Object(data) => data,
            Value::Null => Map::new(),
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        let named = data.get("type").and_then(Value::as_str).and_then(ErrorType::of_name);
        let of_code =
            || ErrorType::ALL.iter().copied().find(|kind| kind.code() == wire.code && wire.code < 0);
        let kind = named.or_else(of_code);
        // The kind says both, whatever else stood there beside a code of JSON-RPC's own.
        if kind.is_some() {
            data.remove("type");
            data.remove("retryable");
        }
        Self { code: wire.code, kind, message: wire.message, data }
    }
}

impl From<Error> for Wire {
    fn from(error: Error) -> Self {
        let mut data = error.data;
        if let Some(kind) = error.kind {
            data.insert("type".into(), kind.name().into());
            data.insert("retryable".into(), kind.retryable().into());
        }
        let data = if data.is_empty() { Value::Null } else { json!(data) };
        Self { code: error.code, message: error.message, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_both_wires() {
        for &kind in ErrorType::ALL {
            let error = Error::new(kind, "it went wrong").with("position", 4711);
            let wire = serde_json::to_value(&error).unwrap();
            assert_eq!(wire["data"]["type"], kind.name());
            assert_eq!(serde_json::from_value::<Error>(wire).unwrap(), error);
            assert!((400..600).contains(&error.status()));
            assert_eq!(Error::from_problem(error.status(), error.to_problem()), error);
        }
    }

    #[test]
    fn a_handlers_own_error_is_kept_as_it_is() {
        let wire = json!({"code": 503, "message": "provider down", "data": {"retry": "transient", "retryAfterMs": 2000}});
        let error: Error = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(
            (error.kind, error.retry(), error.retry_after_ms()),
            (None, Some(Retry::Transient), Some(2000))
        );
        assert_eq!(serde_json::to_value(&error).unwrap(), wire);
        let bare: Error = serde_json::from_value(json!({"code": -1, "data": "text"})).unwrap();
        assert_eq!((bare.status(), bare.data["value"].as_str()), (500, Some("text")));
    }
}
