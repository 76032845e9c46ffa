//! Pools: standby sandboxes, ready to be claimed, each used once.
//!
//! The pool owns what stands by; the agent owns its claim. So a claim is an event of the agent's stream, with a
//! reservation of the sandbox's id, and the pool hears of it afterwards: what it then says of the sandbox is derived.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{Problem, ProblemKind};
use crate::domain::{Context, Decider};
use crate::id::{AgentId, Digest, EntityKind, Incarnation, SandboxId, Tenant};
use crate::supervision::Backoff;

mod decide;
mod event;
#[cfg(test)]
mod tests;

pub use event::{
    Applied, Claimed, Degraded, Destroyed, Dirty, Drained, Event, Failed, Prestart, Ready, Recovered,
    Released, Requested, Resized, Size,
};

/// After so many sandboxes in a row that did not come up, the pool is degraded.
pub const DEGRADED_AFTER: u32 = 3;

/// How long a pool waits after sandboxes that did not come up.
pub const BACKOFF: Backoff = Backoff { initial_ms: 500, max_ms: 60_000, jitter: 0.2 };

/// A sandbox that ends by itself before it has stood by for so long did not come up: whatever ends it will end the next
/// one too. Long enough for a handler that is started ahead to fail on what it needs, in milliseconds.
pub const STEADY_AFTER_MS: u64 = 10_000;

/// Where a sandbox of a pool stands. Nothing leads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is made and comes up.
    Warming,
    /// It waits to be claimed.
    Ready,
    /// It serves an agent's incarnation.
    Claimed,
    /// It was used, or may have been, and is to be destroyed.
    Spent,
}

impl Phase {
    /// Its name in tables and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warming => "warming",
            Self::Ready => "ready",
            Self::Claimed => "claimed",
            Self::Spent => "spent",
        }
    }
}

/// A sandbox of a pool that is not known to be gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standby {
    /// How it was asked for.
    pub requested: Requested,
    /// Where it stands.
    pub phase: Phase,
    /// Since when it waits, or waited, to be claimed, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at_ms: Option<u64>,
    /// Who has claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<(AgentId, Incarnation)>,
    /// Why it is to be destroyed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Standby {
    /// Whether it waits to be claimed, and has for long enough to be trusted to go on.
    fn is_steady(&self, now_ms: u64) -> bool {
        let since = self.ready_at_ms.filter(|_| self.phase == Phase::Ready);
        since.is_some_and(|since| now_ms.saturating_sub(since) >= STEADY_AFTER_MS)
    }
}

/// Where a pool stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is kept filled.
    #[default]
    Active,
    /// Sandboxes do not come up, or do not last.
    Degraded,
    /// It is kept empty.
    Drained,
}

impl Status {
    /// Its name in tables and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many sandboxes a pool has ever had: `created` less `destroyed` are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Asked for.
    pub created: u64,
    /// Claimed.
    pub claimed: u64,
    /// Did not come up, or ended soon after.
    pub failed: u64,
    /// Known to be gone.
    pub destroyed: u64,
}

/// A pool as its events left it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Its newest version; `None` before the first.
    pub applied: Option<Applied>,
    /// Where it stands.
    pub status: Status,
    /// How many stand by.
    pub size: Size,
    /// Its sandboxes that are not known to be gone.
    pub standbys: BTreeMap<SandboxId, Standby>,
    /// How many sandboxes in a row did not come up, or ended soon after.
    pub failures: u32,
    /// Until then none is made.
    pub retry_at_ms: u64,
    /// What was seen of the last that did not come up, or why it is drained.
    pub reason: String,
    /// All that it ever had.
    pub totals: Totals,
}

impl State {
    /// How many of its sandboxes are in `phase`.
    pub fn count(&self, phase: Phase) -> u32 {
        let found = self.standbys.values().filter(|standby| standby.phase == phase).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    }

    /// Whether a sandbox that was made after the last failure stands by for long enough to say that they come up again.
    pub fn has_recovered(&self, now_ms: u64) -> bool {
        self.standbys.values().any(|standby| standby.is_steady(now_ms) && self.ends_failures(standby))
    }

    /// Whether a sandbox that was made after the last failure has still to show that it lasts.
    pub fn is_trying(&self) -> bool {
        let is_tried =
            |standby: &Standby| standby.phase <= Phase::Ready && standby.requested.at_ms >= self.retry_at_ms;
        self.failures > 0 && self.standbys.values().any(is_tried)
    }

    /// Whether its success is one after failures. What stood by before them says nothing of what is made now.
    fn ends_failures(&self, standby: &Standby) -> bool {
        self.failures > 0
            && self.status != Status::Drained
            && standby.phase == Phase::Ready
            && standby.requested.at_ms >= self.retry_at_ms
    }

    fn set(&mut self, sandbox: &SandboxId, phase: Phase, reason: &str) {
        if let Some(standby) = self.standbys.get_mut(sandbox) {
            standby.phase = phase;
            reason.clone_into(&mut standby.reason);
        }
    }
}

