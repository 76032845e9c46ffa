//! The messages of one crew between their event and their acknowledgement: who gets which, in what order, how often.
//!
//! No IO and no clock: the time comes in, what must be done goes out.
//!
//! ```text
//!   member  m  [5 7]            no agent of m is ready: they wait for the first that is
//!   agent  m.0 [9 12 13] --credit--> in hand {3, 8} --ack--> settled
//!                  ^                      |
//!                  '---- refused, silent, or the agent died: again, in the place where it was
//! ```
//!
//! Messages are kept by their position in the log. So those of one sender are delivered in the order in which they
//! were sent; one that must be delivered again holds back the later ones of its sender.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use events::domain::message::{GivenUp, MessageId, Party, Pending, Recipient, Sent};
use events::{AgentId, Incarnation, Position};
use link::Address;
use tokio::time::Instant;

use crate::options::Limits;
use crate::policy::{CrewPolicy, Member};

/// A message that waits.
#[derive(Clone, Debug)]
struct Waiting {
    sent: Arc<Sent>,
    /// Who gets it, as its event says.
    recipient: Recipient,
    /// How often it was delivered.
    deliveries: u32,
    /// It was refused, and comes again then.
    not_before: Option<Instant>,
}

/// A message that was delivered.
#[derive(Debug)]
struct InHand {
    waiting: Waiting,
    position: Position,
    /// When it counts as lost; `None` while there is no link.
    due: Option<Instant>,
}

/// A message that goes out now.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) sent: Arc<Sent>,
    /// Which delivery of it this is, from 1.
    pub(crate) delivery: u32,
}

/// What may go out to an agent.
#[derive(Debug)]
pub(crate) enum Next {
    /// This.
    Deliver(Delivery),
    /// Nothing before then, unless something happens.
    Wait(Option<Instant>),
}

/// A message that nobody will get.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) sent: Arc<Sent>,
    pub(crate) recipient: Recipient,
    pub(crate) deliveries: u32,
    pub(crate) reason: GivenUp,
}

/// How a receiver answered a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// It took it.
    Taken,
    /// It handles no such thing.
    Unhandled,
    /// It could not.
    Failed,
}

/// What an answer led to.
#[derive(Debug)]
pub(crate) enum Acked {
    /// The message is settled. `first`: it is the first that waits to be recorded.
    Settled { first: bool },
    /// It comes again.
    Again,
    /// It came too often.
    Dead(Dead),
    /// No such delivery.
    Unknown,
}

/// Acknowledgements that wait to be recorded.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) taken: Vec<MessageId>,
    pub(crate) unhandled: Vec<MessageId>,
}

impl Settled {
    pub(crate) fn len(&self) -> usize {
        self.taken.len() + self.unhandled.len()
    }
}

/// One agent's messages.
#[derive(Debug)]
struct Mailbox {
    member: Arc<str>,
    replica: u32,
    incarnation: Incarnation,
    ready: bool,
    linked: bool,
    queue: BTreeMap<Position, Waiting>,
    in_hand: HashMap<MessageId, InHand>,
    /// Places promised to messages that are being appended.
    promised: usize,
    settled: Settled,
    /// Those of `settled` that are being recorded.
    recording: usize,
}

impl Mailbox {
    fn load(&self) -> usize {
        self.queue.len() + self.in_hand.len() + self.promised
    }
}

/// The messages of one crew.
#[derive(Debug)]
pub(crate) struct Board {
    limits: Limits,
    agents: HashMap<AgentId, Mailbox>,
    members: HashMap<Arc<str>, BTreeMap<Position, Waiting>>,
    /// Nobody gets anything any more, for this reason.
    cleared: Option<GivenUp>,
}

/// No place is free for the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    pub(crate) recipient: Recipient,
}

