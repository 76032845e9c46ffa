//! What notices that an agent is dead, lost or hung.
//!
//! [`Watchdog::step`] is a pure state machine: signals and the time go in, verdicts come out, each once per change.
//! The [driver](spawn) feeds it on an OS thread of its own, so that an async runtime that is blocked does not stop
//! it; [`drive`] feeds it on any runtime, a paused clock included.
//!
//! - *dead*: the sandbox is gone.
//! - *lost*: it lives, but for `missed` heartbeats nothing was heard from it.
//! - *hung*: it is busy, and for `progress` its handler has said nothing, while no call of it was pending, no bytes
//!   moved, no busy lease ran and no input was open; or its process is stopped, or a ping goes unanswered. Silence is
//!   judged for each task in hand: while the handler gets on with others, only that task is hung.
//! - *waiting*: an input or an approval is open, which is not hanging.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use events::{AgentId, Incarnation, TaskId};
use link::{Heartbeat, Liveness};

mod agent;
mod driver;
#[cfg(test)]
mod tests;

pub use driver::{Closed, Handle, Options, drive, spawn};

use agent::Agent;

/// One life of an agent. What is said of another life concerns nobody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The agent.
    pub agent: AgentId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// What the watchdog is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Time has passed.
    Tick,
    /// Those who pass signals on are at work. See [`Watchdog::new`].
    Pulse,
    /// Something was seen of an agent.
    Of(Subject, Sign),
}

/// What was seen of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It is watched from now on: what it does has to be heard. It counts as not linked.
    Adopted(Liveness),
    /// It is watched no longer.
    Removed,
    /// Its runner has a link.
    Linked,
    /// The link ended. That alone is no verdict: the runner may come back.
    LinkLost,
    /// Its runner reported.
    Heartbeat(Beat),
    /// The handler said something.
    Frame,
    /// The handler said that it will be silent for so long.
    Busy {
        /// The task that takes so long.
        task: TaskId,
        /// The length of the lease from now on.
        for_ms: u64,
    },
    /// The handler asked for something.
    CallOpened,
    /// It was answered.
    CallClosed,
    /// Bytes went through a door.
    BytesMoved,
    /// The sandbox is gone.
    SandboxExited {
        /// Exit code or signal, in words.
        reason: String,
        /// Whether it used more memory than it may.
        oom: bool,
    },
    /// It has a task in hand.
    TaskStarted {
        /// The task.
        task: TaskId,
        /// Whether its carrier sends frames of its own while it works, as `stdio` and `pull` do. For one that does
        /// not (`exec`, `http`) silence means nothing, and the attempt's timeout alone decides.
        frames: bool,
    },
    /// It has the task in hand no longer.
    TaskEnded {
        /// The task.
        task: TaskId,
    },
    /// An input or an approval was asked for.
    InputOpened {
        /// For this task.
        task: TaskId,
    },
    /// It came, or is wanted no more.
    InputClosed {
        /// The task that waited for it.
        task: TaskId,
    },
}

/// What of a heartbeat concerns the watchdog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The handler's process is stopped.
    pub stopped: bool,
    /// For how long the oldest ping has been without an answer.
    pub ping_ms: u64,
    /// The tasks in hand.
    pub tasks: Vec<Pulse>,
}

/// A task in hand, as the runner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The task.
    pub task: TaskId,
    /// For how long the handler has been silent about it.
    pub idle_ms: u64,
    /// How long its busy lease still runs.
    pub lease_ms: u64,
}

impl From<&Heartbeat> for Beat {
    fn from(beat: &Heartbeat) -> Self {
        Self {
            stopped: beat.stopped,
            ping_ms: beat.ping_ms,
            tasks: beat.tasks.iter().filter_map(pulse).collect(),
        }
    }
}

fn pulse(held: &link::HeldTask) -> Option<Pulse> {
    let link::HeldTask { task_id, idle_ms, lease_ms, .. } = held;
    Some(Pulse { task: task_id.as_str().parse().ok()?, idle_ms: *idle_ms, lease_ms: *lease_ms })
}

/// What the watchdog found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// About whom.
    pub subject: Subject,
    /// What.
    pub finding: Finding,
}

/// How an agent is, when that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Its sandbox is gone. The last word about an incarnation.
    Dead {
        /// Exit code or signal, in words.
        reason: String,
        /// Whether it used more memory than it may.
        oom: bool,
    },
    /// Nothing is heard from it.
    Lost,
    /// It is there but does not get on.
    Hung {
        /// How that shows.
        reason: HungReason,
    },
    /// It gets on with others, but not with this task.
    TaskHung {
        /// The task.
        task: TaskId,
    },
    /// It waits for an input or an approval. Says also that it is not lost or hung any more.
    Waiting,
    /// It was lost, hung or waiting, and is well.
    Recovered,
}

