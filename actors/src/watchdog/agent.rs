//! What the watchdog knows of one agent.

use std::collections::BTreeMap;

use events::TaskId;
use link::Liveness;

use super::{Finding, HungReason, Pulse, Sign};

/// How long a ping may go unanswered.
pub(super) const PING_MS_MAX: u64 = 10_000;

/// How an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    Waiting,
    Hung(HungReason),
    Lost,
    Dead,
}

#[derive(Debug)]
pub(super) struct Agent {
    liveness: Liveness,
    condition: Condition,
    /// When it was last heard.
    seen_ms: u64,
    linked: bool,
    stopped: bool,
    ping_ms: u64,
    /// Exit code or signal, and whether it was for want of memory.
    exited: Option<(String, bool)>,
    /// What it has in hand.
    tasks: BTreeMap<TaskId, Work>,
    calls: u32,
    /// Up to when silence was counted.
    counted_ms: u64,
    /// When it will be looked at next.
    pub(super) check_ms: Option<u64>,
}

/// A task in hand.
#[derive(Debug)]
struct Work {
    /// Whether it is worked on with frames.
    frames: bool,
    inputs: u32,
    lease_until_ms: u64,
    /// How long the handler has been silent about it, times that do not count left out.
    silent_ms: u64,
    /// Whether it was said that it is hung.
    is_told: bool,
}

impl Work {
    fn lease(&mut self, now_ms: u64, for_ms: u64) {
        self.lease_until_ms = self.lease_until_ms.max(now_ms.saturating_add(for_ms));
    }
}

impl Agent {
    pub(super) fn new(liveness: Liveness, now_ms: u64) -> Self {
        Self {
            liveness,
            condition: Condition::Well,
            seen_ms: now_ms,
            linked: false,
            stopped: false,
            ping_ms: 0,
            exited: None,
            tasks: BTreeMap::new(),
            calls: 0,
            counted_ms: now_ms,
            check_ms: None,
        }
    }

    /// Leaves out a time in which the watchdog itself was away, and gives one more chance to be heard.
    pub(super) fn excuse(&mut self, from_ms: u64, to_ms: u64) {
        self.count_silence(from_ms);
        self.counted_ms = to_ms;
        if self.condition != Condition::Lost {
            self.seen_ms = to_ms;
        }
    }

    pub(super) fn take_in(&mut self, sign: Sign, now_ms: u64) {
        self.count_silence(now_ms);
        if is_from_sandbox(&sign) {
            self.seen_ms = now_ms;
        }
        match sign {
            Sign::Linked => self.linked = true,
            Sign::LinkLost => self.linked = false,
            Sign::Heartbeat(beat) => {
                self.stopped = beat.stopped;
                self.ping_ms = beat.ping_ms;
                for Pulse { task, idle_ms, lease_ms } in beat.tasks {
                    if let Some(work) = self.tasks.get_mut(&task) {
                        work.silent_ms = work.silent_ms.min(idle_ms);
                        work.lease(now_ms, lease_ms);
                    }
                }
            }
            Sign::Frame => self.heard_of_the_only_task(),
            Sign::BytesMoved => self.tasks.values_mut().for_each(|work| work.silent_ms = 0),
            Sign::Busy { task, for_ms } => {
                if let Some(work) = self.tasks.get_mut(&task) {
                    work.silent_ms = 0;
                    work.lease(now_ms, for_ms);
                }
            }
            Sign::CallOpened => {
                self.heard_of_the_only_task();
                self.calls = self.calls.saturating_add(1);
            }
            Sign::CallClosed => self.calls = self.calls.saturating_sub(1),
            Sign::SandboxExited { reason, oom } => self.exited = Some((reason, oom)),
            Sign::TaskStarted { task, frames } => {
                let work = Work { frames, inputs: 0, lease_until_ms: 0, silent_ms: 0, is_told: false };
                self.tasks.insert(task, work);
            }
            Sign::TaskEnded { task } => {
                self.tasks.remove(&task);
                if self.tasks.is_empty() {
                    // Nothing of one task may excuse silence in the next.
                    self.calls = 0;
                }
            }
            Sign::InputOpened { task } => {
                self.tasks.entry(task).and_modify(|work| work.inputs = work.inputs.saturating_add(1));
            }
            Sign::InputClosed { task } => {
                self.tasks.entry(task).and_modify(|work| work.inputs = work.inputs.saturating_sub(1));
            }
            Sign::Adopted(_) | Sign::Removed => {}
        }
    }

