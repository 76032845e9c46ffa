//! One crew as the gateway knows it: its policy and how much of each channel's rate is used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::domain::message::Denial;
use events::{AgentId, CrewId};
use link::Address;
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::channel::{self, Admitted, Attempt, Refusal};
use crate::host::Peer;
use crate::policy::{CrewPolicy, Kind};

/// A crew.
pub(crate) struct Crew {
    pub(crate) id: CrewId,
    state: Mutex<State>,
}

struct State {
    policy: Arc<CrewPolicy>,
    /// By sending agent, receiving member and kind.
    rates: HashMap<(AgentId, Arc<str>, Kind), Bucket>,
}

impl Crew {
    pub(crate) fn new(id: CrewId, policy: CrewPolicy) -> Self {
        Self { id, state: Mutex::new(State { policy: Arc::new(policy), rates: HashMap::new() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its policy now.
    pub(crate) fn policy(&self) -> Arc<CrewPolicy> {
        self.state().policy.clone()
    }

    /// A new policy. Rates begin anew.
    pub(crate) fn set_policy(&self, policy: CrewPolicy) {
        let mut state = self.state();
        state.policy = Arc::new(policy);
        state.rates.clear();
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
        if attempt.depth > channel.max_depth {
            let rule = format!(
                "the channel {from} -> {to} allows a depth of {}, not {}",
                channel.max_depth, attempt.depth
            );
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
