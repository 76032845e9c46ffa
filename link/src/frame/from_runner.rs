//! Frames that a runner sends.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ErrorFrame, TaskRef, is_default};
use crate::{
    Error, Id,
    handler::{Executed, HandlerInfo},
};

/// A frame from a runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
pub enum ToGateway {
    /// First of all, within 5 s.
    #[serde(rename = "hello")]
    Hello(Hello),
    /// The handler takes work.
    #[serde(rename = "ready")]
    Ready(Ready),
    /// The handler could not be started.
    #[serde(rename = "failed")]
    Failed(Failed),
    /// The handler ended by itself.
    #[serde(rename = "exited")]
    Exited(Exited),
    /// The sandbox lives.
    #[serde(rename = "heartbeat")]
    Heartbeat(Heartbeat),
    /// An attempt ended; resent until acknowledged.
    #[serde(rename = "task.result")]
    TaskResult(TaskResultFrame),
    /// The handler took a message, or did not.
    #[serde(rename = "message.ack")]
    MessageAck(MessageAck),
    /// The handler asks for something.
    #[serde(rename = "call")]
    Call(CallFrame),
    /// The handler says something; no answer.
    #[serde(rename = "note")]
    Note(NoteFrame),
    /// A gateway's frame is done with.
    #[serde(rename = "ack")]
    Ack {
        /// Its id.
        re: Id,
    },
    /// How much more is welcome now.
    #[serde(rename = "credit")]
    Credit(Credit),
    /// A gateway's frame was refused.
    #[serde(rename = "error")]
    Error(ErrorFrame<Id>),
}

/// The values of `t` that a runner may send.
pub(crate) const TAGS: &[&str] = &[
    "hello",
    "ready",
    "failed",
    "exited",
    "heartbeat",
    "task.result",
    "message.ack",
    "call",
    "note",
    "ack",
    "credit",
    "error",
];

impl ToGateway {
    /// Whether the frame may come before `assign`.
    pub fn legal_before_assign(&self) -> bool {
        matches!(
            self,
            Self::Hello(_) | Self::Heartbeat(_) | Self::Ack { .. } | Self::Exited(_) | Self::Error(_)
        )
    }

    /// The frame's own id, where it has one.
    pub fn id(&self) -> Option<u64> {
        match self {
            Self::TaskResult(frame) => Some(frame.id),
            Self::Call(frame) => Some(frame.id),
            _ => None,
        }
    }
}

/// `hello`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The link versions that the runner speaks.
    pub v: Vec<u32>,
    /// The runner's version.
    pub runner: String,
    /// The machine's architecture.
    #[serde(default)]
    pub arch: String,
    /// What is going on, when this is not the sandbox's first link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// What a runner has in hand when it comes back.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// Attempts that run, or whose result is not acknowledged.
    #[serde(default)]
    pub tasks: Vec<ResumedTask>,
    /// Ids of calls without an answer.
    #[serde(default)]
    pub calls: Vec<u64>,
}

/// One attempt in hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumedTask {
    /// The task.
    pub task_id: Id,
    /// Which try.
    pub attempt: u32,
    /// Its fencing number.
    pub fence: u64,
    /// How it stands.
    pub state: ResumeState,
    /// How long the handler has said nothing about it.
    #[serde(default)]
    pub idle_ms: u64,
}

/// How an attempt in hand stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeState {
    /// The handler works on it.
    Running,
    /// It ended; its result follows.
    Done,
}

/// `ready`: only after `initialize` is answered. Sent again after a reconnect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// The id of `assign`.
    pub re: Id,
    /// How long the source took.
    #[serde(default)]
    pub source_ms: u64,
    /// How long the start of the process took.
    #[serde(default)]
    pub spawn_ms: u64,
    /// How long the handler took to answer `initialize`.
    #[serde(default)]
    pub initialize_ms: u64,
    /// What the handler said of itself.
    #[serde(default)]
    pub handler: HandlerInfo,
}

/// At what the start of a handler failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// At fetching and unpacking its source.
    Source,
    /// At starting its process.
    Spawn,
    /// At its answer to `initialize`.
    Initialize,
}

/// `failed`: the handler could not be started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// The id of `assign`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub re: Option<Id>,
    /// At what.
    pub stage: Stage,
    /// Why, for a person.
    pub message: String,
    /// The process's exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The end of its log, at most 4 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
}

