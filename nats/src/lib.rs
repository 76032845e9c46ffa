//! The bus: a seam with two implementations, subjects that no text of a user's can break out of, and the relay that
//! publishes the log.
//!
//! The bus is transport, never the record: what it loses is repaired from the log.

pub mod bus;
mod client;
pub mod cloud_event;
#[cfg(feature = "test-util")]
pub mod conformance;
mod memory;
mod message;
mod percent;
pub mod relay;
#[cfg(feature = "test-util")]
pub mod server;
pub mod subject;

pub use bus::{Bus, BusError, Connection, StreamSpec, StreamState, Streams, Subscription};
pub use client::{Address, Credentials, InvalidAddress, Nats, Options, Server, Tls};
pub use memory::Memory;
pub use message::{Headers, Message};
pub use relay::Relay;
pub use subject::{Pattern, Subject};
