//! What nodes ask of each other over the bus: commands for the shards that the other holds, and the logs of its
//! sandboxes.
//!
//! A message is known by a MAC under the secret that the nodes share in the log's database (HMAC-SHA-256, RFC 2104):
//! whoever else may send on the bus cannot speak for a caller. A command that is repeated, by a node or by somebody who
//! recorded it, is known by its idempotency key, and is not taken when it is old.

use std::sync::Arc;
use std::time::Duration;

use events::api::{Caller, Command, Problem, ProblemKind, Reply};
use events::lease::Secret;
use events::{Position, Principal, SandboxId, Tenant, Timestamp};
use hmac::{Hmac, KeyInit, Mac};
use nats::{Bus, BusError, Message, Subject};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The header that bears the message's MAC, in hexadecimal.
const MAC: &str = "Hypercode-Mac";
/// An older request is refused; the clocks of the nodes may differ by as much.
const AGE_MAX_MS: i64 = 120_000;

/// A request of one node to another.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    sent_at_ms: i64,
    ask: Ask,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Carry out a command.
    Execute { caller: Asker, command: Command },
    /// Tell the end of a sandbox's log.
    Log { sandbox: SandboxId, bytes_max: u64 },
}

/// Who asks, as it goes over the bus. The node that asks gives it a key if it came without.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asker {
    tenant: Tenant,
    principal: Principal,
    idempotency_key: Option<Arc<str>>,
    traceparent: Option<Arc<str>>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It was done.
    Done { reply: Reply },
    /// It was refused.
    Refused(Refused),
    /// The shard is not, or no longer, held here: nothing was done that another node would not know of.
    Moved,
    /// The end of the log; nothing where there is none.
    Log { text: Option<String> },
}

/// A problem, as it goes over the bus.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    kind: ProblemKind,
    detail: String,
    faults: Vec<serde_json::Value>,
    position: Option<Position>,
}

impl From<&Caller> for Asker {
    fn from(caller: &Caller) -> Self {
        let Caller { tenant, principal, idempotency_key, traceparent } = caller.clone();
        Self { tenant, principal, idempotency_key, traceparent }
    }
}

impl From<Asker> for Caller {
    fn from(asker: Asker) -> Self {
        let Asker { tenant, principal, idempotency_key, traceparent } = asker;
        Self { tenant, principal, idempotency_key, traceparent }
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let Problem { kind, detail, faults, position } = problem;
        Self::Refused(Refused { kind, detail, faults, position })
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let Refused { kind, detail, faults, position } = refused;
        Self { kind, detail, faults, position }
    }
}

/// Why another node did not answer.
#[derive(Debug)]
pub(crate) enum Silence {
    /// Nobody hears it: it has ended, or has not begun to listen.
    Unheard,
    /// There is no bus at the moment, or it gave no answer in time.
    Unreachable(String),
}

/// The way to the other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    bus: Arc<dyn Bus>,
    keyed: Hmac<Sha256>,
}

/// Where a node takes what others ask of it.
pub(crate) fn subject(node: &str) -> Subject {
    Subject::of(["hypercode", "node", node, "cmd"])
}

impl Peers {
    pub(crate) fn new(bus: Arc<dyn Bus>, secret: &Secret) -> Self {
        Self { bus, keyed: Hmac::new_from_slice(&secret.0).expect("a key of any length is legal") }
    }

    pub(crate) fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    /// Asks a node, and waits for its answer for at most `limit`.
    pub(crate) async fn ask(
        &self,
        node: &str,
        ask: Ask,
        now: Timestamp,
        limit: Duration,
    ) -> Result<Answer, Silence> {
        let unreachable = |reason: String| Silence::Unreachable(format!("ask node `{node}`: {reason}"));
        let (to, envelope) = (subject(node), Envelope { sent_at_ms: now.millis(), ask });
        let message = self.sealed(to.clone(), to.as_str(), &envelope);
        let message = message.map_err(|error| unreachable(error.to_string()))?;
        let tag = message.headers.get(MAC).unwrap_or_default().to_owned();
        let answer = self.bus.request(message, limit).await.map_err(|error| match error {
            BusError::Unheard { .. } => Silence::Unheard,
            error => unreachable(error.to_string()),
        })?;
        self.opened(&answer, &tag)
            .ok_or_else(|| unreachable("its answer is not one of our nodes'".to_owned()))
    }

