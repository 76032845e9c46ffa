//! What the watchdog knows of one agent.

use std::collections::HashMap;

use events::TaskId;
use link::Liveness;

use super::{Finding, HungReason, Sign};

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
    exited: Option<String>,
    /// What it has in hand, and whether that is worked on with frames.
    tasks: HashMap<TaskId, bool>,
    calls: u32,
    inputs: u32,
    lease_until_ms: u64,
    /// How long the handler had been silent at `counted_ms`, times that do not count left out.
    silent_ms: u64,
    counted_ms: u64,
    /// When it will be looked at next.
    pub(super) check_ms: Option<u64>,
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
            tasks: HashMap::new(),
            calls: 0,
            inputs: 0,
            lease_until_ms: 0,
            silent_ms: 0,
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
                self.silent_ms = self.silent_ms.min(beat.idle_ms.unwrap_or(u64::MAX));
                self.lease(now_ms, beat.lease_ms);
            }
            Sign::Frame | Sign::BytesMoved => self.silent_ms = 0,
            Sign::Busy { for_ms } => {
                self.silent_ms = 0;
                self.lease(now_ms, for_ms);
            }
            Sign::CallOpened => {
                self.silent_ms = 0;
                self.calls = self.calls.saturating_add(1);
            }
            Sign::CallClosed => self.calls = self.calls.saturating_sub(1),
            Sign::SandboxExited { reason } => self.exited = Some(reason),
            Sign::TaskStarted { task, frames } => {
                if self.tasks.is_empty() {
                    self.silent_ms = 0;
                }
                self.tasks.insert(task, frames);
            }
            Sign::TaskEnded { task } => {
                self.tasks.remove(&task);
                if self.tasks.is_empty() {
                    // Nothing of one task may excuse silence in the next.
                    (self.calls, self.inputs, self.lease_until_ms) = (0, 0, 0);
                }
            }
            Sign::InputOpened => self.inputs = self.inputs.saturating_add(1),
            Sign::InputClosed => self.inputs = self.inputs.saturating_sub(1),
            Sign::Adopted(_) | Sign::Removed => {}
        }
    }

    /// What has changed, if anything has. After death nothing does.
    pub(super) fn judge(&mut self, now_ms: u64) -> Option<Finding> {
        let condition = self.condition_at(now_ms);
        if self.condition == Condition::Dead || self.condition == condition {
            return None;
        }
        self.condition = condition;
        Some(match condition {
            Condition::Well => Finding::Recovered,
            Condition::Waiting => Finding::Waiting,
            Condition::Hung(reason) => Finding::Hung { reason },
            Condition::Lost => Finding::Lost,
            Condition::Dead => Finding::Dead { reason: self.exited.clone().unwrap_or_default() },
        })
    }

    /// When its condition may change by nothing but time.
    pub(super) fn next_check_ms(&self, now_ms: u64) -> Option<u64> {
        if self.exited.is_some() {
            return None;
        }
        let times = [Some(self.lost_at_ms()), self.hung_at_ms()];
        times.into_iter().flatten().filter(|&at_ms| at_ms > now_ms).min()
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
        } else if self.hung_at_ms().is_some_and(|at_ms| now_ms >= at_ms) {
            Condition::Hung(HungReason::Silent)
        } else if self.inputs > 0 {
            Condition::Waiting
        } else {
            Condition::Well
        }
    }

    fn lost_at_ms(&self) -> u64 {
        let patience_ms = self.liveness.heartbeat_ms.saturating_mul(u64::from(self.liveness.missed));
        self.seen_ms.saturating_add(patience_ms)
    }

    fn hung_at_ms(&self) -> Option<u64> {
        let left_ms = self.liveness.progress_ms.saturating_sub(self.silent_ms);
        self.silence_counts().then(|| self.counted_ms.max(self.lease_until_ms).saturating_add(left_ms))
    }

    /// Whether the handler is to be heard, a busy lease left aside. Without a link nothing of it could be.
    fn silence_counts(&self) -> bool {
        self.linked && self.calls == 0 && self.inputs == 0 && self.tasks.values().any(|&frames| frames)
    }

    fn count_silence(&mut self, now_ms: u64) {
        if self.silence_counts() {
            self.silent_ms += now_ms.saturating_sub(self.counted_ms.max(self.lease_until_ms));
        }
        self.counted_ms = now_ms;
    }

    fn lease(&mut self, now_ms: u64, for_ms: u64) {
        self.lease_until_ms = self.lease_until_ms.max(now_ms.saturating_add(for_ms));
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
