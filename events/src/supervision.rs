//! Who is restarted when a child fails: the one meaning of supervision for actors and for agents in sandboxes.
//!
//! The words are those of Erlang/OTP's `supervisor`, and so is what they mean. The caller keeps a [`Budget`]
//! as part of its state, asks [`decide`] about each exit that it did not order itself, and folds what it did
//! about it back with [`Budget::restarted`] and [`Budget::stable`]. Time and chance come in as data, so folding
//! the same events gives the same budget: a restart of the platform does not refill it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Which children are restarted when one fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Only the child that failed.
    #[default]
    OneForOne,
    /// All of them: none can go on without the others.
    OneForAll,
    /// The child that failed and those started after it, which were built on it.
    RestForOne,
}

/// After which exits a child is to be restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildKind {
    /// After any exit.
    #[default]
    Permanent,
    /// After an exit that was not [normal](Exit::is_normal).
    Transient,
    /// Never, not even when the strategy restarts its siblings.
    Temporary,
}

impl ChildKind {
    /// Whether a child of this kind that ended so is to be restarted.
    pub fn restarts_after(self, exit: Exit) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => !exit.is_normal(),
            Self::Temporary => false,
        }
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It finished its work.
    Done,
    /// It was asked to end, and ended when its work in hand was done.
    Drained,
    /// It was ended by force.
    Killed,
    /// It ended with an error.
    Failed,
    /// It panicked.
    Panicked,
    /// It never came up.
    StartFailed,
    /// It cannot be reached any more.
    Lost,
    /// It lived but made no progress.
    Hung,
    /// It used more memory than it may.
    OutOfMemory,
    /// The machine or the platform under it ended: not its doing.
    NodeLost,
}

impl Exit {
    /// Whether the child ended as it was meant to.
    pub fn is_normal(self) -> bool {
        matches!(self, Self::Done | Self::Drained)
    }

    /// Whether a restart after it is charged to the supervisor's budget.
    pub fn is_charged(self) -> bool {
        self != Self::NodeLost
    }
}

/// What becomes of the whole when the restart budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// The child that failed is set aside for a person to look at; the others go on.
    #[default]
    Quarantine,
    /// All children are stopped for good.
    Disband,
    /// The supervisor itself fails, and its own supervisor decides.
    Escalate,
}

/// How long a restart waits: doubling with each failure of the same child in a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Wait before the first restart.
    pub initial_ms: u64,
    /// The longest wait.
    pub max_ms: u64,
    /// The part of the wait that is left to chance, 0 to 1: a wait of `d` becomes `d * (1 - jitter)` to `d`.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial_ms: 100, max_ms: 10_000, jitter: 0.2 }
    }
}

impl Backoff {
    /// The wait after `failures` earlier failures in a row; never more than `max_ms`.
    pub fn delay_ms(&self, failures: u32, jitter_seed: u64) -> u64 {
        let doubled = 1u64.checked_shl(failures).unwrap_or(u64::MAX);
        let full = self.initial_ms.saturating_mul(doubled).min(self.max_ms);
        let cut = full as f64 * self.jitter.clamp(0.0, 1.0) * unit_interval(jitter_seed);
        full.saturating_sub(cut as u64)
    }
}

/// Maps a seed to 0 (included) to 1 (excluded), near seeds to numbers far apart (the finalizer of SplitMix64,
/// Steele, Lea and Flood 2014).
fn unit_interval(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

/// How a supervisor treats its children.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Which children are restarted together.
    pub strategy: Strategy,
    /// The most restarts within any `within_ms`; a group restarted together counts once. 0: none at all.
    pub max_restarts: u32,
    /// The length of the window in which restarts are counted; at least 1.
    pub within_ms: u64,
    /// How long restarts wait.
    pub backoff: Backoff,
    /// What follows when `max_restarts` is spent.
    pub on_exhausted: OnExhausted,
    /// A child that has been up for so long is [stable](Budget::stable): its next failure is its first again.
    pub stable_after_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            max_restarts: 5,
            within_ms: 60_000,
            backoff: Backoff::default(),
            on_exhausted: OnExhausted::default(),
            stable_after_ms: 60_000,
        }
    }
}

impl Policy {
    /// Whether a child that is up since `up_since_ms` counts as stable at `now_ms`.
    pub fn is_stable(&self, up_since_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(up_since_ms) >= self.stable_after_ms
    }

    /// Whether a restart at `at_ms` still counts at `now_ms`. One from the future (a clock that was set back)
    /// does: better too few restarts than a storm of them.
    fn counts(&self, at_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(at_ms) < self.within_ms.max(1)
    }
}

