//! Handler to runner, and by the runner's `call` and `note` frames to the gateway: parameters and results of the
//! methods that the platform serves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Address, Artifact, ArtifactUrl, Body, Content, Error, ErrorType, Id, Part,
    handler::State,
    limits::{AWAIT_TASKS_MAX, BUSY_MS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
};

/// `task/checkpoint`: durable, given to the next attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// The task in hand.
    pub task_id: Id,
    /// At most 64 KiB of JSON.
    pub data: Value,
}

/// Result of `task/checkpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpointed {
    /// Where its event is in the log.
    pub position: u64,
}

/// `task/delegate`: have another member do a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delegate {
    /// The task in hand: the child's parent.
    pub task_id: Id,
    /// Who shall do it.
    pub to: Address,
    /// What to do.
    pub input: Content,
    /// Same (taskId, key), same child, also in a later attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether to answer only when the child has ended.
    #[serde(default = "yes")]
    pub wait: bool,
    /// How long the child may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The caller's own annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

fn yes() -> bool {
    true
}

/// How a delegated task stands. A child that failed is a result with state failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Child {
    /// The child.
    pub task_id: Id,
    /// How it stands.
    pub state: State,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "output_with_text")]
    pub output: Option<Content>,
    /// Files that came out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

fn output_with_text<S: serde::Serializer>(
    output: &Option<Content>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match output {
        Some(content) => Content::serialize_with_text(content, serializer),
        None => serializer.serialize_none(),
    }
}

/// Which of several tasks to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AwaitMode {
    /// Every one of them.
    #[default]
    All,
    /// The first that ends.
    Any,
}

/// `task/await`: wait for own children.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Await {
    /// The children.
    pub task_ids: Vec<Id>,
    /// Which of them.
    #[serde(default)]
    pub mode: AwaitMode,
    /// How long to wait at most; then as they stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Result of `task/await`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Awaited {
    /// The children, in the order asked.
    pub tasks: Vec<Child>,
}

/// `task/cancel`, handler to platform: cancel an own child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelChild {
    /// The child.
    pub task_id: Id,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Result of `task/cancel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canceled {
    /// How the child stands now.
    pub state: State,
}

/// `message/send`. On the wire the content is `parts`, or `text`, or any JSON as `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SendWire", into = "SendWire")]
pub struct MessageSend {
    /// Who shall get it.
    pub to: Address,
    /// What it holds.
    pub content: Content,
    /// Same key, same message.
    pub key: Option<String>,
    /// The task that it is about.
    pub task_id: Option<Id>,
    /// The conversation that it belongs to.
    pub context_id: Option<Id>,
    /// The message that it answers.
    pub reply_to: Option<Id>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SendWire {
    to: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<Vec<Part>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<Id>,
}

impl TryFrom<SendWire> for MessageSend {
    type Error = &'static str;

    fn try_from(wire: SendWire) -> Result<Self, Self::Error> {
        let content = match (wire.parts, wire.text, wire.data) {
            (Some(parts), _, None) => Content { parts },
            (None, Some(text), None) => Content::text(text),
            (None, None, Some(data)) => Content::data(data),
            _ => return Err("a message has `parts`, or `text`, or `data`"),
        };
        let SendWire { to, key, task_id, context_id, reply_to, .. } = wire;
        Ok(Self { to, content, key, task_id, context_id, reply_to })
    }
}

impl From<MessageSend> for SendWire {
    fn from(send: MessageSend) -> Self {
        let MessageSend { to, content, key, task_id, context_id, reply_to } = send;
        Self { to, parts: Some(content.parts), text: None, data: None, key, task_id, context_id, reply_to }
    }
}

/// Result of `message/send`: the message is in the log; it may not be delivered yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageSent {
    /// The message.
    pub message_id: Id,
    /// Where its event is in the log.
    pub position: u64,
    /// How many agents it goes to.
    pub recipients: u32,
}

/// What kind of answer a person is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// Yes or no.
    Approval,
    /// One of some choices.
    Choice,
    /// A form with a schema.
    Form,
    /// Free text.
    Text,
}

/// What happens when nobody answers in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It counts as declined.
    #[default]
    Decline,
    /// It counts as answered with the default.
    Default,
}

