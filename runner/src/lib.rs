//! What runs as the first process of every sandbox.
//!
//! A runner keeps the link to the gateway, starts the one handler that the sandbox is assigned, drives it by its
//! carrier, and sees to it that nothing outlives it. It knows the protocol ([`link`]) and no other part of the platform.

mod api;
mod carrier;
pub mod check;
mod child;
mod core;
mod door;
mod entry;
mod event;
mod gateway;
mod lines;
mod log;
mod mask;

mod options;
mod process;
mod setup;
mod source;
mod uplink;
mod workspace;

pub use entry::main;
pub use gateway::Gateway;
pub use options::{Options, OptionsError};
