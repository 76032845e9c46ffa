//! Whether the bus can be reached, and whether it can do what the platform needs of it.

use std::time::Duration;

use nats::{Bus as _, Connection, Nats};

use super::{Finding, Verdict};
use crate::bus;
use crate::config::Config;

const WHAT: &str = "nats";
/// How long the server may take to let us in.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest message that an event can be, with its headers, in bytes.
const PAYLOAD_BYTES_LEAST: usize = 128 * 1024;

/// What is found about the bus; `None` where none is configured.
pub(super) async fn examine(config: &Config) -> Option<Finding> {
    let options = match bus::options(config) {
        Ok(options) => options?,
        Err(reason) => return Some(Finding::new(WHAT, Verdict::Error, reason, "mend the configuration")),
    };
    let address = options.address.to_string();
    let nats = Nats::connect(options);
    let mut connection = nats.connection();
    let up = tokio::time::timeout(PATIENCE, connection.wait_for(|now| *now == Connection::Up)).await.is_ok();
    Some(match nats.server().filter(|_| up) {
        Some(server) => judge(&address, &server),
        None => {
            let reason = match &*nats.connection().borrow() {
                Connection::Down { reason } => reason.to_string(),
                Connection::Up => format!("connect to {address}: it went away again"),
            };
            Finding::new(
                WHAT,
                Verdict::Warning,
                reason,
                "start the server, or mend `nats_url` and the credentials; the platform goes on meanwhile",
            )
        }
    })
}

fn judge(address: &str, server: &nats::Server) -> Finding {
    let found = format!(
        "{address} is version {}, with messages up to {} KiB",
        server.version,
        server.payload_bytes_max >> 10
    );
    match (server.has_jetstream, server.payload_bytes_max >= PAYLOAD_BYTES_LEAST) {
        (true, true) => Finding::new(WHAT, Verdict::Ok, found, ""),
        (false, _) => {
            let found = format!("{found}, and without JetStream");
            Finding::new(
                WHAT,
                Verdict::Warning,
                found,
                "give the server a `jetstream` block: no events are published",
            )
        }
        (true, false) => Finding::new(
            WHAT,
            Verdict::Warning,
            found,
            "set `max_payload` to at least 128 KiB: large events would hold up all others",
        ),
    }
}
