//! Runner to handler: the parameters and results of the methods that a handler serves.

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IntoDeserializer as _},
};
use serde_json::Value;

use crate::{Answer, Artifact, Content, Id, InputRequest, Limits, Part, misfit};

/// The version of the handler protocol that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The methods' names.
pub mod method {
    /// Request, first of all.
    pub const INITIALIZE: &str = "initialize";
    /// Request: do this task.
    pub const EXECUTE: &str = "task/execute";
    /// Notification: stop doing this task.
    pub const CANCEL: &str = "task/cancel";
    /// Request: take this message; the answer is its acknowledgement.
    pub const DELIVER: &str = "message/deliver";
    /// Request: say that you live.
    pub const PING: &str = "ping";
    /// Request: end.
    pub const SHUTDOWN: &str = "shutdown";
}

/// Who a handler is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRef {
    /// The agent's id, the same through all its incarnations.
    pub id: Id,
    /// Its crew's name.
    pub crew: String,
    /// Its member's name.
    pub member: String,
    /// Its ordinal among the member's replicas, from 0.
    pub replica: u32,
    /// Which of its lives this is, from 1.
    pub incarnation: u64,
}

/// A member that this one may reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The member's name.
    pub member: String,
    /// What the channel there carries: `task`, `message`.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// What the member does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A tool server that the handler may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolServer {
    /// The server's name.
    pub name: String,
    /// Where it answers, inside the sandbox.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
}

/// Params of `initialize`; also the body of `GET $HYPERCODE_API/info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Initialize {
    /// Always [`PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// Who the handler is.
    pub agent: AgentRef,
    /// Whom it may reach.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// The names of the models that it may use.
    #[serde(default)]
    pub models: Vec<String>,
    /// The tool servers that it may use.
    #[serde(default)]
    pub tools: Vec<ToolServer>,
    /// What it must not exceed.
    #[serde(default)]
    pub limits: Limits,
    /// Its environment; only if a pool started the process before the agent was known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Its secrets; only if a pool started the process before the agent was known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, crate::Secret>,
}

/// When a handler takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Messages {
    /// While it has no task in hand; held meanwhile.
    #[default]
    Idle,
    /// At any time.
    Always,
    /// Never.
    None,
}

/// Result of `initialize`. A handler that answers -32601 or gives nothing has all the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HandlerInfo {
    /// The version that the handler speaks.
    pub protocol_version: u32,
    /// How many tasks it takes at once; the profile caps it.
    pub concurrency: u32,
    /// When it takes messages.
    #[serde(deserialize_with = "crate::misfit::word")]
    pub messages: Messages,
    /// Whether it answers `ping`.
    pub ping: bool,
}

impl Default for HandlerInfo {
    fn default() -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            concurrency: 1,
            messages: Messages::default(),
            ping: false,
        }
    }
}

impl HandlerInfo {
    /// Reads what a handler answered; says what does not fit.
    pub fn parse(value: Value) -> Result<Self, crate::Error> {
        if value.is_null() {
            return Ok(Self::default());
        }
        crate::params("the result of `initialize`", value)
    }
}

/// Who gave a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// What kind of giver.
    pub kind: OriginKind,
    /// The principal's or the member's name.
    pub name: String,
}

/// Kinds of givers of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginKind {
    /// A principal outside the crew.
    Principal,
    /// A member of the crew.
    Member,
}

/// Params of `task/execute`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Execute {
    /// The task.
    pub task_id: Id,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// The conversation that the task belongs to.
    pub context_id: Id,
    /// What to do.
    #[serde(serialize_with = "Content::serialize_with_text")]
    pub input: Content,
    /// Who asked.
    pub from: Origin,
    /// The task that delegated this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_task_id: Option<Id>,
    /// How many delegations lie above it.
    #[serde(default)]
    pub depth: u32,
    /// When it must have ended: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// How long this attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// W3C trace context of the platform's span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The task's directory, with `in/` and `out/`. Set by the runner: empty on the link.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// The last checkpoint of an earlier attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Value>,
    /// Answers to the requests with which the attempt ended `input_required`, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, Answer>,
}

/// How an attempt, or a delegated task, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Given, not yet begun. Only of delegated tasks.
    Submitted,
    /// Under way. Only of delegated tasks.
    Working,
    /// Done.
    #[default]
    Completed,
    /// Tried and failed.
    Failed,
    /// Not for this handler.
    Rejected,
    /// Stopped on request.
    Canceled,
    /// Cannot go on without answers.
    InputRequired,
}

