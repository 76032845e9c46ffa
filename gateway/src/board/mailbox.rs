//! One agent's messages.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use events::domain::message::{GivenUp, MessageId, Recipient, Sent};
use events::{AgentId, Incarnation, Position};
use tokio::time::Instant;

use crate::host::Origin;
use crate::options::Limits;

/// A message that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) sent: Arc<Sent>,
    /// Its event: what becomes of it follows from that.
    pub(super) origin: Option<Origin>,
    /// Who gets it, as its event says.
    pub(super) recipient: Recipient,
    /// How often it was delivered.
    pub(super) deliveries: u32,
    /// It was refused, and comes again then.
    pub(super) not_before: Option<Instant>,
}

/// A message that was delivered.
#[derive(Debug)]
pub(super) struct InHand {
    pub(super) waiting: Waiting,
    pub(super) position: Position,
    /// When it counts as lost; `None` while there is no link.
    pub(super) due: Option<Instant>,
}

/// A message that goes out now.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) sent: Arc<Sent>,
    /// Which delivery of it this is, from 1.
    pub(crate) delivery: u32,
}

/// A message that nobody will get.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) sent: Arc<Sent>,
    /// Its event.
    pub(crate) origin: Option<Origin>,
    pub(crate) recipient: Recipient,
    pub(crate) deliveries: u32,
    pub(crate) reason: GivenUp,
}

impl Waiting {
    /// The message is given up.
    pub(super) fn buried(self, reason: GivenUp) -> Dead {
        let Self { sent, origin, recipient, deliveries, .. } = self;
        Dead { sent, origin, recipient, deliveries, reason }
    }
}

/// What waits for one agent and what it has in hand.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) member: Arc<str>,
    pub(super) replica: u32,
    pub(super) incarnation: Incarnation,
    pub(super) ready: bool,
    pub(super) linked: bool,
    pub(super) queue: BTreeMap<Position, Waiting>,
    pub(super) in_hand: HashMap<MessageId, InHand>,
    /// Places promised to messages that are being appended.
    pub(super) promised: usize,
}

impl Mailbox {
    /// An empty one, of an agent that does not live yet.
    pub(super) fn new(member: Arc<str>, replica: u32) -> Self {
        Self {
            member,
            replica,
            incarnation: Incarnation(0),
            ready: false,
            linked: false,
            queue: BTreeMap::new(),
            in_hand: HashMap::new(),
            promised: 0,
        }
    }

    /// How many messages it has, or will have.
    pub(super) fn load(&self) -> usize {
        self.queue.len() + self.in_hand.len() + self.promised
    }

    /// All its messages, in order.
    pub(super) fn into_waiting(mut self) -> BTreeMap<Position, Waiting> {
        self.queue.extend(self.in_hand.into_values().map(|in_hand| (in_hand.position, in_hand.waiting)));
        self.queue
    }

    /// Takes back what is in hand and `lost`. What was delivered too often is given up.
    pub(super) fn take_back(&mut self, deliveries_max: u32, lost: impl Fn(&InHand) -> bool) -> Vec<Dead> {
        let mut dead = Vec::new();
        for (_, InHand { waiting, position, .. }) in self.in_hand.extract_if(|_, in_hand| lost(in_hand)) {
            if waiting.deliveries >= deliveries_max {
                dead.push(waiting.buried(GivenUp::Deliveries));
            } else {
                self.queue.insert(position, waiting);
            }
        }
        dead
    }

    /// Delivers the first message whose sender is not held back.
    pub(super) fn deliver(&mut self, limits: &Limits, now: Instant) -> Option<Delivery> {
        let mut in_hand: HashMap<&AgentId, usize> = HashMap::new();
        for held in self.in_hand.values() {
            *in_hand.entry(&held.waiting.sent.from.agent).or_default() += 1;
        }
        let full = limits.messages_in_hand_per_sender_max;
        let mut held_back: HashSet<&AgentId> =
            in_hand.into_iter().filter(|(_, held)| *held >= full).map(|(sender, _)| sender).collect();
        let position = self.queue.iter().find_map(|(position, waiting)| {
            let sender = &waiting.sent.from.agent;
            if waiting.not_before.is_some_and(|at| at > now) {
                held_back.insert(sender);
            }
            (!held_back.contains(sender)).then_some(*position)
        })?;
        let mut waiting = self.queue.remove(&position)?;
        waiting.deliveries += 1;
        waiting.not_before = None;
        let delivery = Delivery { sent: waiting.sent.clone(), delivery: waiting.deliveries };
        let due = Some(now + Duration::from_millis(limits.delivery_ack_ms));
        self.in_hand.insert(waiting.sent.message.clone(), InHand { waiting, position, due });
        Some(delivery)
    }

    /// When something is to be done though nothing happens: a delivery counts as lost, or where more is welcome, a
    /// refused one comes again.
    pub(super) fn due(&self, welcome: bool, now: Instant) -> Option<Instant> {
        let lost = self.in_hand.values().filter_map(|in_hand| in_hand.due).min();
        let again = self.queue.values().filter_map(|waiting| waiting.not_before).filter(|at| *at > now);
        let again = if welcome { again.min() } else { None };
        lost.into_iter().chain(again).min()
    }

    /// The delivered message that an answer is about. A late answer finds it waiting to be delivered again.
    pub(super) fn answered(&mut self, message: &MessageId) -> Option<(Position, Waiting)> {
        if let Some(InHand { position, waiting, .. }) = self.in_hand.remove(message) {
            return Some((position, waiting));
        }
        let delivered = |waiting: &Waiting| waiting.deliveries > 0 && waiting.sent.message == *message;
        let position = *self.queue.iter().find(|(_, waiting)| delivered(waiting))?.0;
        self.queue.remove_entry(&position)
    }
}