/// What a supervisor has spent of its restarts. Part of the event-sourced state (SV-2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget<Id: Ord> {
    /// When the restarts of the current window were decided, oldest first.
    restarts_ms: VecDeque<u64>,
    /// Failures in a row, for each child that has any.
    failures: BTreeMap<Id, u32>,
}

impl<Id: Ord> Default for Budget<Id> {
    fn default() -> Self {
        Self { restarts_ms: VecDeque::new(), failures: BTreeMap::new() }
    }
}

impl<Id: Ord + Clone> Budget<Id> {
    /// Folds in that a restart was *decided* at `now_ms` because `failed` had ended. It is the decision that
    /// counts, not its execution after the wait: another child may fail in between.
    pub fn restarted(&mut self, policy: &Policy, failed: &Id, now_ms: u64) {
        // A clock that was set back must not hold old restarts in the window for longer than the window is.
        self.restarts_ms.iter_mut().for_each(|at| *at = (*at).min(now_ms));
        self.restarts_ms.retain(|&at| policy.counts(at, now_ms));
        self.restarts_ms.push_back(now_ms);
        let failures = self.failures.entry(failed.clone()).or_default();
        *failures = failures.saturating_add(1);
    }

    /// Folds in that `child` was up for [`Policy::stable_after_ms`], or is gone for good: its failures are forgotten.
    /// Its restarts still count in the window.
    pub fn stable(&mut self, child: &Id) {
        self.failures.remove(child);
    }

    /// The restarts that count at `now_ms`.
    pub fn spent(&self, policy: &Policy, now_ms: u64) -> usize {
        self.restarts_ms.iter().filter(|&&at| policy.counts(at, now_ms)).count()
    }

    /// The failures of `child` in a row.
    pub fn failures(&self, child: &Id) -> u32 {
        self.failures.get(child).copied().unwrap_or(0)
    }
}

/// A child as [`decide`] sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child<Id> {
    /// Its name among its siblings.
    pub id: Id,
    /// After which exits it is restarted.
    pub kind: ChildKind,
    /// Whether it is up or coming up, so that a group restart has to stop it first.
    pub running: bool,
}

/// An exit that the supervisor did not order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<'a, Id> {
    /// The child that ended.
    pub child: &'a Id,
    /// How it ended.
    pub exit: Exit,
    /// Now, in milliseconds since any fixed moment; the same one for all calls on one budget.
    pub now_ms: u64,
    /// Any number that differs from failure to failure; the wait's jitter is derived from it.
    pub jitter_seed: u64,
}

/// What a supervisor does about a [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<Id> {
    /// The child stays down and nothing else happens.
    Ignore,
    /// Stop some children now, and start some after a wait.
    Restart {
        /// To be started, in this order (their start order).
        children: Vec<Id>,
        /// To be stopped before, in this order (the reverse of their start order).
        stop_first: Vec<Id>,
        /// The wait between stopping and starting.
        delay_ms: u64,
    },
    /// The budget is spent.
    Exhausted(OnExhausted),
}

/// Decides about one failure. `children` are all of the supervisor's, in their start order.
///
/// A restart has to be [folded into the budget](Budget::restarted) before the next call. A child that is not
/// among `children` was removed, and its exit is ignored.
pub fn decide<Id: Ord + Clone>(
    policy: &Policy,
    budget: &Budget<Id>,
    children: &[Child<Id>],
    failure: &Failure<'_, Id>,
) -> Decision<Id> {
    let Some(index) = children.iter().position(|child| child.id == *failure.child) else {
        return Decision::Ignore;
    };
    if !children[index].kind.restarts_after(failure.exit) {
        return Decision::Ignore;
    }
    if budget.spent(policy, failure.now_ms) >= policy.max_restarts as usize {
        return Decision::Exhausted(policy.on_exhausted);
    }
    let affected = match policy.strategy {
        Strategy::OneForOne => &children[index..=index],
        Strategy::OneForAll => children,
        Strategy::RestForOne => &children[index..],
    };
    let restarted = affected.iter().filter(|child| child.kind != ChildKind::Temporary);
    let stopped = affected.iter().rev().filter(|child| child.running && child.id != *failure.child);
    Decision::Restart {
        children: restarted.map(|child| child.id.clone()).collect(),
        stop_first: stopped.map(|child| child.id.clone()).collect(),
        delay_ms: policy.backoff.delay_ms(budget.failures(failure.child), failure.jitter_seed),
    }
}