/// Result of `task/execute`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Executed {
    /// How the attempt ended: not `submitted` or `working`.
    #[serde(default, deserialize_with = "ended")]
    pub state: State,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Content>,
    /// Files that came out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// A remark for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What must be answered, by key; with `input_required` only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, InputRequest>,
    /// Given back with the answers; with `input_required` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Value>,
}

/// The states in which an attempt may end, by their words.
const ENDED: &[&str] = &["completed", "failed", "rejected", "canceled", "input_required"];

fn ended<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
    let word = misfit::shown(&Value::deserialize(deserializer)?);
    if !ENDED.contains(&word.as_str()) {
        return Err(D::Error::unknown_variant(&word, ENDED));
    }
    State::deserialize(word.as_str().into_deserializer())
}

impl Executed {
    /// Completed with this output.
    pub fn output(output: Content) -> Self {
        Self { output: Some(output), ..Self::default() }
    }

    /// Ended in this state, with a remark.
    pub fn ended(state: State, message: impl Into<String>) -> Self {
        Self { state, message: Some(message.into()), ..Self::default() }
    }

    /// Reads what a handler answered; says what does not fit.
    pub fn parse(value: Value) -> Result<Self, crate::Error> {
        let result: Self = crate::params("the result of `task/execute`", value)?;
        if result.state == State::InputRequired && result.requests.is_empty() {
            let message = "the result of `task/execute`: with the `state` `input_required` it has `requests`";
            return Err(crate::Error::new(crate::ErrorType::InvalidParams, message));
        }
        Ok(result)
    }
}

/// Params of `task/cancel`, runner to handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    /// The task.
    pub task_id: Id,
    /// Why.
    pub reason: String,
    /// How long the handler has before it is killed.
    pub grace_ms: u64,
}

/// Who sent a message: stamped by the platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sender {
    /// The sending member.
    pub member: String,
    /// The sending agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Id>,
}

/// Params of `message/deliver`. Repeats the parts' joined text for handlers that want only that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deliver {
    /// The message.
    pub message_id: Id,
    /// Who sent it.
    pub from: Sender,
    /// What it holds.
    pub parts: Vec<Part>,
    /// All text parts joined by newline.
    #[serde(default)]
    pub text: String,
    /// The conversation that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_id: Option<Id>,
    /// The task that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Id>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Id>,
    /// Which delivery of the message this is, from 1.
    pub delivery: u32,
}

/// Why a handler is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutdownReason {
    /// The agent is drained.
    Drain,
    /// The crew is disbanded.
    Disband,
    /// The agent is restarted.
    Restart,
    /// The member has fewer replicas now.
    ScaleDown,
    /// The crew's time is over.
    Expired,
}

/// Params of `shutdown`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// Why.
    pub reason: ShutdownReason,
    /// How long the handler has before it is killed.
    pub grace_ms: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_result_completes() {
        assert_eq!(Executed::parse(json!({})).unwrap(), Executed::default());
    }

    #[test]
    fn a_result_that_does_not_fit_is_an_error_that_names_the_field() {
        let error = Executed::parse(json!({"outptu": "x"})).unwrap_err();
        assert_eq!((error.code, error.data["field"].as_str()), (-32602, Some("output")));
        for bad in
            [json!({"state": "working"}), json!({"state": "input_required"}), json!("done"), json!(null)]
        {
            assert!(Executed::parse(bad).is_err());
        }
    }

    #[test]
    fn a_handler_sees_the_joined_text_of_an_input() {
        let execute: Execute = serde_json::from_value(json!({
            "taskId": "tk_9", "attempt": 1, "contextId": "cx_1", "input": "Summarise",
            "from": {"kind": "principal", "name": "user:ada"}, "dir": "/workspace/tk_9",
        }))
        .unwrap();
        let wire = serde_json::to_value(&execute).unwrap();
        assert_eq!(wire["input"], json!({"text": "Summarise", "parts": [{"text": "Summarise"}]}));
    }

    #[test]
    fn initialize_answered_with_nothing_has_the_defaults() {
        let info: HandlerInfo = serde_json::from_value(json!({})).unwrap();
        assert_eq!((info.concurrency, info.messages, info.ping), (1, Messages::Idle, false));
    }
}