    /// What another node asks; `None` where the message is none of a node's, or is old.
    pub(crate) fn asked(&self, message: &Message, now: Timestamp) -> Option<Ask> {
        let Envelope { sent_at_ms, ask } = self.opened(message, message.subject.as_str())?;
        ((now.millis() - sent_at_ms).abs() <= AGE_MAX_MS).then_some(ask)
    }

    /// Answers what another node has asked.
    pub(crate) async fn answer(&self, asked: &Message, answer: &Answer) {
        let Err(error) = self.send(asked, answer).await else { return };
        let detail = format!("the answer cannot be sent: {error}");
        let instead = Problem::new(ProblemKind::Unavailable, detail).into();
        if let Err(error) = self.send(asked, &instead).await {
            tracing::warn!(%error, "an answer to another node is lost");
        }
    }

    async fn send(&self, asked: &Message, answer: &Answer) -> Result<(), String> {
        let (Some(to), Some(tag)) = (asked.reply.clone(), asked.headers.get(MAC)) else { return Ok(()) };
        let message = self.sealed(to, tag, answer).map_err(|error| error.to_string())?;
        self.bus.publish(message).await.map_err(|error| error.to_string())
    }

    /// A message that is good only in its context: for the node that is asked, or as the answer to one request.
    fn sealed(
        &self,
        subject: Subject,
        context: &str,
        content: &impl Serialize,
    ) -> Result<Message, serde_json::Error> {
        let body = serde_json::to_vec(content)?;
        let tag = hex::encode(self.mac(context, &body).finalize().into_bytes());
        Ok(Message::new(subject, body).with(MAC, tag))
    }

    fn opened<T: DeserializeOwned>(&self, message: &Message, context: &str) -> Option<T> {
        let mut tag = [0; 32];
        hex::decode_to_slice(message.headers.get(MAC)?, &mut tag).ok()?;
        self.mac(context, &message.body).verify_slice(&tag).ok()?;
        serde_json::from_slice(&message.body).ok()
    }

    fn mac(&self, context: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(context.as_bytes());
        mac.update(&[0]);
        mac.update(body);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_382_626_000_000);

    fn log() -> Ask {
        Ask::Log { sandbox: SandboxId::derive(&["one"]), bytes_max: 7 }
    }

    #[tokio::test]
    async fn a_node_hears_only_nodes_that_know_the_secret_and_only_what_is_new() {
        let bus: Arc<dyn Bus> = Arc::new(nats::Memory::new());
        let [ours, theirs] = [1, 2].map(|byte| Peers::new(Arc::clone(&bus), &Secret([byte; 32])));
        let mut heard = bus.subscribe(subject("b").into(), None).await.expect("the bus is up");
        let wait = Duration::from_millis(1);
        let silence = ours.ask("b", log(), NOW, wait).await.expect_err("nobody answers");
        assert!(matches!(silence, Silence::Unreachable(_)));
        let message = heard.next().await.expect("it was sent");
        assert!(matches!(ours.asked(&message, NOW), Some(Ask::Log { bytes_max: 7, .. })));
        assert!(theirs.asked(&message, NOW).is_none(), "another secret");
        assert!(ours.asked(&message, NOW.plus_ms(120_001)).is_none(), "too old");
        let forged =
            Message { body: message.body.to_vec().iter().map(|b| b ^ 1).collect(), ..message.clone() };
        assert!(ours.asked(&forged, NOW).is_none(), "other content");
        let bare = Message { headers: nats::Headers::default(), ..message };
        assert!(ours.asked(&bare, NOW).is_none(), "no MAC at all");
        assert!(matches!(ours.ask("c", log(), NOW, wait).await, Err(Silence::Unheard)));
    }
}
