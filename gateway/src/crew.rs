//! One crew as the gateway knows it: its policy, how much of each channel's rate is used, and its messages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::domain::message::{Denial, GivenUp, Pending, Recipient};
use events::{AgentId, CrewId};
use link::Address;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::board::{Board, Dead};
use crate::bucket::Bucket;
use crate::channel::{self, Admitted, Attempt, Refusal};
use crate::host::{Origin, Peer};
use crate::options::Limits;
use crate::policy::{CrewPolicy, Kind};

/// A crew.
pub(crate) struct Crew {
    pub(crate) id: CrewId,
    state: Mutex<State>,
}

/// What changes.
pub(crate) struct State {
    policy: Arc<CrewPolicy>,
    /// Messages to put back once the members are known.
    restoring: Option<Vec<(Pending, Option<Origin>)>>,
    /// By sending agent, receiving member and kind.
    rates: HashMap<(AgentId, Arc<str>, Kind), Bucket>,
    lives: HashMap<AgentId, Life>,
    /// Messages that were sent, those on their way to the log among them.
    sent: u64,
    pub(crate) board: Board,
}

/// The latest life of an agent.
struct Life {
    peer: Arc<Peer>,
    /// Wakes what delivers to it.
    wake: Arc<Notify>,
    linked: bool,
}

impl Crew {
    /// A crew whose policy is not known yet: nothing may cross.
    pub(crate) fn new(id: CrewId, limits: &Limits) -> Self {
        let state = State {
            policy: Arc::default(),
            restoring: Some(Vec::new()),
            rates: HashMap::new(),
            lives: HashMap::new(),
            sent: 0,
            board: Board::new(limits.clone()),
        };
        Self { id, state: Mutex::new(state) }
    }

    /// Its state, for a moment.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its policy now.
    pub(crate) fn policy(&self) -> Arc<CrewPolicy> {
        self.state().policy()
    }

    /// A new policy. Rates begin anew; agents that are gone get no more messages.
    pub(crate) fn set_policy(&self, policy: CrewPolicy) -> Vec<Dead> {
        let mut state = self.state();
        state.policy = Arc::new(policy);
        state.rates.clear();
        let policy = state.policy.clone();
        let mut dead = state.board.set_members(&policy);
        state.lives.retain(|agent, _| policy.member_of(agent).is_some());
        let State { lives, board, .. } = &mut *state;
        for (agent, life) in lives {
            dead.extend(board.incarnate(agent, life.peer.incarnation));
            if life.linked {
                board.link_up(agent, Instant::now());
            }
        }
        for (pending, origin) in state.restoring.take().unwrap_or_default() {
            dead.extend(state.put_back(pending, origin));
        }
        // Messages of agents that are gone went to others.
        state.lives.values().for_each(|life| life.wake.notify_one());
        dead
    }

    /// A message that was not settled before the platform was restarted, and its event.
    pub(crate) fn restore(&self, pending: Pending, origin: Option<Origin>) -> Option<Dead> {
        let mut state = self.state();
        match &mut state.restoring {
            Some(restoring) => {
                restoring.push((pending, origin));
                None
            }
            None => state.put_back(pending, origin),
        }
    }

    /// A sandbox is an agent's from now on.
    pub(crate) fn attach(&self, peer: &Arc<Peer>, wake: &Arc<Notify>) -> Vec<Dead> {
        let mut state = self.state();
        let newest = state.life(&peer.agent).is_none_or(|known| known.incarnation < peer.incarnation);
        if newest {
            let life = Life { peer: peer.clone(), wake: wake.clone(), linked: false };
            state.lives.insert(peer.agent.clone(), life);
        }
        state.board.incarnate(&peer.agent, peer.incarnation)
    }

    /// The link of an agent's life is up, or down.
    pub(crate) fn set_linked(&self, peer: &Peer, linked: bool) {
        let mut state = self.state();
        let Some(life) = state.lives.get_mut(&peer.agent) else { return };
        if life.peer.incarnation != peer.incarnation {
            return;
        }
        life.linked = linked;
        if linked {
            state.board.link_up(&peer.agent, Instant::now());
        } else {
            state.board.link_down(&peer.agent);
        }
    }

