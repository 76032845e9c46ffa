//! How far a role reaches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{CrewId, Tenant};

/// How far a role or a token reaches: the platform, a tenant in it, a crew in that.
///
/// As text `platform`, `tenant:NAME` and `crew:TENANT/ID`: a crew's names its tenant, so that what covers what can be
/// seen without asking anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Everything.
    #[default]
    Platform,
    /// Everything of one tenant.
    Tenant(Tenant),
    /// Everything of one crew.
    Crew(Tenant, CrewId),
}

/// A text that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no scope: expected `platform`, `tenant:NAME` or `crew:ID`")]
pub struct UnknownScope {
    /// The text, shortened.
    pub found: String,
}

impl Scope {
    /// Whether it is everything: what events say that name no scope.
    pub fn is_platform(&self) -> bool {
        *self == Self::Platform
    }

    /// Whether all that `other` is lies within this one.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Platform, _) => true,
            (Self::Tenant(own), Self::Tenant(of) | Self::Crew(of, _)) => own == of,
            (Self::Crew(..), Self::Crew(..)) => self == other,
            (Self::Tenant(_) | Self::Crew(..), _) => false,
        }
    }

    /// What lies within both: scopes do not overlap in part.
    pub fn within<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        match (self.covers(other), other.covers(self)) {
            (true, _) => Some(other),
            (_, true) => Some(self),
            _ => None,
        }
    }

    /// The tenant that it names.
    pub fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::Platform => None,
            Self::Tenant(tenant) | Self::Crew(tenant, _) => Some(tenant),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str("platform"),
            Self::Tenant(tenant) => write!(f, "tenant:{tenant}"),
            Self::Crew(tenant, crew) => write!(f, "crew:{tenant}/{crew}"),
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let scope = match text.split_once(':') {
            None if text == "platform" => Some(Self::Platform),
            Some(("tenant", name)) => name.parse().ok().map(Self::Tenant),
            Some(("crew", of)) => of
                .split_once('/')
                .and_then(|(tenant, crew)| Some(Self::Crew(tenant.parse().ok()?, crew.parse().ok()?))),
            _ => None,
        };
        scope.ok_or_else(|| UnknownScope { found: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for Scope {
    type Error = UnknownScope;

    fn try_from(text: String) -> Result<Self, UnknownScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().expect("a scope")
    }

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for text in ["platform", "tenant:acme", "crew:acme/cr_1"] {
            assert_eq!(scope(text).to_string(), text);
        }
        for bad in ["", "tenant", "tenant:", "tenant:a/b", "crew:cr_1", "crew:acme/", "crew:/cr_1", "all"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_wide_covers_the_narrow_and_nothing_else() {
        let order = ["platform", "tenant:acme", "crew:acme/cr_1"];
        for (i, wide) in order.iter().enumerate() {
            for (j, narrow) in order.iter().enumerate() {
                assert_eq!(scope(wide).covers(&scope(narrow)), i <= j, "{wide} {narrow}");
                let inner = order[i.max(j)];
                assert_eq!(scope(wide).within(&scope(narrow)), Some(&scope(inner)), "{wide} {narrow}");
            }
        }
        for (one, other) in [
            ("tenant:acme", "tenant:globex"),
            ("tenant:acme", "crew:globex/cr_1"),
            ("crew:acme/cr_1", "crew:acme/cr_2"),
            ("crew:acme/cr_1", "crew:globex/cr_1"),
        ] {
            assert!(!scope(one).covers(&scope(other)) && !scope(other).covers(&scope(one)), "{one} {other}");
            assert_eq!(scope(one).within(&scope(other)), None);
        }
    }
}
