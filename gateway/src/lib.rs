//! The platform's end of all links.
//!
//! Each sandbox has one Unix socket of its own. Over it comes the *link*, a WebSocket on which a runner and the platform
//! exchange frames ([`link`]), and beside it the artifact door. The gateway knows by the socket, the kernel and the
//! token whose link it is, stamps that on everything, and lets nothing through that no channel allows:
//!
//! ```text
//!   runner --socket--> session --calls, results--> Host          (crews, agents, tasks: somebody else's)
//!                         |----messages--> policy -> log -> board -> session --socket--> runner
//!                         |----state-----> log
//!                         '----artifacts-> store
//! ```
//!
//! Laws: CH-1 no message crosses without a channel. CH-2 no message is delivered before its event is durable. CH-3 the
//! sender named on a message is the authenticated one.

mod auth;
mod board;
mod body;
mod bootstrap;
mod bucket;
mod calls;
mod channel;
mod core;
mod crew;
mod delivery;
mod denial;
mod door;
mod error;
mod gateway;
mod grant;
mod hand;
mod host;
mod journal;
mod options;
mod outlet;
mod policy;
mod request;
mod sandbox;
mod send;
mod server;
mod session;
mod socket;
mod state;
mod throttle;
mod trace;

pub use error::Error;
pub use gateway::{Gateway, Seams, Withdrawn};
pub use host::{Activity, HeldTask, Host, HostCall, Linked, Origin, Peer, Process};
pub use options::{Limits, Options};
pub use policy::{Channel, CrewPolicy, Kind, Member};
