//! Frames that the gateway sends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ErrorFrame, TaskRef, present};
use crate::{
    ArtifactUrl, Error, Id, Secret,
    handler::{AgentRef, Deliver, Execute, Peer, ShutdownReason, ToolServer},
    limits,
};

/// A frame from the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
pub enum ToRunner {
    /// The answer to `hello`.
    #[serde(rename = "welcome")]
    Welcome(Welcome),
    /// Who the sandbox is from now on, once and for ever.
    #[serde(rename = "assign")]
    Assign(Box<Assign>),
    /// Do this task.
    #[serde(rename = "task")]
    Task(Box<TaskFrame>),
    /// Stop doing this task.
    #[serde(rename = "task.cancel")]
    TaskCancel(CancelFrame),
    /// Take this message.
    #[serde(rename = "message")]
    Message(Box<MessageFrame>),
    /// The answer to a call.
    #[serde(rename = "reply")]
    Reply(ReplyFrame),
    /// A result is durable.
    #[serde(rename = "ack")]
    Ack {
        /// The id of the `task.result`.
        re: u64,
    },
    /// The token for links and doors from now on.
    #[serde(rename = "token")]
    Token(TokenFrame),
    /// End the handler, then the runner.
    #[serde(rename = "drain")]
    Drain(DrainFrame),
    /// A runner's frame was refused.
    #[serde(rename = "error")]
    Error(ErrorFrame<u64>),
}

/// The values of `t` that a gateway may send.
pub(crate) const TAGS: &[&str] =
    &["welcome", "assign", "task", "task.cancel", "message", "reply", "ack", "token", "drain", "error"];

impl ToRunner {
    /// Whether the frame may come before `assign` (which itself may).
    pub fn legal_before_assign(&self) -> bool {
        !matches!(self, Self::Task(_) | Self::TaskCancel(_) | Self::Message(_) | Self::Reply(_))
    }
}

/// `welcome`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The version spoken from now on.
    pub v: u32,
    /// This link.
    pub link_id: Id,
    /// How often to send a heartbeat.
    pub heartbeat_ms: u64,
    /// Longest frame.
    pub frame_bytes: usize,
    /// Whether the sandbox has no agent yet.
    pub standby: bool,
    /// Attempts that are fenced: stop them, send nothing about them.
    #[serde(default)]
    pub drop: Vec<TaskRef>,
    /// The handler to start before it is known for whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prestart: Option<Box<Prestart>>,
}

/// A handler whose process a standby sandbox starts before anybody has claimed it. Nothing in it is an agent's or a
/// secret: those come with `assign`, and are handed on by `initialize`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prestart {
    /// What it runs.
    pub handler: HandlerSpec,
    /// Where that comes from.
    #[serde(default)]
    pub source: Source,
    /// What its profile says of its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names of models that its profile lets it use.
    #[serde(default)]
    pub models: Vec<String>,
    /// What it must not exceed.
    #[serde(default)]
    pub limits: Limits,
}

impl Prestart {
    /// What of an agent's start could be done ahead.
    pub fn of(assign: &Assign) -> Self {
        Self {
            handler: assign.handler.clone(),
            source: assign.source.clone(),
            env: assign.env.clone(),
            models: assign.models.clone(),
            limits: assign.limits,
        }
    }

    /// Whether what was started is what an agent is to be served by.
    pub fn fits(&self, assign: &Assign) -> bool {
        let started = HandlerSpec { started: assign.handler.started, ..self.handler.clone() };
        started == assign.handler && self.source == assign.source
    }
}

/// How a handler is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// JSON-RPC on stdin and stdout.
    #[default]
    Stdio,
    /// The handler's own loop over HTTP.
    Pull,
    /// One process a task.
    Exec,
    /// An HTTP server.
    Http,
}

/// What an `exec` handler reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinForm {
    /// The input's text.
    #[default]
    Text,
    /// The whole params of `task/execute`.
    Json,
}

/// What an `exec` handler writes, and what an `http` handler answers (there `text` means JSON or text as it comes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdoutForm {
    /// The output as text.
    #[default]
    Text,
    /// The output as JSON.
    Json,
    /// A whole result of `task/execute`.
    Result,
}

/// Which program the handler is and how it is driven.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandlerSpec {
    /// The carrier.
    pub protocol: Protocol,
    /// Program and arguments. The program is a path relative to the source, or is found in `PATH`.
    pub command: Vec<String>,
    /// Working directory, relative to the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `http`: the port to serve on; absent = the runner chooses a free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `exec`: what it reads.
    #[serde(default)]
    pub stdin: StdinForm,
    /// `exec`: what it writes; `http`: what it answers.
    #[serde(default)]
    pub stdout: StdoutForm,
    /// How many tasks at once the profile allows; 0 = 1.
    #[serde(default)]
    pub concurrency: u32,
    /// How long it may take to become ready; 0 = the default.
    #[serde(default)]
    pub start_timeout_ms: u64,
    /// Whether a pool started the process already.
    #[serde(default)]
    pub started: bool,
}

impl HandlerSpec {
    /// How many tasks at once, within the limits of the protocol.
    pub fn concurrency(&self) -> u32 {
        self.concurrency.clamp(1, limits::CONCURRENCY_MAX)
    }