    /// An agent takes work, or does not.
    pub(crate) fn set_ready(&self, agent: &AgentId, ready: bool) {
        let mut state = self.state();
        if state.board.set_ready(agent, ready) {
            state.wake(agent);
        }
    }

    /// The crew is gone.
    pub(crate) fn clear(&self) -> Vec<Dead> {
        let mut state = self.state();
        state.lives.clear();
        state.board.clear(GivenUp::CrewGone)
    }

    /// Whether something may cross, fan-out aside. What may, is counted against the channel's rate.
    pub(crate) fn admit(
        &self,
        peer: &Peer,
        attempt: &Attempt<'_>,
        now: Instant,
    ) -> Result<Admitted, Refusal> {
        let mut state = self.state();
        let policy = state.policy.clone();
        let (from, kind) = (peer.member.as_str(), attempt.kind);
        let (member, agent) = channel::target(&policy, attempt.to)?;
        let to = &member.name;
        if kind == Kind::Task && matches!(attempt.to, Address::All(_)) {
            return Err(Refusal::new(Denial::FanOut, format!("a task goes to one agent, not to `{to}[*]`")));
        }
        let channel = policy.channel(from, to, kind).ok_or_else(|| {
            Refusal::new(Denial::NoChannel, format!("no channel {from} -> {to} for {kind}s"))
        })?;
        if let Some(what) = &policy.exhausted {
            return Err(Refusal::new(Denial::Budget, what.to_string()));
        }
        if attempt.depth > channel.max_depth {
            let (max, depth) = (channel.max_depth, attempt.depth);
            let rule = format!("the channel {from} -> {to} allows a depth of {max}, not {depth}");
            return Err(Refusal::new(Denial::Depth, rule));
        }
        let rate = channel.rate_per_second;
        let bucket = state
            .rates
            .entry((peer.agent.clone(), to.clone(), kind))
            .or_insert_with(|| Bucket::new(rate, rate, now));
        if let Err(wait) = bucket.take(now) {
            let rule = format!("the channel {from} -> {to} allows one agent {rate} {kind}s a second");
            let mut refusal = Refusal::new(Denial::Rate, rule);
            refusal.retry_after_ms =
                Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1));
            return Err(refusal);
        }
        Ok(Admitted { member: to.clone(), agent, fan_out: channel.fan_out })
    }
}

impl State {
    /// The crew's policy now.
    pub(crate) fn policy(&self) -> Arc<CrewPolicy> {
        self.policy.clone()
    }

    /// At least so many messages were sent before: the log says so.
    pub(crate) fn know_sent(&mut self, sent: u64) {
        self.sent = self.sent.max(sent);
    }

    /// Messages that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Counts a message against the crew's budget, if that has room for it.
    pub(crate) fn count(&mut self) -> Result<(), Refusal> {
        if let Some(max) = self.policy.messages_max.filter(|max| self.sent >= *max) {
            let rule = format!("the crew may send {max} messages in its life, and has");
            return Err(Refusal::new(Denial::Budget, rule));
        }
        self.sent += 1;
        Ok(())
    }

    /// A message for which there were places is not sent after all.
    pub(crate) fn take_back(&mut self, recipients: &[Recipient]) {
        self.board.abandon(recipients);
        self.uncount();
    }

    /// A message that was counted is not sent after all.
    pub(crate) fn uncount(&mut self) {
        self.sent = self.sent.saturating_sub(1);
    }

    /// The latest life of an agent.
    pub(crate) fn life(&self, agent: &AgentId) -> Option<&Arc<Peer>> {
        self.lives.get(agent).map(|life| &life.peer)
    }

    /// Something may be ready to be delivered to the agent.
    pub(crate) fn wake(&self, agent: &AgentId) {
        if let Some(life) = self.lives.get(agent) {
            life.wake.notify_one();
        }
    }

    fn put_back(&mut self, pending: Pending, origin: Option<Origin>) -> Option<Dead> {
        match self.board.restore(pending, origin) {
            Ok(agent) => {
                if let Some(agent) = agent {
                    self.wake(&agent);
                }
                None
            }
            Err(dead) => Some(dead),
        }
    }
}