/// What may be asked of a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Make this the newest version, unless it already is, and be filled.
    Apply {
        /// The tenant.
        tenant: Tenant,
        /// The name.
        name: String,
        /// The digest of what a sandbox is made by.
        template: Digest,
        /// How many stand by.
        size: Size,
        /// The profile whose handler is started ahead.
        prestart: Option<Prestart>,
        /// The checked specification.
        spec: Value,
        /// What its image stands for.
        image: Option<String>,
    },
    /// Have another number stand by.
    Resize {
        /// How many.
        size: Size,
    },
    /// Have nothing stand by.
    Drain {
        /// Why.
        reason: String,
    },
    /// Have these sandboxes stand by.
    Request {
        /// Each with what it is made by.
        standbys: Vec<Requested>,
    },
    /// The sandbox waits to be claimed.
    Ready {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// An agent has claimed the sandbox.
    Claimed(Claimed),
    /// The sandbox did not come up, or has ended by itself since it did.
    Fail {
        /// The sandbox.
        sandbox: SandboxId,
        /// What was seen.
        detail: String,
    },
    /// A sandbox has stood by for long enough: they come up again.
    Recover,
    /// The sandboxes may not be claimed any more.
    Spoil {
        /// The sandboxes.
        sandboxes: Vec<SandboxId>,
        /// Why.
        reason: String,
    },
    /// The incarnation that the sandbox served is over.
    Release {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The sandbox is gone.
    Gone {
        /// The sandbox.
        sandbox: SandboxId,
    },
}

/// What must be true outside for a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// So many stand by as are called for.
    Fill,
    /// This sandbox exists, is linked and waits.
    Stand {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// It is released once this incarnation is over.
    Follow(Claimed),
    /// This sandbox is gone, with everything in it, and its provider has been asked.
    Destroy {
        /// The sandbox.
        sandbox: SandboxId,
    },
}

/// Why a pool refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It was never applied.
    #[error("the pool does not exist")]
    Unknown,
    /// The numbers do not go together.
    #[error("a pool of {min} to {max} with target {target:?}: expected min <= target <= max and max >= 1")]
    Size {
        /// The fewest.
        min: u32,
        /// The most.
        max: u32,
        /// How many.
        target: Option<u32>,
    },
    /// The sandbox is none of its own.
    #[error("sandbox `{sandbox}` is not one of this pool's")]
    NotOurs {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The sandbox cannot become that any more.
    #[error("sandbox `{sandbox}` cannot be {verb} any more")]
    Illegal {
        /// The sandbox.
        sandbox: SandboxId,
        /// What was asked.
        verb: &'static str,
    },
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection {
            Rejection::Unknown | Rejection::NotOurs { .. } => ProblemKind::NotFound,
            Rejection::Size { .. } => ProblemKind::Invalid,
            Rejection::Illegal { .. } => ProblemKind::Conflict,
        };
        Self::new(kind, rejection.to_string())
    }
}

/// The entity `pool`.
pub struct Pool;

impl Decider for Pool {
    const KIND: EntityKind = EntityKind::Pool;
    const STATE_SCHEMA: u16 = 2;
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
            Event::Applied(applied) => {
                state.size = applied.size;
                state.applied = Some(applied.clone());
                restart(&mut state);
            }
            Event::Resized(resized) => {
                state.size = resized.size;
                restart(&mut state);
            }
            Event::Drained(drained) => {
                state.status = Status::Drained;
                state.reason.clone_from(&drained.reason);
            }
            Event::Degraded(degraded) => {
                state.status = Status::Degraded;
                state.reason.clone_from(&degraded.detail);
            }
            Event::Recovered(_) => restart(&mut state),
            Event::Requested(requested) => {
                let standby = Standby {
                    requested: requested.clone(),
                    phase: Phase::Warming,
                    ready_at_ms: None,
                    claimed: None,
                    reason: String::new(),
                };
                state.standbys.insert(requested.sandbox.clone(), standby);
                state.totals.created += 1;
            }
            Event::Ready(ready) => {
                state.set(&ready.sandbox, Phase::Ready, "");
                if let Some(standby) = state.standbys.get_mut(&ready.sandbox) {
                    standby.ready_at_ms = Some(standby.requested.at_ms.saturating_add(ready.took_ms));
                }
            }
            Event::Claimed(claimed) => {
                state.set(&claimed.sandbox, Phase::Claimed, "");
                if let Some(standby) = state.standbys.get_mut(&claimed.sandbox) {
                    standby.claimed = Some((claimed.agent.clone(), claimed.incarnation));
                }
                state.totals.claimed += 1;
            }
            Event::Failed(failed) => {
                state.set(&failed.sandbox, Phase::Spent, &failed.detail);
                (state.failures, state.retry_at_ms) = (failed.failures, failed.retry_at_ms);
                state.totals.failed += 1;
            }
            Event::Dirty(dirty) => state.set(&dirty.sandbox, Phase::Spent, &dirty.reason),
            Event::Released(released) => state.set(&released.sandbox, Phase::Spent, "released"),
            Event::Destroyed(destroyed) => {
                if state.standbys.remove(&destroyed.sandbox).is_some() {
                    state.totals.destroyed += 1;
                }
            }
        }
        state
    }

    fn obligations(state: &State) -> Vec<Effect> {
        let fill = state.applied.iter().map(|_| Effect::Fill);
        let each = state.standbys.iter().filter_map(|(sandbox, standby)| match standby.phase {
            Phase::Warming | Phase::Ready => Some(Effect::Stand { sandbox: sandbox.clone() }),
            Phase::Claimed => standby.claimed.clone().map(|(agent, incarnation)| {
                Effect::Follow(Claimed { sandbox: sandbox.clone(), agent, incarnation })
            }),
            Phase::Spent => Some(Effect::Destroy { sandbox: sandbox.clone() }),
        });
        fill.chain(each).collect()
    }
}

/// A pool that was told anew what to be, or whose sandboxes come up again, forgets that they did not.
fn restart(state: &mut State) {
    state.status = Status::Active;
    (state.failures, state.retry_at_ms) = (0, 0);
    state.reason.clear();
}