    /// How long it may take to become ready, in milliseconds.
    pub fn start_timeout_ms(&self) -> u64 {
        if self.start_timeout_ms == 0 { limits::START_TIMEOUT_MS } else { self.start_timeout_ms }
    }
}

/// Where the handler's files come from: a bundle artifact (a tar) by its url, or a directory that is there already.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<ArtifactUrl>,
    /// Its digest, `sha256:<hex>`, which must agree with the url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// A directory visible in the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// How a secret reaches the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretForm {
    /// As an environment variable.
    #[default]
    Env,
    /// As a file that nobody can write, whose path is in an environment variable.
    File,
}

/// A secret for the handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignedSecret {
    /// Its name, and that of its variable.
    pub name: String,
    /// Its value.
    pub value: Secret,
    /// How it reaches the handler.
    #[serde(default, rename = "as")]
    pub form: SecretForm,
    /// Which file, relative to the directory of secrets; one of the secret's name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What a handler must not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Longest line on stdio.
    pub line_bytes: usize,
    /// Largest artifact.
    pub artifact_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes: limits::LINE_BYTES_MAX, artifact_bytes: limits::ARTIFACT_BYTES_MAX }
    }
}

/// What the watchdog goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Liveness {
    /// How often to send a heartbeat.
    pub heartbeat_ms: u64,
    /// How many may be missed.
    pub missed: u32,
    /// How long a busy handler may be silent.
    pub progress_ms: u64,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { heartbeat_ms: 1000, missed: 3, progress_ms: 15 * 60 * 1000 }
    }
}

/// `assign`: late binding of everything that makes a standby sandbox an agent's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assign {
    /// Answered by `ready` or `failed`.
    pub id: Id,
    /// Who the sandbox is.
    pub agent: AgentRef,
    /// What it runs.
    pub handler: HandlerSpec,
    /// Where that comes from.
    #[serde(default)]
    pub source: Source,
    /// Environment of the handler, beside what the runner gives.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Secrets of the handler.
    #[serde(default)]
    pub secrets: Vec<AssignedSecret>,
    /// Names of models that it may use.
    #[serde(default)]
    pub models: Vec<String>,
    /// Tool servers that it may use.
    #[serde(default)]
    pub tools: Vec<ToolServer>,
    /// Whom it may reach.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Whether it may use the egress door.
    #[serde(default)]
    pub egress: bool,
    /// What it must not exceed.
    #[serde(default)]
    pub limits: Limits,
    /// What the watchdog goes by.
    #[serde(default)]
    pub liveness: Liveness,
    /// For later links and the doors.
    pub token: Secret,
    /// How long a cancelled or stopped handler has before it is killed.
    #[serde(default = "grace_ms")]
    pub grace_ms: u64,
    /// How long the runner works on without a gateway.
    #[serde(default = "orphan_grace_ms")]
    pub orphan_grace_ms: u64,
}

fn grace_ms() -> u64 {
    limits::GRACE_MS
}

fn orphan_grace_ms() -> u64 {
    limits::ORPHAN_GRACE_MS
}

/// `task`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFrame {
    /// The frame's own id.
    pub id: Id,
    /// Which try.
    pub attempt: u32,
    /// Its fencing number, given back with the result.
    pub fence: u64,
    /// What the handler gets; the runner adds `dir`.
    pub params: Execute,
}

/// `task.cancel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelFrame {
    /// The task.
    pub task_id: Id,
    /// Which try.
    pub attempt: u32,
    /// Why.
    pub reason: String,
    /// How long the handler has before it is killed.
    pub grace_ms: u64,
}

/// `message`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageFrame {
    /// Answered by `message.ack`.
    pub id: Id,
    /// The message.
    pub message_id: Id,
    /// Which delivery of it, from 1.
    pub delivery: u32,
    /// What the handler gets.
    pub params: Deliver,
}

/// `reply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ReplyWire", into = "ReplyWire")]
pub struct ReplyFrame {
    /// The id of the call.
    pub re: u64,
    /// Its answer.
    pub outcome: Result<Value, Error>,
}

#[derive(Serialize, Deserialize)]
struct ReplyWire {
    re: u64,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

impl TryFrom<ReplyWire> for ReplyFrame {
    type Error = &'static str;

    fn try_from(wire: ReplyWire) -> Result<Self, Self::Error> {
        let outcome = match (wire.result, wire.error) {
            (Some(result), None) => Ok(result),
            (None, Some(error)) => Err(error),
            _ => return Err("a reply has exactly one of `result` and `error`"),
        };
        Ok(Self { re: wire.re, outcome })
    }
}

impl From<ReplyFrame> for ReplyWire {
    fn from(frame: ReplyFrame) -> Self {
        let (result, error) = match frame.outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { re: frame.re, result, error }
    }
}

/// `token`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenFrame {
    /// The new token.
    pub token: Secret,
    /// For how long it is good.
    pub expires_in_ms: u64,
}

/// `drain`: acknowledged when the handler is gone; then the runner closes the link (1000) and exits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainFrame {
    /// Answered by `ack`.
    pub id: Id,
    /// Why.
    pub reason: ShutdownReason,
    /// How long the handler has before it is killed.
    pub grace_ms: u64,
}
