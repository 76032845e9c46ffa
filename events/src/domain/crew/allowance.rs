//! What a crew may use up in its life, and what follows when it has.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a crew uses up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Tokens of models, read and written.
    Tokens,
    /// Milliseconds since it was assembled.
    WallTime,
    /// Messages between its members.
    Messages,
}

impl Resource {
    /// Its name in events and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::WallTime => "wall_time",
            Self::Messages => "messages",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokens => "tokens",
            Self::WallTime => "milliseconds of wall time",
            Self::Messages => "messages",
        })
    }
}

/// What follows when something is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBreach {
    /// The crew pauses until a person gives it more.
    #[default]
    Suspend,
    /// The crew disbands.
    Disband,
}

/// What a crew may use up; what is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Tokens.
    pub tokens: Option<u64>,
    /// Milliseconds since it was assembled.
    pub wall_ms: Option<u64>,
    /// Messages.
    pub messages: Option<u64>,
    /// What follows when something is used up.
    pub on_breach: OnBreach,
}

impl Allowance {
    /// How much of it the crew may use up.
    pub fn limit(&self, what: Resource) -> Option<u64> {
        match what {
            Resource::Tokens => self.tokens,
            Resource::WallTime => self.wall_ms,
            Resource::Messages => self.messages,
        }
    }

    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        self.tokens.is_none() && self.wall_ms.is_none() && self.messages.is_none()
    }

    /// With these limits in place of its own.
    #[must_use]
    pub(super) fn raised(self, raised: &BudgetRaised) -> Self {
        Self {
            tokens: raised.tokens.or(self.tokens),
            wall_ms: raised.wall_ms.or(self.wall_ms),
            messages: raised.messages.or(self.messages),
            ..self
        }
    }
}

/// Something of the crew's budget is used up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetExhausted {
    /// What.
    pub what: Resource,
    /// How much was used when that was noticed.
    pub used: u64,
    /// How much of it the crew may use.
    pub limit: u64,
    /// What follows.
    pub on_breach: OnBreach,
}

/// The crew may use more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetRaised {
    /// Tokens in all, where that changes.
    pub tokens: Option<u64>,
    /// Milliseconds since its assembly in all, where that changes.
    pub wall_ms: Option<u64>,
    /// Messages in all, where that changes.
    pub messages: Option<u64>,
}

impl BudgetRaised {
    /// What changes, each with its new limit.
    pub(super) fn limits(&self) -> impl Iterator<Item = (Resource, u64)> {
        let all = [
            (Resource::Tokens, self.tokens),
            (Resource::WallTime, self.wall_ms),
            (Resource::Messages, self.messages),
        ];
        all.into_iter().filter_map(|(what, limit)| Some((what, limit?)))
    }
}
