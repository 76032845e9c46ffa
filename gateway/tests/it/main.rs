//! The gateway over real Unix sockets, against runners written by hand.

mod calls;
mod links;
mod messages;
mod support;
mod tasks;
