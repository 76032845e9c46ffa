//! A node says that it is there.

use std::time::Duration;

use events::Timestamp;
use nats::relay::Status;
use nats::{Bus, Message, Subject};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Limits;

/// Announces the node from time to time, and that it goes.
pub(super) async fn announce<B: Bus>(
    bus: B,
    node: String,
    relay: watch::Receiver<Status>,
    limits: Limits,
    stop: CancellationToken,
) {
    let started_at = Timestamp::now().rfc3339();
    let say = async |state: &str| {
        let body = json!({
            "node": node,
            "state": state,
            "version": env!("CARGO_PKG_VERSION"),
            "startedAt": started_at,
            "relayPosition": relay.borrow().position.0,
            "everyMs": limits.presence_ms,
        });
        let message = Message::new(Subject::of_presence(&node), body.to_string());
        // Who is not heard now is heard the next time.
        let _ = bus.publish(message.with("Content-Type", "application/json")).await;
    };
    let mut connection = bus.connection();
    let announcing = async {
        loop {
            say("running").await;
            let every = Duration::from_millis(limits.presence_ms);
            // At once after the bus came back, else after a while; a bus that has closed never changes again.
            if let Ok(Err(_)) = tokio::time::timeout(every, connection.changed()).await {
                std::future::pending::<()>().await;
            }
        }
    };
    stop.run_until_cancelled(announcing).await;
    say("stopping").await;
}