impl Board {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, agents: HashMap::new(), members: HashMap::new(), cleared: None }
    }

    /// The crew's members and agents, as they are now. Messages of agents that are gone go to their member, if they
    /// were sent to it, and are dead otherwise.
    pub(crate) fn set_members(&mut self, policy: &CrewPolicy) -> Vec<Dead> {
        let mut dead = Vec::new();
        let known: HashSet<&AgentId> =
            policy.members.iter().flat_map(|member| member.agents.iter().map(|(_, agent)| agent)).collect();
        let gone: Vec<AgentId> = self.agents.keys().filter(|agent| !known.contains(agent)).cloned().collect();
        for agent in gone {
            dead.extend(self.remove(&agent));
        }
        for Member { name, agents } in &policy.members {
            for (replica, agent) in agents {
                self.agents.entry(agent.clone()).or_insert_with(|| Mailbox {
                    member: name.clone(),
                    replica: *replica,
                    incarnation: Incarnation(0),
                    ready: false,
                    linked: false,
                    queue: BTreeMap::new(),
                    in_hand: HashMap::new(),
                    promised: 0,
                    settled: Settled::default(),
                    recording: 0,
                });
            }
        }
        let members = std::mem::take(&mut self.members);
        for (member, waiting) in members {
            if policy.member(&member).is_some() {
                self.members.insert(member, waiting);
            } else {
                dead.extend(waiting.into_values().map(|waiting| buried(waiting, GivenUp::ReceiverGone)));
            }
        }
        dead
    }

    /// Takes an agent out of the crew.
    fn remove(&mut self, agent: &AgentId) -> Vec<Dead> {
        let Some(mut mailbox) = self.agents.remove(agent) else { return Vec::new() };
        for (_, InHand { waiting, position, .. }) in mailbox.in_hand.drain() {
            mailbox.queue.insert(position, waiting);
        }
        let back = mailbox.queue.into_iter().map(|(position, waiting)| self.place(position, waiting));
        back.filter_map(Result::err).collect()
    }

    /// Nobody gets anything any more.
    pub(crate) fn clear(&mut self, reason: GivenUp) -> Vec<Dead> {
        self.cleared = Some(reason);
        let mut dead = Vec::new();
        for (_, mailbox) in self.agents.drain() {
            let in_hand = mailbox.in_hand.into_values().map(|in_hand| in_hand.waiting);
            let all = mailbox.queue.into_values().chain(in_hand);
            dead.extend(all.map(|waiting| buried(waiting, reason)));
        }
        let members = self.members.drain().flat_map(|(_, waiting)| waiting.into_values());
        dead.extend(members.map(|waiting| buried(waiting, reason)));
        dead
    }

    /// Who gets a message for this address, with a place kept for it: one agent of the member, the replica or agent
    /// named, or all replicas but the sender. A place is given back by [`Board::post`] or [`Board::abandon`].
    pub(crate) fn promise(
        &mut self,
        member: &Arc<str>,
        agent: Option<&AgentId>,
        to: &Address,
        sender: &AgentId,
    ) -> Result<Vec<Recipient>, NoRoom> {
        let recipients = match (agent, to) {
            (Some(agent), _) => vec![Recipient::Agent(agent.clone())],
            (None, Address::All(_)) => {
                let all =
                    self.agents.iter().filter(|(id, mailbox)| mailbox.member == *member && *id != sender);
                let mut all: Vec<_> = all.map(|(id, mailbox)| (mailbox.replica, id)).collect();
                all.sort();
                all.into_iter().map(|(_, id)| Recipient::Agent(id.clone())).collect()
            }
            (None, _) => vec![Recipient::Member(member.clone())],
        };
        if let Some(full) = recipients.iter().find(|recipient| !self.has_room(recipient)) {
            return Err(NoRoom { recipient: full.clone() });
        }
        for mailbox in recipients.iter().filter_map(agent_of) {
            self.agents.entry(mailbox.clone()).and_modify(|mailbox| mailbox.promised += 1);
        }
        Ok(recipients)
    }

    /// The ready agent of the member with the least to do; on ties that with the lowest ordinal.
    fn idlest(&self, member: &Arc<str>) -> Option<AgentId> {
        let ready = self.agents.iter().filter(|(_, mailbox)| mailbox.member == *member && mailbox.ready);
        ready.min_by_key(|(_, mailbox)| (mailbox.load(), mailbox.replica)).map(|(agent, _)| agent.clone())
    }

    fn has_room(&self, recipient: &Recipient) -> bool {
        let agent = match recipient {
            Recipient::Agent(agent) => Some(agent.clone()),
            Recipient::Member(member) => self.idlest(member),
        };
        let load = match (agent, recipient) {
            (Some(agent), _) => self.agents.get(&agent).map_or(0, Mailbox::load),
            (None, Recipient::Member(member)) => self.members.get(member).map_or(0, BTreeMap::len),
            (None, Recipient::Agent(_)) => 0,
        };
        load < self.limits.messages_pending_max
    }

    /// The message will not come: its places are free again.
    pub(crate) fn abandon(&mut self, recipients: &[Recipient]) {
        for agent in recipients.iter().filter_map(agent_of) {
            if let Some(mailbox) = self.agents.get_mut(agent) {
                mailbox.promised = mailbox.promised.saturating_sub(1);
            }
        }
    }

    /// The message is durable (law CH-2): it may be delivered. Gives the agents that have something to do now, and
    /// what is dead because its receiver left meanwhile.
    pub(crate) fn post(
        &mut self,
        sent: &Arc<Sent>,
        position: Position,
        recipients: &[Recipient],
    ) -> (Vec<AgentId>, Vec<Dead>) {
        self.abandon(recipients);
        let (mut busy, mut dead) = (Vec::new(), Vec::new());
        for recipient in recipients {
            let (sent, recipient) = (sent.clone(), recipient.clone());
            match self.place(position, Waiting { sent, recipient, deliveries: 0, not_before: None }) {
                Ok(agent) => busy.extend(agent),
                Err(lost) => dead.push(lost),
            }
        }
        (busy, dead)
    }

    /// Puts back what was not settled before the platform was restarted. It may have been delivered before.
    pub(crate) fn restore(&mut self, pending: Pending) -> Result<Option<AgentId>, Dead> {
        let Pending { sent, position, recipient } = pending;
        self.place(position, Waiting { sent, recipient, deliveries: 1, not_before: None })
    }

    /// Gives a message to its agent, or to the idlest of its member, or keeps it for the first that is ready.
    fn place(&mut self, position: Position, waiting: Waiting) -> Result<Option<AgentId>, Dead> {
        if let Some(reason) = self.cleared {
            return Err(buried(waiting, reason));
        }
        let agent = match &waiting.recipient {
            Recipient::Agent(agent) => Some(agent.clone()),
            Recipient::Member(member) => self.idlest(member),
        };
        match (agent, &waiting.recipient) {
            (Some(agent), _) => match self.agents.get_mut(&agent) {
                Some(mailbox) => {
                    mailbox.queue.insert(position, waiting);
                    Ok(Some(agent))
                }
                None => Err(buried(waiting, GivenUp::ReceiverGone)),
            },
            (None, Recipient::Member(member)) => {
                self.members.entry(member.clone()).or_default().insert(position, waiting);
                Ok(None)
            }
            (None, Recipient::Agent(_)) => Err(buried(waiting, GivenUp::ReceiverGone)),
        }
    }

    /// An agent lives this life from now on: what an earlier one had in hand comes again.
    pub(crate) fn incarnate(&mut self, agent: &AgentId, incarnation: Incarnation) -> Vec<Dead> {
        let deliveries_max = self.limits.deliveries_max;
        let Some(mailbox) = self.agents.get_mut(agent) else { return Vec::new() };
        if mailbox.incarnation >= incarnation {
            return Vec::new();
        }
        mailbox.incarnation = incarnation;
        (mailbox.ready, mailbox.linked) = (false, false);
        let mut dead = Vec::new();
        for (_, InHand { waiting, position, .. }) in mailbox.in_hand.drain() {
            if waiting.deliveries >= deliveries_max {
                dead.push(buried(waiting, GivenUp::Deliveries));
            } else {
                mailbox.queue.insert(position, waiting);
            }
        }
        dead
    }

    /// An agent takes work, or does not. One that does gets what waits for its member. Gives whether there is
    /// something to do for it now.
    pub(crate) fn set_ready(&mut self, agent: &AgentId, ready: bool) -> bool {
        let max = self.limits.messages_pending_max;
        let Some(mailbox) = self.agents.get_mut(agent) else { return false };
        mailbox.ready = ready;
        if !ready {
            return false;
        }
        let Some(waiting) = self.members.get_mut(&mailbox.member) else { return false };
        while mailbox.load() < max {
            let Some((position, message)) = waiting.pop_first() else { break };
            mailbox.queue.insert(position, message);
        }
        !mailbox.queue.is_empty()
    }

    /// An agent's link is up: what it has in hand may still be answered.
    pub(crate) fn link_up(&mut self, agent: &AgentId, now: Instant) {
        let due = now + Duration::from_millis(self.limits.delivery_ack_ms);
        if let Some(mailbox) = self.agents.get_mut(agent).filter(|mailbox| !mailbox.linked) {
            mailbox.linked = true;
            mailbox.in_hand.values_mut().for_each(|in_hand| in_hand.due = Some(due));
        }
    }

    /// An agent's link is down: what it has in hand is given time.
    pub(crate) fn link_down(&mut self, agent: &AgentId) {
        if let Some(mailbox) = self.agents.get_mut(agent) {
            mailbox.linked = false;
            mailbox.in_hand.values_mut().for_each(|in_hand| in_hand.due = None);
        }
    }

    /// What may go out to the agent now; `welcome` says whether its runner takes any. Also what was delivered too often.
    pub(crate) fn next(&mut self, agent: &AgentId, welcome: bool, now: Instant) -> (Next, Vec<Dead>) {
        let Some(mailbox) = self.agents.get_mut(agent) else { return (Next::Wait(None), Vec::new()) };
        let dead = expire(mailbox, &self.limits, now);
        if !mailbox.linked {
            return (Next::Wait(None), dead);
        }
        let acks_wait = mailbox.settled.len() + mailbox.recording >= self.limits.acks_unrecorded_max;
        let delivery = if welcome && !acks_wait { deliver(mailbox, &self.limits, now) } else { None };
        if let Some(delivery) = delivery {
            return (Next::Deliver(delivery), dead);
        }
        let due = mailbox.in_hand.values().filter_map(|in_hand| in_hand.due);
        let again = mailbox.queue.values().filter_map(|waiting| waiting.not_before).filter(|_| welcome);
        (Next::Wait(due.chain(again.filter(|at| *at > now)).min()), dead)
    }

    /// A delivery could not be made after all: the body cannot be read.
    pub(crate) fn body_lost(&mut self, agent: &AgentId, message: &MessageId) -> Option<Dead> {
        let in_hand = self.agents.get_mut(agent)?.in_hand.remove(message)?;
        Some(buried(in_hand.waiting, GivenUp::BodyLost))
    }

    /// An agent in this life answered a delivery.
    pub(crate) fn acked(&mut self, by: &Party, message: &MessageId, ack: Ack, now: Instant) -> Acked {
        let limits = &self.limits;
        let Some(mailbox) = self.agents.get_mut(&by.agent) else { return Acked::Unknown };
        if mailbox.incarnation != by.incarnation {
            return Acked::Unknown;
        }
        let Some(InHand { waiting, position, .. }) = taken_back(mailbox, message) else {
            return Acked::Unknown;
        };
        let settled = match ack {
            Ack::Taken => &mut mailbox.settled.taken,
            Ack::Unhandled => &mut mailbox.settled.unhandled,
            Ack::Failed if waiting.deliveries >= limits.deliveries_max => {
                return Acked::Dead(buried(waiting, GivenUp::Deliveries));
            }
            Ack::Failed => {
                let doubled = waiting.deliveries.saturating_sub(1).min(10);
                let pause = Duration::from_millis(limits.redelivery_ms.saturating_mul(1 << doubled));
                mailbox.queue.insert(position, Waiting { not_before: Some(now + pause), ..waiting });
                return Acked::Again;
            }
        };
        settled.push(message.clone());
        Acked::Settled { first: mailbox.settled.len() == 1 }
    }

    /// The acknowledgements of an agent that wait to be recorded, and its life; to be followed by
    /// [`Board::recorded`].
    pub(crate) fn take_settled(&mut self, agent: &AgentId) -> Settled {
        let Some(mailbox) = self.agents.get_mut(agent) else { return Settled::default() };
        mailbox.recording += mailbox.settled.len();
        std::mem::take(&mut mailbox.settled)
    }

    /// So many acknowledgements of an agent are recorded.
    pub(crate) fn recorded(&mut self, agent: &AgentId, count: usize) {
        if let Some(mailbox) = self.agents.get_mut(agent) {
            mailbox.recording = mailbox.recording.saturating_sub(count);
        }
    }

    /// The depth of the deepest message that the agent has in hand.
    pub(crate) fn depth(&self, agent: &AgentId) -> Option<u32> {
        self.agents.get(agent)?.in_hand.values().map(|in_hand| in_hand.waiting.sent.depth).max()
    }
}