    /// What has changed, if anything has. After death nothing does.
    pub(super) fn judge(&mut self, now_ms: u64) -> Vec<Finding> {
        if self.condition == Condition::Dead {
            return Vec::new();
        }
        let condition = self.condition_at(now_ms);
        let mut findings = Vec::new();
        if matches!(condition, Condition::Well | Condition::Waiting) {
            let hung = self.hung_tasks(now_ms);
            for (task, work) in &mut self.tasks {
                let is_hung = hung.contains(task);
                if is_hung && !work.is_told {
                    findings.push(Finding::TaskHung { task: task.clone() });
                }
                work.is_told = is_hung;
            }
        }
        if self.condition != condition {
            self.condition = condition;
            findings.push(self.finding());
        }
        findings
    }

    fn finding(&self) -> Finding {
        match self.condition {
            Condition::Well => Finding::Recovered,
            Condition::Waiting => Finding::Waiting,
            Condition::Hung(reason) => Finding::Hung { reason },
            Condition::Lost => Finding::Lost,
            Condition::Dead => {
                let (reason, oom) = self.exited.clone().unwrap_or_default();
                Finding::Dead { reason, oom }
            }
        }
    }

    /// When its condition may change by nothing but time.
    pub(super) fn next_check_ms(&self, now_ms: u64) -> Option<u64> {
        if self.exited.is_some() {
            return None;
        }
        let hung = self.tasks.values().filter_map(|work| self.hung_at_ms(work));
        hung.chain([self.lost_at_ms()]).filter(|&at_ms| at_ms > now_ms).min()
    }

    fn condition_at(&self, now_ms: u64) -> Condition {
        if self.exited.is_some() {
            Condition::Dead
        } else if now_ms >= self.lost_at_ms() {
            Condition::Lost
        } else if self.stopped {
            Condition::Hung(HungReason::Stopped)
        } else if self.ping_ms >= PING_MS_MAX {
            Condition::Hung(HungReason::Ping)
        } else if !self.tasks.is_empty() && self.hung_tasks(now_ms).len() == self.tasks.len() {
            Condition::Hung(HungReason::Silent)
        } else if self.tasks.values().any(|work| work.inputs > 0) {
            Condition::Waiting
        } else {
            Condition::Well
        }
    }

    fn lost_at_ms(&self) -> u64 {
        let patience_ms = self.liveness.heartbeat_ms.saturating_mul(u64::from(self.liveness.missed));
        self.seen_ms.saturating_add(patience_ms)
    }

    /// The tasks about which the handler has been silent for too long.
    fn hung_tasks(&self, now_ms: u64) -> Vec<TaskId> {
        let is_hung = |work: &Work| self.hung_at_ms(work).is_some_and(|at_ms| now_ms >= at_ms);
        self.tasks.iter().filter(|(_, work)| is_hung(work)).map(|(task, _)| task.clone()).collect()
    }

    fn hung_at_ms(&self, work: &Work) -> Option<u64> {
        let left_ms = self.liveness.progress_ms.saturating_sub(work.silent_ms);
        let from_ms = self.counted_ms.max(work.lease_until_ms);
        self.silence_counts(work).then(|| from_ms.saturating_add(left_ms))
    }

    /// Whether the handler is to be heard of this task, a busy lease left aside. Without a link nothing of it could be.
    fn silence_counts(&self, work: &Work) -> bool {
        // Whose call is pending is the runner's to say where there are several tasks: its heartbeats do.
        let is_calling = self.calls > 0 && self.tasks.len() == 1;
        self.linked && work.frames && work.inputs == 0 && !is_calling
    }

    fn count_silence(&mut self, now_ms: u64) {
        let counts: Vec<bool> = self.tasks.values().map(|work| self.silence_counts(work)).collect();
        for (work, counts) in self.tasks.values_mut().zip(counts) {
            if counts {
                work.silent_ms += now_ms.saturating_sub(self.counted_ms.max(work.lease_until_ms));
            }
        }
        self.counted_ms = now_ms;
    }

    /// The handler was heard: of its task, if there is no other. Of several, its heartbeats tell.
    fn heard_of_the_only_task(&mut self) {
        if let (1, Some(work)) = (self.tasks.len(), self.tasks.values_mut().next()) {
            work.silent_ms = 0;
        }
    }
}

/// Whether a sign was made by the sandbox, and not by the platform or about it.
fn is_from_sandbox(sign: &Sign) -> bool {
    matches!(
        sign,
        Sign::Linked
            | Sign::Heartbeat(_)
            | Sign::Frame
            | Sign::Busy { .. }
            | Sign::CallOpened
            | Sign::BytesMoved
    )
}
