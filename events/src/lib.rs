//! The event-sourced core: pure domain, store and artifact seams, projections.
//!
//! Everything that happens in HyperCode is a [`Recorded`] event in one append-only, hash-chained log.
//! This crate knows how events are made (`domain`), kept (`store`), read (`projection`) and proven
//! (`invariant`, `chain`); it knows nothing of actors, HTTP, sandboxes or message buses.

pub mod api;
pub mod artifact;
pub mod audit;
pub mod body;
pub mod chain;
pub mod domain;
pub mod event;
pub mod id;
pub mod invariant;
pub mod lease;
pub mod private_file;
pub mod projection;
pub mod replay;
pub mod seal;
pub mod snapshot;
pub mod store;
pub mod subscription;
pub mod supervision;

pub use event::{Meta, NewEvent, Principal, Recorded};
pub use id::{
    AgentId, CommandId, CrewId, Digest, EntityKind, EventId, Incarnation, KeyId, PoolId, Position, SandboxId,
    StreamId, TaskId, Tenant, Timestamp, Version,
};
pub use store::{AppendError, AppendRequest, Appended, EventStore, Expected};
