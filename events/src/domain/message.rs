//! Messages: what was sent, taken, given up and denied. No entity folds them; projections and restarts read them.
//!
//! `message_sent` and denials lie in `outbox/<agent>/<incarnation>` of the sender, `messages_acked` and
//! `message_dead_lettered` in `inbox/<agent>/<incarnation>` of the receiver.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::body::Stored;
use crate::id::{AgentId, CommandId, CrewId, Incarnation, Position, SandboxId};

crate::domain_events! {
    /// What happens to messages, and what an agent was denied.
    pub enum Event {
        "message_sent" v 1 => Sent,
        "messages_acked" v 1 => Acked,
        "message_dead_lettered" v 1 => DeadLettered,
        "message_denied" v 1 => Denied,
        "delegate_denied" v 1 => DelegateDenied,
        "frame_refused" v 1 => FrameRefused,
    }
}

/// A message: `ms_` and 32 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// The message that this command sends.
    pub fn of(command: CommandId) -> Self {
        Self(format!("ms_{}", command.0.simple()).into())
    }
    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for MessageId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An agent in one of its lives, as the platform knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The agent.
    pub agent: AgentId,
    /// Its member.
    pub member: Arc<str>,
    /// Its ordinal among the member's replicas.
    pub replica: u32,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// JSON that is kept in the event, or where it is large, as an artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The JSON itself.
    Inline(Value),
    /// Where its text is kept.
    Stored(Stored),
}

/// A message is accepted: it will be delivered, or given up and recorded so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// The message.
    pub message: MessageId,
    /// The crew in which it moves.
    pub crew: CrewId,
    /// Who sent it: stamped by the platform.
    pub from: Party,
    /// The address as it was given.
    pub to: String,
    /// The agents that get it, where the address names them.
    pub recipients: Vec<AgentId>,
    /// The member of which one agent gets it: whoever is ready and has the least to do. Its acknowledgement says who.
    pub waits_for: Option<Arc<str>>,
    /// How many tasks and messages lie above it.
    pub depth: u32,
    /// Its parts.
    pub body: Body,
    /// The conversation that it belongs to.
    pub context: Option<String>,
    /// The task that it is about.
    pub task: Option<String>,
    /// The tasks that the sender had in hand, where it names none: whose personal data it may hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_hand: Vec<String>,
    /// The message that it answers.
    pub reply_to: Option<String>,
}

/// A receiver is done with messages: at most one such event per receiver in 100 ms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acked {
    /// The crew.
    pub crew: CrewId,
    /// The receiver.
    pub by: Party,
    /// The messages that its handler took.
    pub taken: Vec<MessageId>,
    /// The messages that its handler does not handle.
    pub unhandled: Vec<MessageId>,
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenUp {
    /// It was delivered as often as is allowed and never taken.
    Deliveries,
    /// Its receiver left the crew.
    ReceiverGone,
    /// The crew is gone.
    CrewGone,
    /// Its body cannot be read any more.
    BodyLost,
    /// When it was to be delivered, no channel led from its sender to its receiver.
    NoChannel,
}

/// A message was given up for a receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLettered {
    /// The crew.
    pub crew: CrewId,
    /// The message.
    pub message: MessageId,
    /// Who was to get it.
    pub recipient: Recipient,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Why.
    pub reason: GivenUp,
}

/// Why something was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// No channel leads there.
    NoChannel,
    /// The crew has no such member or agent.
    UnknownMember,
    /// The chain is deeper than the channel allows.
    Depth,
    /// It reaches, or waits for, more agents at once than the channel allows.
    FanOut,
    /// It comes faster than the channel allows.
    Rate,
    /// The crew's budget is used up.
    Budget,
}

/// A message was denied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Denied {
    /// The crew.
    pub crew: CrewId,
    /// Who wanted to send.
    pub from: Party,
    /// The address as it was given; of several that are counted together their member, or `unknown` where the crew has
    /// none of them.
    pub to: String,
    /// Why.
    pub reason: Denial,
    /// The rule that is missing or was met, for a person.
    pub rule: String,
    /// How often the like happened since the last such event, this time included.
    pub count: u64,
}

/// A delegation was denied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DelegateDenied {
    /// The crew.
    pub crew: CrewId,
    /// Who wanted to delegate.
    pub from: Party,
    /// The task in whose name.
    pub task: String,
    /// The address as it was given; of several that are counted together their member, or `unknown` where the crew has
    /// none of them.
    pub to: String,
    /// Why.
    pub reason: Denial,
    /// The rule that is missing or was met, for a person.
    pub rule: String,
    /// How often the like happened since the last such event, this time included.
    pub count: u64,
}

/// A frame that named its own sender, tenant, crew, position or time was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameRefused {
    /// The crew.
    pub crew: CrewId,
    /// Whose link it came by.
    pub from: Party,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The field that no frame may have.
    pub field: String,
    /// How often the like happened since the last such event, this time included.
    pub count: u64,
}

