//! Agents: one running instance of a crew's member, the same across incarnations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{Problem, ProblemKind};
use crate::domain::killed::Killed;
use crate::domain::{Context, Decider};
use crate::id::{Digest, EntityKind, Incarnation, PoolId, SandboxId};
use crate::store::Reservation;
use crate::supervision::Exit;

mod event;
pub mod lifecycle;
#[cfg(test)]
mod tests;

pub use event::{
    Container, Draining, Event, Failed, Hibernating, LogKept, LogsErased, Quarantined, Ready, Recovering,
    Requested, SandboxClaimed, SecretResolved, Terminated, Unhealthy, Warming,
};
pub use lifecycle::Status;

/// An agent as its events left it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What was asked for; `None` before it was.
    pub requested: Option<Requested>,
    /// Where it stands.
    pub status: Status,
    /// Its newest incarnation.
    pub incarnation: Incarnation,
    /// The sandbox of that incarnation.
    pub sandbox: Option<SandboxId>,
    /// The container that this sandbox is, where it is one and has come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The node on which that sandbox is, where it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pool from which that sandbox comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
    /// The sandbox of the incarnation before.
    pub retired: Option<SandboxId>,
    /// How the last incarnation ended, and what was seen.
    pub down: Option<Unhealthy>,
    /// Why it drains, was set aside, or ended.
    pub reason: String,
    /// By whom it was killed, if it was: then it never comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<Killed>,
    /// Tasks that it takes at the same time.
    pub concurrency: u32,
    /// When it is woken if it hibernates, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub wake_at_ms: Option<i64>,
    /// What the last incarnations that ended wrote.
    #[serde(default)]
    pub logs: BTreeMap<Incarnation, Kept>,
    /// Of this incarnation and those before, nothing that they wrote is kept.
    #[serde(default)]
    pub logs_erased_to: Incarnation,
}

/// Incarnations whose logs are known; of older ones they are forgotten.
pub const LOGS_MAX: usize = 16;

/// The end of a log, as an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The artifact.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// The sandbox into which an incarnation is to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its id: derived from agent and incarnation, or that of a standby.
    pub sandbox: SandboxId,
    /// What kind it is.
    pub kind: String,
    /// What it isolates.
    pub isolation: String,
    /// The node on which it is.
    pub node: String,
    /// The pool that it comes from, where it stood by.
    pub pool: Option<PoolId>,
}

/// What may be asked of an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Be, with this sandbox for the first incarnation.
    Request {
        /// What is wanted.
        requested: Requested,
        /// The first sandbox.
        claim: Claim,
    },
    /// The handler of this incarnation is up.
    Ready {
        /// The incarnation.
        incarnation: Incarnation,
        /// Tasks at the same time.
        concurrency: u32,
        /// The container in which it is, where it is in one.
        container: Option<Container>,
    },
    /// This incarnation is gone or useless.
    Down {
        /// The incarnation.
        incarnation: Incarnation,
        /// How it ended.
        exit: Exit,
        /// What was seen.
        detail: String,
    },
    /// Be parked without a sandbox, if this is its incarnation and it is ready.
    Hibernate {
        /// The incarnation.
        incarnation: Incarnation,
        /// When it is to be woken at the latest, in milliseconds since the Unix epoch.
        wake_at_ms: Option<i64>,
    },
    /// These secrets are about to be given to an incarnation that has not come up yet.
    GiveSecrets {
        /// The incarnation.
        incarnation: Incarnation,
        /// What was read.
        resolved: Vec<SecretResolved>,
    },
    /// The end of what an incarnation wrote is kept.
    KeepLog {
        /// The incarnation.
        incarnation: Incarnation,
        /// Where it is kept.
        kept: Kept,
    },
    /// Keep nothing of what its incarnations have written up to now.
    EraseLogs,
    /// Start this incarnation in place of the one before; of one that hibernates, wake it.
    Recover {
        /// The incarnation to start.
        incarnation: Incarnation,
        /// Its sandbox.
        claim: Claim,
    },
    /// Take no more work.
    Drain {
        /// Why.
        reason: String,
    },
    /// End now.
    Terminate {
        /// Why.
        reason: String,
    },
    /// End now, and never come back.
    Kill(Killed),
    /// Be set aside.
    Quarantine {
        /// Why.
        reason: String,
    },
    /// Be given up.
    Fail {
        /// Why.
        reason: String,
    },
}

