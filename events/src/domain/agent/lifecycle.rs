//! The agent's legal transitions, as data in one place.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an agent stands, as its crew sees it. Busy and waiting are derived from its live attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Wanted; nothing exists yet.
    #[default]
    Requested,
    /// A sandbox is bound to it and being made.
    Provisioning,
    /// The runner is linked; the handler comes up.
    Warming,
    /// It takes work.
    Ready,
    /// Parked without a sandbox until it is needed.
    Hibernating,
    /// It takes no more work and finishes what it has.
    Draining,
    /// Its incarnation is dead, lost or hung.
    Unhealthy,
    /// The next incarnation is about to be claimed.
    Recovering,
    /// Frozen by command.
    Paused,
    /// Set aside for a person to look at.
    Quarantined,
    /// Given up.
    Failed,
    /// Ended as it was told to.
    Terminated,
}

impl Status {
    /// Every status, in the order in which an agent may pass them.
    pub const ALL: [Self; 12] = [
        Self::Requested,
        Self::Provisioning,
        Self::Warming,
        Self::Ready,
        Self::Hibernating,
        Self::Draining,
        Self::Unhealthy,
        Self::Recovering,
        Self::Paused,
        Self::Quarantined,
        Self::Failed,
        Self::Terminated,
    ];

    /// Its name in events, tables and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Provisioning => "provisioning",
            Self::Warming => "warming",
            Self::Ready => "ready",
            Self::Hibernating => "hibernating",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::Recovering => "recovering",
            Self::Paused => "paused",
            Self::Quarantined => "quarantined",
            Self::Failed => "failed",
            Self::Terminated => "terminated",
        }
    }

    /// Whether an incarnation may still do something.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Quarantined | Self::Failed | Self::Terminated)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

use Status as S;

/// Every legal transition.
pub const TRANSITIONS: &[(Status, &[Status])] = &[
    (S::Requested, &[S::Provisioning, S::Terminated, S::Failed]),
    (S::Provisioning, &[S::Warming, S::Unhealthy, S::Draining, S::Quarantined, S::Failed, S::Terminated]),
    (S::Warming, &[S::Ready, S::Unhealthy, S::Draining, S::Quarantined, S::Failed, S::Terminated]),
    (
        S::Ready,
        &[S::Hibernating, S::Draining, S::Unhealthy, S::Paused, S::Quarantined, S::Failed, S::Terminated],
    ),
    (S::Hibernating, &[S::Provisioning, S::Draining, S::Quarantined, S::Failed, S::Terminated]),
    (S::Draining, &[S::Terminated, S::Failed]),
    (S::Unhealthy, &[S::Recovering, S::Draining, S::Quarantined, S::Failed, S::Terminated]),
    (S::Recovering, &[S::Provisioning, S::Quarantined, S::Failed, S::Terminated]),
    (S::Paused, &[S::Ready, S::Unhealthy, S::Draining, S::Quarantined, S::Failed, S::Terminated]),
    (S::Quarantined, &[S::Recovering, S::Failed, S::Terminated]),
    (S::Failed, &[]),
    (S::Terminated, &[]),
];

/// Whether the lifecycle leads from `from` to `to` in one step.
pub fn allows(from: Status, to: Status) -> bool {
    TRANSITIONS.iter().any(|(state, next)| *state == from && next.contains(&to))
}

/// The lifecycle as a Mermaid state diagram, for the documents.
pub fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> requested\n");
    for (from, next) in TRANSITIONS {
        for to in *next {
            text.push_str(&format!("    {from} --> {to}\n"));
        }
        if next.is_empty() {
            text.push_str(&format!("    {from} --> [*]\n"));
        }
    }
    text
}
