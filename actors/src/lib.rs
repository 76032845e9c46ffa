//! Supervised actors over the event-sourced core.
//!
//! Every crew, agent, task and profile is an actor that decides, appends, evolves, replies and only then acts;
//! what it must make true outside is carried out by effects, at least once and idempotently. Crews supervise
//! agents by the same policy by which the [`supervisor`] supervises actors; the [`watchdog`] says which agents
//! are dead, lost or hung.

pub mod admission;
pub mod supervisor;
pub mod watchdog;

mod breaches;
mod changes;
mod channels;
mod claims;
mod clock;
mod commands;
mod contents;
mod core;
mod directory;
mod entity;
mod hibernation;
mod homes;
mod host;
mod hosted;
mod keeper;
mod kills;
mod links;
mod live;
mod meters;
mod options;
mod peers;
mod platform;
mod posts;
mod profiles;
mod recovery;
mod roster;
mod route;
mod secrets;
mod service;
mod shards;
mod share;
mod shelves;
mod submit;
mod takeover;
mod tallies;
mod waits;

pub use clock::Clock;
pub use keeper::Leasing;
pub use links::{Links, NotSent};
pub use options::{Limits, Options};
pub use platform::{Figures, Platform, Seams};
pub use recovery::Registry;
pub use secrets::{Resolved, Secrets, Unresolved};
pub use shelves::{Counts, PoolFigures};