/// What must be true outside for an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This sandbox exists and its runner was given this incarnation.
    Run {
        /// The incarnation.
        incarnation: Incarnation,
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The pool knows that its sandbox was claimed.
    ReportClaim {
        /// The pool.
        pool: PoolId,
        /// The incarnation.
        incarnation: Incarnation,
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The crew knows that this incarnation is ready.
    ReportReady {
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// The crew knows that this incarnation ended.
    ReportDown {
        /// The incarnation.
        incarnation: Incarnation,
        /// How it ended.
        exit: Exit,
        /// What was seen.
        detail: String,
    },
    /// The crew knows that it was set aside in this incarnation.
    ReportQuarantined {
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// The handler was told to end, and this sandbox is gone, with everything in it.
    Park {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// It is woken when this moment has passed.
    WakeAt {
        /// The incarnation that comes.
        incarnation: Incarnation,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// This sandbox is gone, with everything in it.
    Destroy {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The runner knows that no more work comes, and ends when it is done.
    Drain {
        /// The sandbox.
        sandbox: SandboxId,
        /// Why.
        reason: String,
    },
}

/// Why an agent refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It was never requested.
    #[error("the agent does not exist")]
    Unknown,
    /// Its lifecycle does not lead there.
    #[error("an agent that is {from} cannot become {to}")]
    Illegal {
        /// Where it stands.
        from: Status,
        /// Where the command would lead.
        to: Status,
    },
    /// The command is about another incarnation than the newest.
    #[error("incarnation {found} is not the newest, {newest}")]
    Stale {
        /// Named by the command.
        found: Incarnation,
        /// The newest.
        newest: Incarnation,
    },
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection {
            Rejection::Unknown => ProblemKind::NotFound,
            Rejection::Illegal { .. } | Rejection::Stale { .. } => ProblemKind::Conflict,
        };
        Self::new(kind, rejection.to_string())
    }
}

/// The entity `agent`.
pub struct Agent;

impl State {
    fn step(&self, to: Status) -> Result<(), Rejection> {
        if lifecycle::allows(self.status, to) {
            Ok(())
        } else {
            Err(Rejection::Illegal { from: self.status, to })
        }
    }

    /// The incarnation that this sandbox served, if it is the newest or the one before; of older ones nobody knows here.
    pub fn served_in(&self, sandbox: &SandboxId) -> Option<Incarnation> {
        match (self.sandbox.as_ref() == Some(sandbox), self.retired.as_ref() == Some(sandbox)) {
            (true, _) => Some(self.incarnation),
            (_, true) => Some(Incarnation(self.incarnation.0.saturating_sub(1))),
            _ => None,
        }
    }

    /// The sandbox that serves or served this incarnation, if it is the newest or the one before.
    pub fn sandbox_of(&self, incarnation: Incarnation) -> Option<&SandboxId> {
        let of = |sandbox: &&SandboxId| self.served_in(sandbox) == Some(incarnation);
        self.sandbox.as_ref().filter(of).or_else(|| self.retired.as_ref().filter(of))
    }

    /// Whether what an incarnation wrote may be kept, and is not yet.
    pub fn may_keep_log(&self, incarnation: Incarnation) -> bool {
        incarnation > self.logs_erased_to && !self.logs.contains_key(&incarnation)
    }

    fn newest(&self, found: Incarnation) -> Result<(), Rejection> {
        if found == self.incarnation {
            Ok(())
        } else {
            Err(Rejection::Stale { found, newest: self.incarnation })
        }
    }
}

fn claimed(incarnation: Incarnation, claim: &Claim) -> Event {
    SandboxClaimed {
        incarnation,
        sandbox: claim.sandbox.clone(),
        sandbox_kind: claim.kind.clone(),
        isolation: claim.isolation.clone(),
        node: Some(claim.node.clone()),
        pool: claim.pool.clone(),
    }
    .into()
}

impl Decider for Agent {
    const KIND: EntityKind = EntityKind::Agent;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = Effect;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, _: &Context) -> Result<Vec<Event>, Rejection> {
        if let Command::Request { requested, claim } = command {
            if state.requested.is_some() {
                return Ok(Vec::new());
            }
            return Ok(vec![requested.clone().into(), claimed(Incarnation(1), claim)]);
        }
        if state.requested.is_none() {
            return Err(Rejection::Unknown);
        }
        match command {
            Command::Request { .. } => unreachable!("answered above"),
            Command::Ready { incarnation, concurrency, container } => {
                ready(state, *incarnation, *concurrency, container.clone())
            }
            Command::Down { incarnation, exit, detail } => down(state, *incarnation, *exit, detail),
            Command::Hibernate { incarnation, wake_at_ms } => hibernate(state, *incarnation, *wake_at_ms),
            Command::GiveSecrets { incarnation, resolved } => {
                state.newest(*incarnation)?;
                Ok(resolved.iter().cloned().map(Event::from).collect())
            }
            Command::KeepLog { incarnation, kept } => Ok(keep_log(state, *incarnation, *kept)),
            Command::EraseLogs => Ok(erase_logs(state)),
            Command::Recover { incarnation, claim } => recover(state, *incarnation, claim),
            Command::Drain { reason } => {
                to(state, Status::Draining, || Draining { reason: reason.clone() }.into())
            }
            Command::Terminate { reason } => {
                to(state, Status::Terminated, || Terminated { reason: reason.clone() }.into())
            }
            Command::Kill(killed) => Ok(kill(state, killed)),
            Command::Quarantine { reason } => {
                to(state, Status::Quarantined, || Quarantined { reason: reason.clone() }.into())
            }
            Command::Fail { reason } => {
                to(state, Status::Failed, || Failed { reason: reason.clone() }.into())
            }
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::Requested(requested) => {
                state.requested = Some(requested.clone());
                state.status = Status::Requested;
            }
            Event::SandboxClaimed(claimed) => {
                state.status = Status::Provisioning;
                state.incarnation = claimed.incarnation;
                state.retired = state.sandbox.replace(claimed.sandbox.clone());
                state.node.clone_from(&claimed.node);
                state.pool.clone_from(&claimed.pool);
                state.container = None;
                state.concurrency = 0;
            }
            Event::Warming(warming) => {
                state.status = Status::Warming;
                state.container.clone_from(&warming.container);
            }
            Event::Ready(ready) => {
                state.status = Status::Ready;
                state.concurrency = ready.concurrency;
            }
            Event::Hibernating(hibernating) => {
                state.status = Status::Hibernating;
                state.wake_at_ms = hibernating.wake_at_ms;
            }
            // Whom it was given to is for auditors: nothing follows from it.
            Event::SecretResolved(_) => {}
            Event::LogKept(kept) => {
                state.logs.insert(kept.incarnation, Kept { digest: kept.digest, bytes: kept.bytes });
                while state.logs.len() > LOGS_MAX {
                    state.logs.pop_first();
                }
            }
            Event::LogsErased(erased) => {
                state.logs.retain(|incarnation, _| *incarnation > erased.to);
                state.logs_erased_to = erased.to;
            }
            Event::Unhealthy(unhealthy) => {
                state.status = Status::Unhealthy;
                state.down = Some(unhealthy.clone());
            }
            Event::Recovering(_) => state.status = Status::Recovering,
            Event::Draining(draining) => end(&mut state, Status::Draining, &draining.reason),
            Event::Quarantined(quarantined) => end(&mut state, Status::Quarantined, &quarantined.reason),
            Event::Failed(failed) => end(&mut state, Status::Failed, &failed.reason),
            Event::Terminated(terminated) => end(&mut state, Status::Terminated, &terminated.reason),
            Event::Killed(killed) => {
                end(&mut state, Status::Terminated, &killed.to_string());
                state.killed = Some(killed.clone());
            }
        }
        state
    }

    fn obligations(state: &State) -> Vec<Effect> {
        let incarnation = state.incarnation;
        let mut effects: Vec<Effect> =
            state.retired.iter().map(|sandbox| Effect::Destroy { sandbox: sandbox.clone() }).collect();
        let Some(sandbox) = state.sandbox.clone() else { return effects };
        if let Some(pool) = state.pool.clone() {
            effects.push(Effect::ReportClaim { pool, incarnation, sandbox: sandbox.clone() });
        }
        match state.status {
            Status::Requested | Status::Recovering | Status::Paused => {}
            Status::Hibernating => {
                effects.push(Effect::Park { sandbox });
                let incarnation = incarnation.next();
                effects.extend(state.wake_at_ms.map(|at_ms| Effect::WakeAt { incarnation, at_ms }));
            }
            Status::Provisioning | Status::Warming => effects.push(Effect::Run { incarnation, sandbox }),
            Status::Ready => {
                effects.extend([Effect::Run { incarnation, sandbox }, Effect::ReportReady { incarnation }]);
            }
            Status::Draining => {
                // After a restart its runner has to find the platform again, or what it has in hand never ends.
                let run = Effect::Run { incarnation, sandbox: sandbox.clone() };
                effects.extend([run, Effect::Drain { sandbox, reason: state.reason.clone() }]);
            }
            Status::Unhealthy => {
                effects.push(Effect::Destroy { sandbox });
                if let Some(Unhealthy { exit, detail, .. }) = state.down.clone() {
                    effects.push(Effect::ReportDown { incarnation, exit, detail });
                }
            }
            Status::Quarantined => {
                effects.extend([Effect::Destroy { sandbox }, Effect::ReportQuarantined { incarnation }]);
            }
            Status::Failed | Status::Terminated => {
                effects.push(Effect::Destroy { sandbox });
            }
        }
        effects
    }

    fn reserves(_: &State, events: &[Event]) -> Vec<Reservation> {
        let used = events.iter().filter_map(|event| match event {
            Event::SandboxClaimed(claimed) => Some(("sandbox", claimed.sandbox.as_str())),
            Event::Warming(warming) => Some(("container", warming.container.as_ref()?.id.as_str())),
            _ => None,
        });
        used.map(|(namespace, key)| Reservation { namespace: namespace.into(), key: key.into() }).collect()
    }

    fn is_final(state: &State) -> bool {
        matches!(state.status, Status::Terminated | Status::Failed)
    }
}

fn end(state: &mut State, status: Status, reason: &str) {
    state.status = status;
    reason.clone_into(&mut state.reason);
}

/// One event that leads to `status`; none if the agent is there already.
fn to(state: &State, status: Status, event: impl FnOnce() -> Event) -> Result<Vec<Event>, Rejection> {
    if state.status == status {
        return Ok(Vec::new());
    }
    state.step(status)?;
    Ok(vec![event()])
}

/// Whoever has ended already has nothing left that could be killed.
fn kill(state: &State, killed: &Killed) -> Vec<Event> {
    match state.status {
        Status::Failed | Status::Terminated => Vec::new(),
        _ => vec![killed.clone().into()],
    }
}

fn ready(
    state: &State,
    incarnation: Incarnation,
    concurrency: u32,
    container: Option<Container>,
) -> Result<Vec<Event>, Rejection> {
    state.newest(incarnation)?;
    if state.status == Status::Ready {
        return Ok(Vec::new());
    }
    state.step(Status::Warming)?;
    Ok(vec![Warming { incarnation, container }.into(), Ready { incarnation, concurrency }.into()])
}

fn down(state: &State, incarnation: Incarnation, exit: Exit, detail: &str) -> Result<Vec<Event>, Rejection> {
    state.newest(incarnation)?;
    match state.status {
        Status::Unhealthy
        | Status::Hibernating
        | Status::Terminated
        | Status::Failed
        | Status::Quarantined => Ok(Vec::new()),
        Status::Draining => Ok(vec![Terminated { reason: state.reason.clone() }.into()]),
        _ => {
            state.step(Status::Unhealthy)?;
            Ok(vec![Unhealthy { incarnation, exit, detail: detail.to_owned() }.into()])
        }
    }
}

fn hibernate(
    state: &State,
    incarnation: Incarnation,
    wake_at_ms: Option<i64>,
) -> Result<Vec<Event>, Rejection> {
    state.newest(incarnation)?;
    to(state, Status::Hibernating, || Hibernating { incarnation, wake_at_ms }.into())
}

fn keep_log(state: &State, incarnation: Incarnation, kept: Kept) -> Vec<Event> {
    let Kept { digest, bytes } = kept;
    match state.may_keep_log(incarnation) && incarnation <= state.incarnation {
        true => vec![LogKept { incarnation, digest, bytes }.into()],
        false => Vec::new(),
    }
}

fn erase_logs(state: &State) -> Vec<Event> {
    match state.logs_erased_to == state.incarnation && state.logs.is_empty() {
        true => Vec::new(),
        false => vec![LogsErased { to: state.incarnation }.into()],
    }
}

fn recover(state: &State, incarnation: Incarnation, claim: &Claim) -> Result<Vec<Event>, Rejection> {
    if incarnation == state.incarnation {
        return Ok(Vec::new());
    }
    if incarnation != Incarnation(state.incarnation.0 + 1) {
        return Err(Rejection::Stale { found: incarnation, newest: state.incarnation });
    }
    if state.status == Status::Hibernating {
        return Ok(vec![claimed(incarnation, claim)]);
    }
    if !lifecycle::allows(state.status, Status::Recovering) {
        state.step(Status::Unhealthy)?;
        // A sibling's failure restarts this one too: what it was doing ends here.
        let unhealthy = Unhealthy {
            incarnation: state.incarnation,
            exit: Exit::Killed,
            detail: "restarted with its siblings or by command".to_owned(),
        };
        return Ok(vec![unhealthy.into(), Recovering { incarnation }.into(), claimed(incarnation, claim)]);
    }
    Ok(vec![Recovering { incarnation }.into(), claimed(incarnation, claim)])
}
