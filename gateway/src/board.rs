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

use self::mailbox::{InHand, Mailbox, Waiting};
use crate::host::Origin;
use crate::options::Limits;
use crate::policy::{CrewPolicy, Member};

mod mailbox;

pub(crate) use self::mailbox::{Dead, Delivery};

/// What may go out to an agent.
#[derive(Debug)]
pub(crate) enum Next {
    /// This.
    Deliver(Delivery),
    /// Nothing before then, unless something happens.
    Wait(Option<Instant>),
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

/// Acknowledgements of one agent that are not recorded yet.
#[derive(Debug, Default)]
struct Settled {
    taken: Vec<MessageId>,
    unhandled: Vec<MessageId>,
    /// The event of the latest of them.
    latest: Option<Origin>,
    /// How many more are being recorded.
    recording: usize,
}

impl Settled {
    fn len(&self) -> usize {
        self.taken.len() + self.unhandled.len() + self.recording
    }
}

/// Acknowledgements to be recorded.
#[derive(Debug, Default)]
pub(crate) struct Unrecorded {
    pub(crate) taken: Vec<MessageId>,
    pub(crate) unhandled: Vec<MessageId>,
    /// The event of the message that was acknowledged last, where it is known.
    pub(crate) latest: Option<Origin>,
}

/// The messages of one crew.
#[derive(Debug)]
pub(crate) struct Board {
    limits: Limits,
    agents: HashMap<AgentId, Mailbox>,
    members: HashMap<Arc<str>, BTreeMap<Position, Waiting>>,
    /// Acknowledgements that wait to be recorded; they outlive their agents.
    settled: HashMap<AgentId, Settled>,
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
        Self {
            limits,
            agents: HashMap::new(),
            members: HashMap::new(),
            settled: HashMap::new(),
            cleared: None,
        }
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
                self.agents.entry(agent.clone()).or_insert_with(|| Mailbox::new(name.clone(), *replica));
            }
        }
        let members = std::mem::take(&mut self.members);
        for (member, waiting) in members {
            if policy.member(&member).is_some() {
                self.members.insert(member, waiting);
            } else {
                dead.extend(waiting.into_values().map(|waiting| waiting.buried(GivenUp::ReceiverGone)));
            }
        }
        dead
    }

    /// Takes an agent out of the crew.
    fn remove(&mut self, agent: &AgentId) -> Vec<Dead> {
        let Some(mailbox) = self.agents.remove(agent) else { return Vec::new() };
        let back =
            mailbox.into_waiting().into_iter().map(|(position, waiting)| self.place(position, waiting));
        back.filter_map(Result::err).collect()
    }

    /// Nobody gets anything any more.
    pub(crate) fn clear(&mut self, reason: GivenUp) -> Vec<Dead> {
        self.cleared = Some(reason);
        let mut dead = Vec::new();
        for (_, mailbox) in self.agents.drain() {
            dead.extend(mailbox.into_waiting().into_values().map(|waiting| waiting.buried(reason)));
        }
        let members = self.members.drain().flat_map(|(_, waiting)| waiting.into_values());
        dead.extend(members.map(|waiting| waiting.buried(reason)));
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
        origin: &Origin,
        recipients: &[Recipient],
    ) -> (Vec<AgentId>, Vec<Dead>) {
        self.abandon(recipients);
        let (mut busy, mut dead) = (Vec::new(), Vec::new());
        for recipient in recipients {
            let (sent, origin, recipient) = (sent.clone(), Some(origin.clone()), recipient.clone());
            let waiting = Waiting { sent, origin, recipient, deliveries: 0, not_before: None };
            match self.place(position, waiting) {
                Ok(agent) => busy.extend(agent),
                Err(lost) => dead.push(lost),
            }
        }
        (busy, dead)
    }

    /// Puts back what was not settled before the platform was restarted. It may have been delivered before.
    pub(crate) fn restore(
        &mut self,
        pending: Pending,
        origin: Option<Origin>,
    ) -> Result<Option<AgentId>, Dead> {
        let Pending { sent, position, recipient } = pending;
        self.place(position, Waiting { sent, origin, recipient, deliveries: 1, not_before: None })
    }

    /// Gives a message to its agent, or to the idlest of its member, or keeps it for the first that is ready.
    fn place(&mut self, position: Position, waiting: Waiting) -> Result<Option<AgentId>, Dead> {
        if let Some(reason) = self.cleared {
            return Err(waiting.buried(reason));
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
                None => Err(waiting.buried(GivenUp::ReceiverGone)),
            },
            (None, Recipient::Member(member)) => {
                self.members.entry(member.clone()).or_default().insert(position, waiting);
                Ok(None)
            }
            (None, Recipient::Agent(_)) => Err(waiting.buried(GivenUp::ReceiverGone)),
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
        mailbox.take_back(deliveries_max, |_| true)
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
        let silent = |in_hand: &InHand| in_hand.due.is_some_and(|due| due <= now);
        let dead = mailbox.take_back(self.limits.deliveries_max, silent);
        if !mailbox.linked {
            return (Next::Wait(None), dead);
        }
        let unrecorded = self.settled.get(agent).map_or(0, Settled::len);
        let welcome = welcome && unrecorded < self.limits.acks_unrecorded_max;
        let delivery = if welcome { mailbox.deliver(&self.limits, now) } else { None };
        let next = match delivery {
            Some(delivery) => Next::Deliver(delivery),
            None => Next::Wait(mailbox.due(welcome, now)),
        };
        (next, dead)
    }

    /// A delivery is not made after all.
    pub(crate) fn give_up(&mut self, agent: &AgentId, message: &MessageId, reason: GivenUp) -> Option<Dead> {
        let in_hand = self.agents.get_mut(agent)?.in_hand.remove(message)?;
        Some(in_hand.waiting.buried(reason))
    }

    /// An agent in this life answered a delivery.
    pub(crate) fn acked(&mut self, by: &Party, message: &MessageId, ack: Ack, now: Instant) -> Acked {
        let limits = &self.limits;
        let Some(mailbox) = self.agents.get_mut(&by.agent) else { return Acked::Unknown };
        if mailbox.incarnation != by.incarnation {
            return Acked::Unknown;
        }
        let Some((position, waiting)) = mailbox.answered(message) else { return Acked::Unknown };
        if ack == Ack::Failed {
            if waiting.deliveries >= limits.deliveries_max {
                return Acked::Dead(waiting.buried(GivenUp::Deliveries));
            }
            let doubled = waiting.deliveries.saturating_sub(1).min(10);
            let pause = Duration::from_millis(limits.redelivery_ms.saturating_mul(1 << doubled));
            mailbox.queue.insert(position, Waiting { not_before: Some(now + pause), ..waiting });
            return Acked::Again;
        }
        let settled = self.settled.entry(by.agent.clone()).or_default();
        let first = settled.taken.is_empty() && settled.unhandled.is_empty();
        match ack {
            Ack::Unhandled => settled.unhandled.push(message.clone()),
            Ack::Taken | Ack::Failed => settled.taken.push(message.clone()),
        }
        settled.latest = waiting.origin;
        Acked::Settled { first }
    }

    /// The acknowledgements of an agent that wait to be recorded. To be followed by [`Board::recorded`].
    pub(crate) fn take_settled(&mut self, agent: &AgentId) -> Unrecorded {
        let Some(settled) = self.settled.get_mut(agent) else { return Unrecorded::default() };
        settled.recording += settled.taken.len() + settled.unhandled.len();
        Unrecorded {
            taken: std::mem::take(&mut settled.taken),
            unhandled: std::mem::take(&mut settled.unhandled),
            latest: settled.latest.take(),
        }
    }

    /// So many acknowledgements of an agent are recorded.
    pub(crate) fn recorded(&mut self, agent: &AgentId, count: usize) {
        let Some(settled) = self.settled.get_mut(agent) else { return };
        settled.recording = settled.recording.saturating_sub(count);
        if settled.len() == 0 {
            self.settled.remove(agent);
        }
    }

    /// Whether a message waits for the agent, or it has one in hand.
    pub(crate) fn has_messages(&self, agent: &AgentId) -> bool {
        self.agents.get(agent).is_some_and(|mailbox| mailbox.load() > 0)
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

#[cfg(test)]
mod tests;
