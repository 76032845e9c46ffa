//! Link frames: JSON text messages of the WebSocket `/link/v1`, told apart by their `t`.

mod from_gateway;
mod from_runner;

pub use crate::handler::{AgentRef, HandlerInfo, Messages};
pub(crate) use from_gateway::TAGS as GATEWAY_TAGS;
pub use from_gateway::{
    Assign, AssignedSecret, CancelFrame, DrainFrame, HandlerSpec, Limits, Liveness, MessageFrame, Prestart,
    Protocol, ReplyFrame, SecretForm, Source, StdinForm, StdoutForm, TaskFrame, ToRunner, TokenFrame,
    Welcome,
};
pub(crate) use from_runner::TAGS as RUNNER_TAGS;
pub use from_runner::{
    CallFrame, Credit, Dropped, Exited, Failed, HandlerState, Heartbeat, HeldTask, Hello, MessageAck,
    NoteFrame, Ready, Resume, ResumeState, ResumedTask, Stage, TaskResultFrame, ToGateway,
};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{Error, ErrorType, Id};

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRef {
    /// The task.
    pub task_id: Id,
    /// Which try, from 1.
    pub attempt: u32,
}

/// `error`: something that the peer sent was refused. `R` is the form of the ids that the peer gives its frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "R: Deserialize<'de>"))]
pub struct ErrorFrame<R> {
    /// The id of the refused frame, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub re: Option<R>,
    /// The table's code.
    pub code: i32,
    /// The table's type.
    #[serde(rename = "type")]
    pub kind: ErrorType,
    /// What happened, for a person.
    pub message: String,
    /// More, as data.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
}

impl<R> ErrorFrame<R> {
    /// The frame that tells the peer of an error. Errors outside the table are `internal`.
    pub fn new(re: Option<R>, error: Error) -> Self {
        let kind = error.kind.unwrap_or(ErrorType::Internal);
        Self { re, code: kind.code(), kind, message: error.message, data: error.data }
    }

    /// The error that the frame tells of.
    pub fn into_error(self) -> Error {
        Error { code: self.code, kind: Some(self.kind), message: self.message, data: self.data }
    }
}

/// Why a link was closed, beside the codes of RFC 6455 (1000 done, 1003 not JSON text, 1009 too large).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// RFC 6455: done.
    Normal = 1000,
    /// RFC 6455: not a JSON text frame.
    NotText = 1003,
    /// RFC 6455: the frame is too large.
    TooLarge = 1009,
    /// `hello` came late.
    HelloLate = 4000,
    /// No version in common.
    Version = 4001,
    /// The token is not valid.
    Token = 4003,
    /// The sandbox has a link already.
    SecondLink = 4004,
    /// The incarnation has ended: the runner stops its handler and exits.
    IncarnationEnded = 4005,
    /// Too many frames in too short a time.
    Rate = 4008,
    /// A frame that is not legal in the link's present state.
    OutOfOrder = 4010,
}

impl CloseCode {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Whether trying again cannot help: the runner gives up.
    pub fn is_final(code: u16) -> bool {
        [Self::Normal, Self::Version, Self::IncarnationEnded].iter().any(|known| known.code() == code)
    }
}

/// A field that may hold `null` and so must tell "absent" from "null".
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
