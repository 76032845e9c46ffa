//! Crews: teams assembled from a manifest, each the supervisor of its agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::killed::Killed;
use crate::domain::{Context, Decider};
use crate::id::{AgentId, EntityKind, Incarnation, Tenant};
use crate::store::Reservation;
use crate::supervision::{Budget, Exit, Policy};

mod allowance;
mod decide;
mod event;
mod rejection;
#[cfg(test)]
mod tests;

pub use allowance::{Allowance, BudgetExhausted, BudgetRaised, OnBreach, Resource};
pub use event::{
    Assembled, AssemblyFailed, AssemblyStarted, Condemned, Disbanded, Disbanding, Draining, Event, LetGo,
    Paused, RestartCompleted, RestartScheduled, RestartsExhausted, Resumed, Scaled, Seat, SetAside, Woke,
};
pub use rejection::Rejection;

/// Where a crew stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not all members have been ready yet.
    #[default]
    Assembling,
    /// It takes tasks.
    Running,
    /// It takes tasks but gives none out.
    Paused,
    /// It takes no tasks and finishes those in hand.
    Draining,
    /// Its agents are being stopped.
    Disbanding,
    /// It is gone.
    Disbanded,
    /// It never came up; all is released.
    Failed,
}

impl Status {
    /// Its name in events and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assembling => "assembling",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Disbanding => "disbanding",
            Self::Disbanded => "disbanded",
            Self::Failed => "failed",
        }
    }

    /// Whether the crew is over, or on its way there: its tasks are called off.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Disbanding | Self::Disbanded | Self::Failed)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A restart that was scheduled and is not completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Incarnations above this one complete it.
    pub after: Incarnation,
    /// When the agent failed, in milliseconds since the Unix epoch.
    pub failed_ms: i64,
    /// When its next incarnation may start.
    pub due_ms: i64,
}

/// One seat and what the crew knows of its agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The seat.
    pub seat: Seat,
    /// The newest incarnation that the crew has heard of.
    pub incarnation: Incarnation,
    /// Its restart, if one is under way.
    pub pending: Option<Pending>,
    /// Since when that incarnation is ready, in milliseconds since the Unix epoch; 0 if the crew was never told.
    pub up_since_ms: i64,
    /// Why the crew no longer counts on it, if so.
    pub given_up: Option<GivenUp>,
    /// By whom it was killed, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<Killed>,
}

/// Why a crew no longer counts on an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenUp {
    /// It failed too often and was set aside.
    Quarantined,
    /// The member was scaled down, its kind of restart does not bring it back, or it was killed.
    Removed,
}

/// A crew as its events left it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What was asked for; `None` before it was.
    pub started: Option<AssemblyStarted>,
    /// Where it stands.
    pub status: Status,
    /// Its agents in start order.
    pub seats: Vec<Held>,
    /// Its restart budget (SV-2).
    pub budget: Budget<AgentId>,
    /// Why it ended.
    pub reason: String,
    /// By whom it was killed, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<Killed>,
    /// When its drain is over at the latest, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub drain_until_ms: Option<i64>,
    /// When it was assembled, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub assembled_ms: Option<i64>,
    /// What it may use up by now.
    #[serde(default)]
    pub allowance: Allowance,
    /// What is used up, and how much of it was when that was noticed.
    #[serde(default)]
    pub exhausted: BTreeMap<Resource, u64>,
}

/// How an agent's incarnation ended.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentEnd {
    /// The agent.
    pub agent: AgentId,
    /// The incarnation.
    pub incarnation: Incarnation,
    /// How it ended.
    pub exit: Exit,
    /// What was seen, for a person.
    pub detail: String,
}

