//! The sandbox seam and its implementations.
//!
//! A *sandbox* is the isolated place in which one runner runs; it serves at most one incarnation of
//! an agent, ever. [`Provider`] is the seam: what the platform asks of any kind of sandbox, and the
//! laws that every kind keeps. [`Kept`] makes the two kinds that need nothing installed: processes
//! watched over by a small *keeper* each (see [`keeper_main`]), either plain ones that share the host, or ones with
//! namespaces of their own (see [`Confinement`]). [`Docker`] makes containers, as hardened as those.
//!
//! The platform decides *when* a sandbox is made or removed; this crate knows nothing of agents
//! beyond the labels it is given, and nothing of what runner and gateway say to each other.

pub mod docker;
mod error;
mod gates;
mod id;
mod kept;
mod native;
mod proc;
mod provider;
pub mod seccomp;
mod spec;
mod tail;
mod used;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;

pub use docker::Docker;
pub use error::Error;
pub use id::{Id, Instance};
pub use kept::{Kept, Limits, Options, control_groups, keeper_main};
pub use native::{CANARY, Confinement, canary_main, prove};
pub use provider::{
    Breach, Container, Exit, Found, Isolation, Kind, Level, Peer, Pid, Provider, Running, Signal, State,
    Tampering, Target,
};
pub use spec::{Labels, Resources, Runner, Spec};