/// How it shows that an agent is hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HungReason {
    /// Its handler's process is stopped.
    Stopped,
    /// Its handler does not answer a ping.
    Ping,
    /// Its handler is busy and has said nothing for too long.
    Silent,
}

/// Watches many agents. The cost of a step does not grow with their number, but for the first after a pause.
#[derive(Debug)]
pub struct Watchdog {
    agents: HashMap<Subject, Agent>,
    /// When to look at whom next. An agent whose deadline has moved away is looked at in vain, once.
    checks: BinaryHeap<Reverse<(u64, Subject)>>,
    now_ms: u64,
    pause_ms: u64,
    /// When those who pass signals on last said that they are at work, if they say so at all.
    pulse_ms: Option<u64>,
}

impl Watchdog {
    /// Watches nobody yet. `now_ms` is on any clock that does not run backwards, the same one for all steps.
    ///
    /// Where more than `pause_ms` lie between two steps, it was the watchdog itself that was away (its process was
    /// stopped, the machine slept), and what seems late may only be unread: nobody is blamed for that time.
    /// It has to be more than the longest time without a tick.
    ///
    /// The same holds where those who pass signals on were away (a blocked runtime reads no links). From the first
    /// [`Signal::Pulse`] on, a time of more than `pause_ms` without one is such a time: silence proves nothing
    /// then, so nobody is found lost or silent before the next pulse.
    pub fn new(now_ms: u64, pause_ms: u64) -> Self {
        Self { agents: HashMap::new(), checks: BinaryHeap::new(), now_ms, pause_ms, pulse_ms: None }
    }

    /// Takes in one signal and says what has changed by it and by the time that has passed.
    pub fn step(&mut self, now_ms: u64, signal: Signal) -> Vec<Verdict> {
        let before_ms = self.now_ms;
        self.now_ms = now_ms.max(before_ms);
        if self.now_ms - before_ms > self.pause_ms {
            self.excuse_all_since(before_ms);
        }
        let mut verdicts = Vec::new();
        match signal {
            Signal::Tick => {}
            Signal::Pulse => {
                if let Some(since_ms) = self.deaf_since_ms() {
                    self.excuse_all_since(since_ms);
                }
                self.pulse_ms = Some(self.now_ms);
            }
            Signal::Of(subject, Sign::Adopted(liveness)) => {
                self.agents.insert(subject.clone(), Agent::new(liveness, self.now_ms));
                self.judge(subject, &mut verdicts);
            }
            Signal::Of(subject, Sign::Removed) => {
                self.agents.remove(&subject);
            }
            Signal::Of(subject, sign) => {
                let deaf_since_ms = self.deaf_since_ms();
                if let Some(agent) = self.agents.get_mut(&subject) {
                    if let Some(since_ms) = deaf_since_ms {
                        agent.excuse(since_ms, self.now_ms);
                    }
                    agent.take_in(sign, self.now_ms);
                    self.judge(subject, &mut verdicts);
                }
            }
        }
        if self.deaf_since_ms().is_none() {
            self.judge_due(&mut verdicts);
        }
        verdicts
    }

    /// When a step is due even if there is no signal. None: not before there is one.
    pub fn next_check_ms(&self) -> Option<u64> {
        self.next_planned_ms().filter(|_| self.deaf_since_ms().is_none())
    }

    fn next_planned_ms(&self) -> Option<u64> {
        self.checks.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Since when nothing that was to be heard may have been passed on.
    fn deaf_since_ms(&self) -> Option<u64> {
        self.pulse_ms.filter(|pulse_ms| self.now_ms - pulse_ms > self.pause_ms)
    }

    fn excuse_all_since(&mut self, from_ms: u64) {
        self.agents.values_mut().for_each(|agent| agent.excuse(from_ms, self.now_ms));
    }

    fn judge_due(&mut self, verdicts: &mut Vec<Verdict>) {
        while self.next_planned_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
            let Some(Reverse((at_ms, subject))) = self.checks.pop() else { return };
            if let Some(agent) = self.agents.get_mut(&subject)
                && agent.check_ms == Some(at_ms)
            {
                agent.check_ms = None;
                self.judge(subject, verdicts);
            }
        }
    }

    fn judge(&mut self, subject: Subject, verdicts: &mut Vec<Verdict>) {
        let Some(agent) = self.agents.get_mut(&subject) else { return };
        let findings = agent.judge(self.now_ms).into_iter();
        verdicts.extend(findings.map(|finding| Verdict { subject: subject.clone(), finding }));
        // A look that is planned earlier will plan the next one; so a heartbeat costs no entry.
        if let Some(at_ms) = agent.next_check_ms(self.now_ms)
            && agent.check_ms.is_none_or(|planned| at_ms < planned)
        {
            agent.check_ms = Some(at_ms);
            self.checks.push(Reverse((at_ms, subject)));
        }
    }
}