/// What may be asked of a crew.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "commands are few at a time")]
pub enum Command {
    /// Be brought up.
    Assemble(AssemblyStarted),
    /// Every agent is ready.
    Assembled,
    /// The members did not all come up.
    AssemblyFailed {
        /// Why.
        reason: String,
    },
    /// An agent's incarnation is ready.
    AgentReady {
        /// The agent.
        agent: AgentId,
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// An agent's incarnation ended.
    AgentDown(AgentEnd),
    /// An agent was quarantined, not by this crew.
    AgentQuarantined {
        /// The agent.
        agent: AgentId,
        /// The incarnation in which it was.
        incarnation: Incarnation,
    },
    /// Start the agent's next incarnation, whatever its state.
    Restart {
        /// The agent.
        agent: AgentId,
        /// Its newest incarnation.
        incarnation: Incarnation,
    },
    /// Change a member's number of replicas.
    Scale {
        /// The member.
        member: String,
        /// Seats for the replicas from 0 to the wanted number; those that exist are kept.
        seats: Vec<Seat>,
    },
    /// Give out no tasks.
    Pause,
    /// Give out tasks again, and use more than was allowed.
    Resume {
        /// What it may use from now on.
        raised: BudgetRaised,
    },
    /// Something of its budget may be used up.
    Spend {
        /// What.
        what: Resource,
        /// How much of it is used.
        used: u64,
    },
    /// Take no more tasks.
    Drain {
        /// What is left in hand after so many milliseconds is called off.
        grace_ms: Option<u64>,
    },
    /// End.
    Disband {
        /// Why.
        reason: String,
    },
    /// End at once, without regard to what its agents are doing.
    Kill(Killed),
    /// End this agent at once, and never count on it again.
    KillAgent {
        /// The agent.
        agent: AgentId,
        /// By whom, and why.
        killed: Killed,
    },
    /// Nothing of it is left outside.
    Disbanded,
}

/// What must be true outside for a crew.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This agent was requested.
    Request(Seat),
    /// The assembly is given up when this moment has passed.
    AssembleBy {
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// The crew is disbanded when this moment has passed.
    ExpireAt {
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// Its time is used up when this moment has passed.
    SpendTime {
        /// How long after its assembly that is, in milliseconds.
        used_ms: u64,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// The agent is at this incarnation or a later one, but not before the moment.
    Recover {
        /// The agent.
        agent: AgentId,
        /// The incarnation to start.
        incarnation: Incarnation,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// The agent is set aside.
    Quarantine {
        /// The agent.
        agent: AgentId,
        /// Why.
        reason: String,
    },
    /// The agent drains and ends: the member has too many.
    Release {
        /// The agent.
        agent: AgentId,
    },
    /// The agent is ended at once.
    Kill {
        /// The agent.
        agent: AgentId,
        /// By whom, and why.
        killed: Killed,
    },
    /// The crew disbands once its tasks are done.
    DisbandWhenIdle {
        /// Or when this moment has passed, in milliseconds since the Unix epoch.
        until_ms: Option<i64>,
    },
    /// Its tasks are cancelled and its agents ended; then it is disbanded.
    Dissolve {
        /// The agents.
        agents: Vec<AgentId>,
        /// Why.
        reason: String,
        /// By whom it was killed: then its agents go first.
        killed: Option<Killed>,
    },
}

/// The entity `crew`.
pub struct Crew;

/// The names of the tenant's living crews.
pub fn name_reservation(tenant: &Tenant, name: &str) -> Reservation {
    Reservation { namespace: "crew_name".into(), key: format!("{tenant}/{name}").into() }
}

impl State {
    /// The seat of `agent`.
    pub fn seat(&self, agent: &AgentId) -> Option<&Held> {
        self.seats.iter().find(|held| held.seat.agent == *agent)
    }

    fn seat_mut(&mut self, agent: &AgentId) -> Option<&mut Held> {
        self.seats.iter_mut().find(|held| held.seat.agent == *agent)
    }

    fn give_up(&mut self, agent: &AgentId, why: GivenUp) {
        if let Some(held) = self.seat_mut(agent) {
            held.given_up = Some(why);
            held.pending = None;
        }
    }

    /// The budget as it counts at `now_ms` for a failure of `agent`: a long life is forgiven its beginning.
    fn budget_at(&self, policy: &Policy, agent: &AgentId, now_ms: i64) -> Budget<AgentId> {
        let mut budget = self.budget.clone();
        let stable =
            |held: &Held| held.pending.is_none() && policy.is_stable(ms(held.up_since_ms), ms(now_ms));
        if self.seat(agent).is_some_and(stable) {
            budget.stable(agent);
        }
        budget
    }

    /// Its time, while it is limited and not used up.
    fn time_to_spend(&self) -> Option<Effect> {
        let (used_ms, from_ms) = (self.allowance.wall_ms?, self.assembled_ms?);
        let at_ms = from_ms.saturating_add(i64::try_from(used_ms).unwrap_or(i64::MAX));
        (!self.exhausted.contains_key(&Resource::WallTime)).then_some(Effect::SpendTime { used_ms, at_ms })
    }

    /// Agents that the crew still counts on, in start order.
    pub fn kept(&self) -> impl Iterator<Item = &Held> {
        self.seats.iter().filter(|held| held.given_up.is_none())
    }
}

fn hold(seat: &Seat) -> Held {
    Held {
        seat: seat.clone(),
        incarnation: Incarnation(1),
        pending: None,
        up_since_ms: 0,
        given_up: None,
        killed: None,
    }
}

fn schedule(state: &mut State, scheduled: &RestartScheduled) {
    let Some(policy) = state.started.as_ref().map(|started| started.policy.clone()) else { return };
    if scheduled.exit.is_charged() {
        state.budget = state.budget_at(&policy, &scheduled.failed, scheduled.at_ms);
        state.budget.restarted(&policy, &scheduled.failed, ms(scheduled.at_ms));
    }
    for agent in &scheduled.agents {
        if let Some(held) = state.seat_mut(agent) {
            if *agent == scheduled.failed {
                held.incarnation = scheduled.incarnation;
            }
            // By itself a crew restarts only whom it counts on; a person may have one back that it gave up.
            held.given_up = None;
            held.pending = Some(Pending {
                after: held.incarnation,
                failed_ms: scheduled.at_ms,
                due_ms: scheduled.at_ms.saturating_add(i64::try_from(scheduled.delay_ms).unwrap_or(i64::MAX)),
            });
        }
    }
}

fn ms(at: i64) -> u64 {
    u64::try_from(at).unwrap_or(0)
}

impl Decider for Crew {
    const KIND: EntityKind = EntityKind::Crew;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = Effect;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
        decide::decide(state, command, context)
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::AssemblyStarted(started) => {
                state.seats = started.seats.iter().map(hold).collect();
                state.allowance = started.allowance;
                state.started = Some(started.clone());
            }
            Event::Assembled(assembled) => {
                state.status = Status::Running;
                state.assembled_ms = assembled.at_ms;
            }
            Event::Resumed(_) => state.status = Status::Running,
            Event::AssemblyFailed(failed) => {
                state.status = Status::Failed;
                state.reason.clone_from(&failed.reason);
            }
            Event::Scaled(scaled) => {
                state.seats.extend(scaled.added.iter().map(hold));
                for agent in &scaled.removed {
                    state.give_up(agent, GivenUp::Removed);
                }
            }
            Event::Paused(_) => state.status = Status::Paused,
            Event::Draining(draining) => {
                state.status = Status::Draining;
                state.drain_until_ms = draining.until_ms;
            }
            Event::Disbanding(disbanding) => {
                state.status = Status::Disbanding;
                state.reason.clone_from(&disbanding.reason);
            }
            Event::Disbanded(_) => state.status = Status::Disbanded,
            Event::Killed(killed) => {
                state.status = Status::Disbanding;
                state.reason = killed.to_string();
                state.killed = Some(killed.clone());
            }
            Event::RestartScheduled(scheduled) => schedule(&mut state, scheduled),
            Event::RestartCompleted(completed) => {
                if let Some(held) = state.seat_mut(&completed.agent) {
                    held.incarnation = completed.incarnation;
                    held.up_since_ms = completed.at_ms;
                    held.pending = None;
                }
            }
            Event::BudgetExhausted(exhausted) => {
                state.exhausted.insert(exhausted.what, exhausted.used);
            }
            Event::BudgetRaised(raised) => {
                state.allowance = state.allowance.raised(raised);
                let allowance = state.allowance;
                state
                    .exhausted
                    .retain(|what, used| allowance.limit(*what).is_some_and(|limit| limit <= *used));
            }
            Event::Woke(woke) => {
                if let Some(held) = state.seat_mut(&woke.agent) {
                    held.incarnation = woke.incarnation;
                    held.up_since_ms = woke.at_ms;
                }
            }
            Event::LetGo(gone) => state.give_up(&gone.agent, GivenUp::Removed),
            Event::SetAside(aside) => state.give_up(&aside.agent, GivenUp::Quarantined),
            Event::Condemned(condemned) => {
                state.give_up(&condemned.agent, GivenUp::Removed);
                if let Some(held) = state.seat_mut(&condemned.agent) {
                    held.killed = Some(condemned.killed.clone());
                }
            }
            Event::RestartsExhausted(exhausted) => {
                state.give_up(&exhausted.failed, GivenUp::Quarantined);
            }
        }
        state
    }

    fn obligations(state: &State) -> Vec<Effect> {
        let Some(started) = &state.started else { return Vec::new() };
        let mut effects = Vec::new();
        match state.status {
            Status::Disbanded => return effects,
            Status::Disbanding | Status::Failed => {
                let agents = state.seats.iter().map(|held| held.seat.agent.clone()).collect();
                return vec![Effect::Dissolve {
                    agents,
                    reason: state.reason.clone(),
                    killed: state.killed.clone(),
                }];
            }
            Status::Assembling => effects.push(Effect::AssembleBy { at_ms: started.ready_by_ms }),
            Status::Draining => effects.push(Effect::DisbandWhenIdle { until_ms: state.drain_until_ms }),
            Status::Running | Status::Paused => {}
        }
        effects.extend(started.expires_at_ms.map(|at_ms| Effect::ExpireAt { at_ms }));
        effects.extend(state.time_to_spend());
        for held in &state.seats {
            let agent = held.seat.agent.clone();
            if let Some(killed) = held.killed.clone() {
                effects.push(Effect::Kill { agent, killed });
                continue;
            }
            effects.push(match (held.given_up, &held.pending) {
                (Some(GivenUp::Quarantined), _) => {
                    Effect::Quarantine { agent, reason: "its restart budget is spent".to_owned() }
                }
                (Some(GivenUp::Removed), _) => Effect::Release { agent },
                (None, Some(pending)) => {
                    Effect::Recover { agent, incarnation: pending.after.next(), at_ms: pending.due_ms }
                }
                (None, None) => Effect::Request(held.seat.clone()),
            });
        }
        effects
    }

    fn reserves(_: &State, events: &[Event]) -> Vec<Reservation> {
        let started = events.iter().find_map(|event| match event {
            Event::AssemblyStarted(started) => Some(name_reservation(&started.tenant, &started.name)),
            _ => None,
        });
        started.into_iter().collect()
    }

    fn releases(state: &State, events: &[Event]) -> Vec<Reservation> {
        let ended =
            events.iter().any(|event| matches!(event, Event::AssemblyFailed(_) | Event::Disbanded(_)));
        match &state.started {
            Some(started) if ended && state.status != Status::Failed => {
                vec![name_reservation(&started.tenant, &started.name)]
            }
            _ => Vec::new(),
        }
    }

    fn is_final(state: &State) -> bool {
        state.status == Status::Disbanded
    }
}
