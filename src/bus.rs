//! The platform on a bus: its log is published there, commands are taken there, and nodes say that they are there.
//!
//! The bus is transport, never the record. While it cannot be reached the platform goes on, says so, and catches up
//! afterwards.

mod door;
mod presence;

use std::sync::Arc;
use std::time::Duration;

use events::EventStore;
use nats::relay::{self, Relay, State, Status};
use nats::{Bus, Connection, Credentials, Streams, Tls};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Service;
use crate::config::Config;
use crate::http::Dependency;

/// Every bound of what the platform does on a bus.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Commands that are carried out at once; further ones are refused as `busy`.
    pub commands_max: usize,
    /// How often a node says that it is there, in milliseconds.
    pub presence_ms: u64,
    /// How long is waited before a subscription that failed is tried again, in milliseconds.
    pub retry_ms: u64,
    /// How long commands that are under way may take after the platform is told to stop, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { commands_max: 256, presence_ms: 5_000, retry_ms: 500, drain_ms: 10_000 }
    }
}

/// What goes onto the bus.
pub struct Parts {
    /// Takes commands, and knows who may give them.
    pub service: Arc<Service>,
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// This node's name.
    pub node: String,
    /// The relay's bounds.
    pub relay: relay::Options,
    /// The bounds of everything else.
    pub limits: Limits,
}

/// A platform that has joined a bus.
pub struct Joined {
    connection: watch::Receiver<Connection>,
    relay: watch::Receiver<Status>,
    tasks: TaskTracker,
    stop: CancellationToken,
    drain: Duration,
}

impl Joined {
    /// Joins: begins to publish the log and to take commands, now or when the bus can be reached.
    pub fn join<B: Bus + Streams + Clone>(bus: &B, parts: Parts) -> Arc<Self> {
        let Parts { service, store, node, relay, limits } = parts;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let drain = Duration::from_millis(limits.drain_ms);
        let relay = Relay::new(store, bus.clone(), relay);
        let joined = Self {
            connection: bus.connection(),
            relay: relay.status(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            drain,
        };
        tasks.spawn(presence::announce(bus.clone(), node, relay.status(), limits.clone(), stop.clone()));
        tasks.spawn(relay.run(stop.clone()));
        tasks.spawn(door::serve(service, bus.clone(), limits, stop));
        Arc::new(joined)
    }

    /// Takes no more commands, and waits a while for those that are being carried out.
    pub async fn leave(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.drain, self.tasks.wait()).await.is_err() {
            tracing::warn!("commands of the bus were still under way when the platform stopped");
        }
    }
}

impl Dependency for Joined {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn trouble(&self) -> Option<String> {
        if let Connection::Down { reason } = &*self.connection.borrow() {
            return Some(format!(
                "reach the bus: {reason}; events are published and commands taken again when it is back"
            ));
        }
        match &self.relay.borrow().state {
            State::Starting => Some("the relay has not reached its stream yet".to_owned()),
            State::Following => None,
            State::Behind { events } => {
                Some(format!("the relay is {events} events behind the log, and catches up"))
            }
            State::Interrupted { reason } | State::Refused { reason } => Some(reason.to_string()),
        }
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let position = self.relay.borrow().position.0;
        vec![("hypercode_relay_position", "The position up to which events are published.", position)]
    }
}

/// How the configured server is reached; `None` where none is configured.
///
/// # Errors
/// When settings do not go together; the message says which.
pub fn options(config: &Config) -> Result<Option<nats::Options>, String> {
    let settings = &config.nats;
    let credentials = match (&settings.nkey, &settings.credentials) {
        (None, None) => Credentials::None,
        (Some(seed), None) => Credentials::Nkey(seed.clone()),
        (None, Some(file)) => Credentials::File(file.clone()),
        (Some(_), Some(_)) => {
            return Err("`nats_nkey` and `nats_credentials` are both set: choose one".to_owned());
        }
    };
    let identity = match (&settings.certificate, &settings.key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        _ => return Err("`nats_certificate` and `nats_key` go together: set both or none".to_owned()),
    };
    let Some(address) = &settings.url else { return Ok(None) };
    let required = settings.authorities.is_some() || identity.is_some();
    let tls = Tls { required, authorities: settings.authorities.clone(), identity };
    Ok(Some(nats::Options { credentials, tls, ..nats::Options::new(address.clone()) }))
}

#[cfg(test)]
mod tests;
