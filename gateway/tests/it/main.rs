//! The gateway over real Unix sockets, against runners written by hand.

mod calls;
mod door;
mod links;
mod messages;
mod state;
mod support;
mod tasks;
