//! Wire types of the link and of the handler protocol.
//!
//! The *link* is the one WebSocket between a runner and the gateway ([`ToGateway`], [`ToRunner`]); the *handler
//! protocol* is JSON-RPC 2.0 between a runner and the user's program ([`rpc`], [`handler`], [`Call`], [`Note`]). Both
//! carry the same [`Content`] and the same [`Error`] table. This crate does no IO and knows no other of our crates.
//!
//! Everything that arrives is hostile until parsed: parsing bounds size and depth, never panics, and says what was
//! wrong in an [`Error`] that can be sent back as it is.

mod address;
mod artifact;
pub mod bootstrap;
mod call;
mod content;
mod error;
mod frame;
pub mod handler;
mod id;
mod identity;
pub mod limits;
mod misfit;
mod parse;
pub mod rpc;
mod secret;
pub mod transcript;

pub use address::{Address, AddressError};
pub use artifact::{Artifact, ArtifactUrl, Location};
pub use call::{
    Action, Answer, ArtifactGet, ArtifactGot, ArtifactPut, ArtifactStored, Await, AwaitMode, Awaited, Busy,
    Call, CancelChild, Canceled, Checkpoint, Checkpointed, Child, Delegate, InputKind, InputRequest, Log,
    LogLevel, MessageSend, MessageSent, Note, OnTimeout, Progress, Scope, StateGet, StateGot, StatePut,
    StateStored, ToolCall, ToolList, Usage,
};
pub use content::{Body, Content, Part};
pub use error::{Error, ErrorType, Retry};
pub use frame::{
    AgentRef, Assign, AssignedSecret, CallFrame, CancelFrame, CloseCode, Credit, DrainFrame, Dropped,
    ErrorFrame, Exited, Failed, HandlerInfo, HandlerSpec, HandlerState, Heartbeat, HeldTask, Hello, Limits,
    Liveness, MessageAck, MessageFrame, Messages, NoteFrame, Prestart, Protocol, Ready, ReplyFrame, Resume,
    ResumeState, ResumedTask, SecretForm, Source, Stage, StdinForm, StdoutForm, TaskFrame, TaskRef,
    TaskResultFrame, ToGateway, ToRunner, TokenFrame, Welcome,
};
pub use id::{Id, IdError};
pub use misfit::params;
pub use parse::{check_frame, depth, parse_to_gateway, parse_to_runner};
pub use secret::Secret;
