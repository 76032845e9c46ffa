//! Handler to runner, and by the runner's `call` and `note` frames to the gateway: parameters and results of the
//! methods that the platform serves.

mod artifacts;
mod input;
mod messages;
mod notes;
mod state;
mod tasks;
mod tools;

pub use artifacts::{ArtifactGet, ArtifactGot, ArtifactPut, ArtifactStored};
pub use input::{Action, Answer, InputKind, InputRequest, OnTimeout};
pub use messages::{MessageSend, MessageSent};
pub use notes::{Busy, Log, LogLevel, Progress, Usage};
pub use state::{Scope, StateGet, StateGot, StatePut, StateStored};
pub use tasks::{
    Await, AwaitMode, Awaited, CancelChild, Canceled, Checkpoint, Checkpointed, Child, Delegate,
};
pub use tools::{ToolCall, ToolList};

use serde_json::Value;

use crate::{
    Error, ErrorType, Id,
    limits::{AWAIT_TASKS_MAX, BUSY_MS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
};

macro_rules! methods {
    ($(#[$doc:meta])* $kind:ident { $($(#[$variant_doc:meta])* $variant:ident($params:ty) = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $kind {
            $($(#[$variant_doc])* $variant($params),)+
        }

        impl $kind {
            /// The names of these methods.
            pub const METHODS: &[&str] = &[$($name,)+];

            /// The method's name.
            pub fn method(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)+ }
            }

            /// Reads the params of a method. Errors: `method_not_found`, `invalid_params`, `too_large`.
            pub fn parse(method: &str, params: Value) -> Result<Self, Error> {
                let parsed = match method {
                    $($name => crate::params(&format!("the params of `{method}`"), params).map(Self::$variant)?,)+
                    _ => return Err(Error::new(ErrorType::MethodNotFound, format_args!("no method `{method}`"))),
                };
                parsed.check()?;
                Ok(parsed)
            }
        }
    };
}

methods! {
    /// A request that a runner passes on in a `call` frame.
    Call {
        /// Keep this for the next attempt.
        Checkpoint(Checkpoint) = "task/checkpoint",
        /// Have another member do a task.
        Delegate(Delegate) = "task/delegate",
        /// Wait for own children.
        Await(Await) = "task/await",
        /// Cancel an own child.
        CancelChild(CancelChild) = "task/cancel",
        /// Send a message.
        MessageSend(MessageSend) = "message/send",
        /// Ask a person.
        InputRequest(InputRequest) = "input/request",
        /// Write a state value.
        StatePut(StatePut) = "state/put",
        /// Read a state value.
        StateGet(StateGet) = "state/get",
        /// Which tools there are.
        ToolList(ToolList) = "tool/list",
        /// Use a tool.
        ToolCall(ToolCall) = "tool/call",
    }
}

methods! {
    /// A notification that a runner passes on in a `note` frame: no answer, may be dropped under load.
    Note {
        /// How far a task is.
        Progress(Progress) = "task/progress",
        /// Do not take me for hung.
        Busy(Busy) = "busy",
        /// What was used.
        Usage(Usage) = "usage",
        /// A log line.
        Log(Log) = "log",
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let message = format!("a `key` has 1 to {KEY_BYTES_MAX} bytes, not {}", key.len());
        return Err(Error::new(ErrorType::InvalidParams, message).with("field", "key"));
    }
    Ok(())
}

fn check_value(field: &str, value: &Value) -> Result<(), Error> {
    let size = value.to_string().len();
    if size > VALUE_BYTES_MAX {
        let message = format!(
            "`{field}` has {size} bytes of JSON: at most {VALUE_BYTES_MAX} fit, put more into an artifact"
        );
        return Err(Error::new(ErrorType::TooLarge, message).with("field", field));
    }
    Ok(())
}

impl Call {
    /// The task in hand that the call belongs to, where it says so. (`task/await` and `task/cancel` name children.)
    pub fn task_id(&self) -> Option<&Id> {
        match self {
            Self::Checkpoint(call) => Some(&call.task_id),
            Self::Delegate(call) => Some(&call.task_id),
            Self::ToolCall(call) => Some(&call.task_id),
            Self::MessageSend(call) => call.task_id.as_ref(),
            Self::InputRequest(call) => call.task_id.as_ref(),
            Self::StatePut(call) => call.task_id.as_ref(),
            Self::StateGet(call) => call.task_id.as_ref(),
            Self::Await(_) | Self::CancelChild(_) | Self::ToolList(_) => None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let missing = |field: &str| {
            Error::new(ErrorType::InvalidParams, format_args!("`input/request` has a `{field}`"))
                .with("field", field)
        };
        match self {
            Self::Checkpoint(call) => check_value("data", &call.data),
            Self::Delegate(call) => call.key.as_deref().map_or(Ok(()), check_key),
            Self::MessageSend(call) => call.key.as_deref().map_or(Ok(()), check_key),
            Self::ToolCall(call) => call.key.as_deref().map_or(Ok(()), check_key),
            Self::StatePut(call) => check_key(&call.key).and_then(|()| check_value("value", &call.value)),
            Self::StateGet(call) => check_key(&call.key),
            Self::InputRequest(call) if call.task_id.is_none() => Err(missing("taskId")),
            Self::InputRequest(call) => check_key(call.key.as_deref().ok_or_else(|| missing("key"))?),
            Self::Await(call) if call.task_ids.is_empty() || call.task_ids.len() > AWAIT_TASKS_MAX => {
                let message =
                    format!("`taskIds` names 1 to {AWAIT_TASKS_MAX} tasks, not {}", call.task_ids.len());
                Err(Error::new(ErrorType::InvalidParams, message).with("field", "taskIds"))
            }
            Self::Await(_) | Self::CancelChild(_) | Self::ToolList(_) => Ok(()),
        }
    }
}

impl Note {
    /// The task in hand that the note belongs to, where it says so.
    pub fn task_id(&self) -> Option<&Id> {
        match self {
            Self::Progress(note) => Some(&note.task_id),
            Self::Busy(note) => Some(&note.task_id),
            Self::Usage(note) => note.task_id.as_ref(),
            Self::Log(_) => None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Busy(busy) if busy.for_ms > BUSY_MS_MAX => {
                let message = format!("`forMs` is at most {BUSY_MS_MAX}, an hour, not {}", busy.for_ms);
                Err(Error::new(ErrorType::InvalidParams, message).with("field", "forMs"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_delegate_needs_only_task_receiver_and_input() {
        let call = Call::parse("task/delegate", json!({"taskId": "tk_9", "to": "writer", "input": "draft"}))
            .unwrap();
        let Call::Delegate(delegate) = &call else { panic!("{call:?}") };
        assert!(delegate.wait && delegate.key.is_none());
        assert_eq!(
            (delegate.input.joined_text().as_str(), call.task_id().unwrap().as_str()),
            ("draft", "tk_9")
        );
    }

    #[test]
    fn an_unknown_field_is_answered_with_the_nearest_known_one() {
        let error = Call::parse("task/delegate", json!({"taskId": "t", "too": "w", "input": 1})).unwrap_err();
        assert_eq!((error.code, &error.data["field"]), (-32602, &json!("to")));
        let error = Call::parse("state/get", json!({})).unwrap_err();
        assert_eq!((error.code, &error.data["field"]), (-32602, &json!("key")));
    }

    #[test]
    fn params_are_bounded() {
        let long = "x".repeat(VALUE_BYTES_MAX);
        let too_large = Call::parse("state/put", json!({"key": "k", "value": long})).unwrap_err();
        assert_eq!(too_large.kind, Some(ErrorType::TooLarge));
        for (method, params) in [
            ("state/get", json!({"key": ""})),
            ("state/get", json!({"key": "k".repeat(KEY_BYTES_MAX + 1)})),
            ("task/await", json!({"taskIds": []})),
            ("input/request", json!({"taskId": "t", "kind": "text", "title": "?"})),
            ("message/send", json!({"to": "writer"})),
            ("message/send", json!({"to": "writer", "text": "a", "data": 1})),
            ("task/delegate", json!(null)),
        ] {
            assert_eq!(
                Call::parse(method, params).unwrap_err().kind,
                Some(ErrorType::InvalidParams),
                "{method}"
            );
        }
        assert!(Note::parse("busy", json!({"taskId": "t", "forMs": BUSY_MS_MAX + 1})).is_err());
        assert_eq!(Call::parse("next", json!({})).unwrap_err().kind, Some(ErrorType::MethodNotFound));
    }

    #[test]
    fn a_message_may_be_text_data_or_parts() {
        for (params, text) in [
            (json!({"to": "w", "text": "hi"}), "hi"),
            (json!({"to": "w", "parts": [{"text": "a"}, {"text": "b"}]}), "a\nb"),
            (json!({"to": "w", "data": {"from": "anyone"}}), ""),
        ] {
            let Call::MessageSend(send) = Call::parse("message/send", params).unwrap() else { panic!() };
            assert_eq!(send.text(), text);
            let again: MessageSend = serde_json::from_value(serde_json::to_value(&send).unwrap()).unwrap();
            assert_eq!(again, send);
        }
    }
}