fn agent_of(recipient: &Recipient) -> Option<&AgentId> {
    match recipient {
        Recipient::Agent(agent) => Some(agent),
        Recipient::Member(_) => None,
    }
}

fn buried(waiting: Waiting, reason: GivenUp) -> Dead {
    let Waiting { sent, recipient, deliveries, .. } = waiting;
    Dead { sent, recipient, deliveries, reason }
}

/// Takes back what was silent for too long.
fn expire(mailbox: &mut Mailbox, limits: &Limits, now: Instant) -> Vec<Dead> {
    let silent = |in_hand: &InHand| in_hand.due.is_some_and(|due| due <= now);
    if !mailbox.in_hand.values().any(silent) {
        return Vec::new();
    }
    let mut dead = Vec::new();
    for (_, InHand { waiting, position, .. }) in mailbox.in_hand.extract_if(|_, in_hand| silent(in_hand)) {
        if waiting.deliveries >= limits.deliveries_max {
            dead.push(buried(waiting, GivenUp::Deliveries));
        } else {
            mailbox.queue.insert(position, waiting);
        }
    }
    dead
}

/// The first message whose sender is not held back.
fn deliver(mailbox: &mut Mailbox, limits: &Limits, now: Instant) -> Option<Delivery> {
    let mut in_hand: HashMap<&AgentId, usize> = HashMap::new();
    for held in mailbox.in_hand.values() {
        *in_hand.entry(&held.waiting.sent.from.agent).or_default() += 1;
    }
    let mut held_back: HashSet<&AgentId> = HashSet::new();
    let position = mailbox.queue.iter().find_map(|(position, waiting)| {
        let sender = &waiting.sent.from.agent;
        let full = in_hand.get(sender).is_some_and(|held| *held >= limits.messages_in_hand_per_sender_max);
        let later = waiting.not_before.is_some_and(|at| at > now);
        if held_back.contains(sender) || full {
            return None;
        }
        if later {
            held_back.insert(sender);
            return None;
        }
        Some(*position)
    })?;
    let mut waiting = mailbox.queue.remove(&position)?;
    waiting.deliveries += 1;
    waiting.not_before = None;
    let delivery = Delivery { sent: waiting.sent.clone(), delivery: waiting.deliveries };
    let due = Some(now + Duration::from_millis(limits.delivery_ack_ms));
    mailbox.in_hand.insert(waiting.sent.message.clone(), InHand { waiting, position, due });
    Some(delivery)
}

/// The delivered message that an answer is about. A late answer finds it waiting to be delivered again.
fn taken_back(mailbox: &mut Mailbox, message: &MessageId) -> Option<InHand> {
    if let Some(in_hand) = mailbox.in_hand.remove(message) {
        return Some(in_hand);
    }
    let delivered = |waiting: &Waiting| waiting.deliveries > 0 && waiting.sent.message == *message;
    let position = *mailbox.queue.iter().find(|(_, waiting)| delivered(waiting))?.0;
    let waiting = mailbox.queue.remove(&position)?;
    Some(InHand { waiting, position, due: None })
}