/// `exited`: the handler ended by itself, or was killed since it did not stop a task; the tasks in hand crashed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exited {
    /// The process's exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory.
    #[serde(default, skip_serializing_if = "is_default")]
    pub oom: bool,
    /// Why the runner killed it; absent where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The tasks that it had in hand.
    #[serde(default)]
    pub tasks: Vec<TaskRef>,
    /// The end of its log, at most 4 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
}

/// What a handler is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandlerState {
    /// None is assigned.
    #[default]
    None,
    /// It has not answered `initialize` yet.
    Starting,
    /// It has nothing in hand.
    Idle,
    /// It has a task in hand.
    Busy,
    /// All it has in hand waits for an input.
    Waiting,
    /// It has been told to end.
    Draining,
    /// It is gone.
    Exited,
}

/// `heartbeat`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// Rises by one in every heartbeat of a link.
    pub seq: u64,
    /// What the handler is at.
    pub handler: HandlerState,
    /// The attempts in hand.
    #[serde(default)]
    pub tasks: Vec<HeldTask>,
    /// Resident memory of the sandbox's processes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// CPU time that they have used so far.
    #[serde(default)]
    pub cpu_ms: u64,
    /// What was thrown away since the last heartbeat.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dropped: Dropped,
    /// The handler's process is stopped (by SIGSTOP or a debugger): it cannot make progress and counts as hung.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stopped: bool,
    /// For how long the oldest `ping` has been without an answer; 10 s count as hung.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ping_ms: u64,
}

/// An attempt in hand, in a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldTask {
    /// The task.
    pub task_id: Id,
    /// Which try.
    pub attempt: u32,
    /// How long the handler has said nothing about it. Zero while a call of it is pending.
    #[serde(default)]
    pub idle_ms: u64,
    /// How long its busy lease still runs.
    #[serde(default)]
    pub lease_ms: u64,
}

/// Notes that were thrown away to stay within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dropped {
    /// Log lines and usage reports.
    #[serde(default)]
    pub log: u64,
    /// Progress reports and deltas.
    #[serde(default)]
    pub progress: u64,
}

/// `task.result`: kept and resent until its `ack`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ResultWire", into = "ResultWire")]
pub struct TaskResultFrame {
    /// Rises over the sandbox's whole life.
    pub id: u64,
    /// The task.
    pub task_id: Id,
    /// Which try.
    pub attempt: u32,
    /// Its fencing number, as it was given.
    pub fence: u64,
    /// How it ended.
    pub outcome: Result<Executed, Error>,
    /// How long it took.
    pub ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultWire {
    id: u64,
    task_id: Id,
    attempt: u32,
    fence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Executed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
    #[serde(default)]
    ms: u64,
}

impl TryFrom<ResultWire> for TaskResultFrame {
    type Error = &'static str;

    fn try_from(wire: ResultWire) -> Result<Self, Self::Error> {
        let outcome = match (wire.result, wire.error) {
            (Some(result), None) => Ok(result),
            (None, Some(error)) => Err(error),
            _ => return Err("a task.result has exactly one of `result` and `error`"),
        };
        let ResultWire { id, task_id, attempt, fence, ms, .. } = wire;
        Ok(Self { id, task_id, attempt, fence, outcome, ms })
    }
}

impl From<TaskResultFrame> for ResultWire {
    fn from(frame: TaskResultFrame) -> Self {
        let TaskResultFrame { id, task_id, attempt, fence, outcome, ms } = frame;
        let (result, error) = match outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { id, task_id, attempt, fence, result, error, ms }
    }
}

/// `message.ack`: without an error, the handler took the message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageAck {
    /// The id of the `message` frame.
    pub re: Id,
    /// The message.
    pub message_id: Id,
    /// Why not: `method_not_found` = the handler takes no messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// `call`: read its params with [`Call::parse`](crate::Call::parse).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallFrame {
    /// Rises over the sandbox's whole life; the same id is the same call, sent again.
    pub id: u64,
    /// Its method.
    pub method: String,
    /// Its params.
    pub params: Value,
    /// Which of identical calls of its attempt it is, from 1: of a `task/delegate` without a key, for which it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
}

/// `note`: read its params with [`Note::parse`](crate::Note::parse).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NoteFrame {
    /// Its method.
    pub method: String,
    /// Its params.
    pub params: Value,
}

/// `credit`: absolute; without one nothing may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credit {
    /// How many more tasks.
    pub tasks: u32,
    /// How many more messages.
    pub messages: u32,
}