/// `input/request`: ask a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputRequest {
    /// The task in hand; not given inside a result's `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Id>,
    /// The same key after a restart returns the recorded answer; not given inside a result's `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What kind of answer.
    pub kind: InputKind,
    /// The question.
    pub title: String,
    /// More of it, shown verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// JSON Schema 2020-12 of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// The choices, for a choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Value>,
    /// How long to wait for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What happens then.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// The answer that counts then, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// How an input request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// With content.
    Accept,
    /// With a no.
    Decline,
    /// Not in time.
    Timeout,
}

/// Result of `input/request`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// How it was answered.
    pub action: Action,
    /// The answer itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// The principal who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Where its event is in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

/// Who shares a state value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The agent alone, through all its incarnations.
    #[default]
    Agent,
    /// Whoever works in the context.
    Context,
    /// The whole crew.
    Crew,
}

/// `state/put`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatePut {
    /// The key.
    pub key: String,
    /// At most 64 KiB of JSON.
    pub value: Value,
    /// Who shares it.
    #[serde(default)]
    pub scope: Scope,
    /// Refused with `version_conflict` if the value has another version; 0 = no value yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// Which context, for the scope context: that of this task in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Id>,
}

/// Result of `state/put`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateStored {
    /// The value's version now, from 1.
    pub version: u64,
}

/// `state/get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateGet {
    /// The key.
    pub key: String,
    /// Who shares it.
    #[serde(default)]
    pub scope: Scope,
    /// Which context, for the scope context: that of this task in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Id>,
}

/// Result of `state/get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateGot {
    /// The value.
    pub value: Value,
    /// Its version.
    pub version: u64,
}

/// `artifact/put`: answered by the runner, through the artifact door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactPut {
    /// A file under the work directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Or the text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What to call it.
    pub name: String,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// Result of `artifact/put`, and the artifact door's answer to an upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStored {
    /// The reference to it.
    pub url: ArtifactUrl,
    /// `sha256:<hex>`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// `artifact/get`: answered by the runner, through the artifact door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactGet {
    /// The reference to it.
    pub url: ArtifactUrl,
    /// Where to put it, under the work directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Result of `artifact/get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactGot {
    /// Where it is now.
    pub path: String,
    /// Its media type, where the platform knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// In bytes.
    pub size: u64,
}

/// `tool/list`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolList {}

/// `tool/call`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolCall {
    /// The task in hand.
    pub task_id: Id,
    /// The tool's server.
    pub server: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Value,
    /// Same (taskId, key), same call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `task/progress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// The task in hand.
    pub task_id: Id,
    /// What is going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Of how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// Text for live watchers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<String>,
}

/// `busy`: not hung until then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Busy {
    /// The task in hand.
    pub task_id: Id,
    /// For how long, at most an hour.
    pub for_ms: u64,
    /// What takes so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `usage`: what a handler says that it used. Advisory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Usage {
    /// The task in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Id>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tokens read.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens written.
    #[serde(default)]
    pub output_tokens: u64,
    /// Cost in millionths of the currency unit.
    #[serde(default)]
    pub cost_micros: u64,
}

/// How grave a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// For the record.
    #[default]
    Info,
    /// Odd.
    Warning,
    /// Wrong.
    Error,
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Log {
    /// How grave.
    #[serde(default)]
    pub level: LogLevel,
    /// The line.
    pub message: String,
    /// More, as data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
}

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
                    $($name => serde_json::from_value(params).map(Self::$variant),)+
                    _ => return Err(Error::new(ErrorType::MethodNotFound, format_args!("no method `{method}`"))),
                };
                let parsed = parsed.map_err(|error| Error::invalid_params(method, &error))?;
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

impl ArtifactPut {
    /// Whether it names exactly one source.
    pub fn check(&self) -> Result<(), Error> {
        if self.path.is_some() == self.text.is_some() {
            return Err(Error::new(
                ErrorType::InvalidParams,
                "`artifact/put` has exactly one of `path` and `text`",
            ));
        }
        Ok(())
    }
}

impl MessageSend {
    /// The content's text parts joined, as a receiver's `text`.
    pub fn text(&self) -> String {
        self.content.joined_text()
    }

    /// References to artifacts in the content.
    pub fn artifacts(&self) -> impl Iterator<Item = &ArtifactUrl> {
        self.content.parts.iter().filter_map(|part| match &part.body {
            Body::Url(url) => Some(url),
            _ => None,
        })
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
