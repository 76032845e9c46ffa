//! The sandbox seam and its implementations.
//!
//! A *sandbox* is the isolated place in which one runner runs; it serves at most one incarnation of
//! an agent, ever. [`Provider`] is the seam: what the platform asks of any kind of sandbox, and the
//! laws that every kind keeps.
//!
//! The platform decides *when* a sandbox is made or removed; this crate knows nothing of agents
//! beyond the labels it is given, and nothing of what runner and gateway say to each other.

mod error;
mod id;
mod provider;
mod spec;

pub use error::Error;
pub use id::{Id, Instance};
pub use provider::{Exit, Found, Isolation, Kind, Level, Pid, Provider, Running, Signal, State, Target};
pub use spec::{Labels, Resources, Runner, Spec};