/// Who is to get a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipient {
    /// This agent, in whichever life.
    Agent(AgentId),
    /// Whichever agent of the member is ready first.
    Member(Arc<str>),
}

/// A message that is not settled yet for one of its recipients.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// The message.
    pub sent: Arc<Sent>,
    /// Where it lies in the log.
    pub position: Position,
    /// Who is to get it.
    pub recipient: Recipient,
}

/// The messages that are not settled yet: what must be delivered after a restart. Folded from the events in order.
#[derive(Clone, Debug, Default)]
pub struct Undelivered {
    pending: BTreeMap<(MessageId, Recipient), Pending>,
}

impl Undelivered {
    /// The next event of the log.
    pub fn apply(&mut self, position: Position, event: &Event) {
        match event {
            Event::Sent(sent) => {
                let sent = Arc::new(sent.clone());
                let agents = sent.recipients.iter().cloned().map(Recipient::Agent);
                for recipient in agents.chain(sent.waits_for.clone().map(Recipient::Member)) {
                    let pending = Pending { sent: sent.clone(), position, recipient: recipient.clone() };
                    self.pending.insert((sent.message.clone(), recipient), pending);
                }
            }
            Event::Acked(acked) => {
                for message in acked.taken.iter().chain(&acked.unhandled) {
                    self.settle(message, &Recipient::Agent(acked.by.agent.clone()));
                    self.settle(message, &Recipient::Member(acked.by.member.clone()));
                }
            }
            Event::DeadLettered(dead) => self.settle(&dead.message, &dead.recipient),
            Event::Denied(_) | Event::DelegateDenied(_) | Event::FrameRefused(_) => {}
        }
    }

    fn settle(&mut self, message: &MessageId, recipient: &Recipient) {
        self.pending.remove(&(message.clone(), recipient.clone()));
    }

    /// What is left, in the order in which it was sent.
    pub fn into_pending(self) -> Vec<Pending> {
        let mut pending: Vec<Pending> = self.pending.into_values().collect();
        pending.sort_by_key(|pending| pending.position);
        pending
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::DomainEvent;

    fn party(name: &str) -> Party {
        let agent = AgentId::derive(&[name]);
        Party { agent, member: name.into(), replica: 0, incarnation: Incarnation(1) }
    }

    fn sent(name: &str, recipients: &[&str], waits_for: Option<&str>) -> Sent {
        Sent {
            message: MessageId::of(CommandId::derive(&[name])),
            crew: CrewId::derive(&["crew"]),
            from: party("writer"),
            to: "reader".to_owned(),
            recipients: recipients.iter().map(|agent| AgentId::derive(&[agent])).collect(),
            waits_for: waits_for.map(Into::into),
            depth: 0,
            body: Body::Inline(json!([{"text": "hi"}])),
            context: None,
            task: None,
            in_hand: Vec::new(),
            reply_to: None,
        }
    }

    fn acked(by: &str, taken: &[&Sent]) -> Event {
        Event::Acked(Acked {
            crew: CrewId::derive(&["crew"]),
            by: party(by),
            taken: taken.iter().map(|sent| sent.message.clone()).collect(),
            unhandled: Vec::new(),
        })
    }

    #[test]
    fn what_nobody_took_is_undelivered_in_the_order_sent() {
        let (one, two, three) =
            (sent("1", &["a", "b"], None), sent("2", &[], Some("reader")), sent("3", &["a"], None));
        let mut undelivered = Undelivered::default();
        for (position, sent) in [(3, &three), (1, &one), (2, &two)] {
            undelivered.apply(Position(position), &Event::Sent(sent.clone()));
        }
        undelivered.apply(Position(4), &acked("a", &[&one]));
        let left = undelivered.clone().into_pending();
        let recipients: Vec<_> = left.iter().map(|pending| pending.recipient.clone()).collect();
        assert_eq!(
            recipients,
            [
                Recipient::Agent(AgentId::derive(&["b"])),
                Recipient::Member("reader".into()),
                Recipient::Agent(AgentId::derive(&["a"])),
            ]
        );
        undelivered.apply(Position(5), &acked("reader", &[&two]));
        let recipient = Recipient::Agent(AgentId::derive(&["b"]));
        let dead = DeadLettered {
            crew: one.crew.clone(),
            message: one.message,
            recipient,
            deliveries: 5,
            reason: GivenUp::Deliveries,
        };
        undelivered.apply(Position(6), &dead.into());
        assert_eq!(undelivered.into_pending().len(), 1);
    }

    #[test]
    fn events_are_read_as_they_were_written() {
        let event = Event::Sent(sent("1", &["a"], None));
        let stored = event.encode();
        assert_eq!(Event::decode(&stored.kind, stored.schema, &stored.payload), Ok(event));
        let payload: Value = serde_json::from_str(&stored.payload).unwrap();
        assert_eq!(payload["body"], json!({"inline": [{"text": "hi"}]}));
    }
}
