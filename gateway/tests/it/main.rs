//! The gateway over real Unix sockets, against runners written by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bootstrap;
mod calls;
mod door;
mod links;
mod messages;
mod origins;
mod state;
mod support;
mod tasks;
mod tokens;
mod transcripts;
