//! Whether somebody may do something somewhere: the one decision behind every door.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use events::domain::access::{Scope, UnknownScope};
use events::{CrewId, Tenant};

use crate::permission::{Level, PERMISSIONS, level_of};
use crate::role::{Role, UnknownRole};

/// A role that somebody has somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// Where.
    pub scope: Scope,
}

impl Grant {
    /// The role in the whole platform.
    pub fn everywhere(role: Role) -> Self {
        Self { role, scope: Scope::Platform }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Platform => self.role.fmt(f),
            scope => write!(f, "{}@{scope}", self.role),
        }
    }
}

/// A text that is no role, or names no scope after its `@`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownGrant {
    /// It names no role.
    #[error(transparent)]
    Role(#[from] UnknownRole),
    /// It names no scope.
    #[error(transparent)]
    Scope(#[from] UnknownScope),
}

impl FromStr for Grant {
    type Err = UnknownGrant;

    fn from_str(text: &str) -> Result<Self, UnknownGrant> {
        let (role, scope) = text.split_once('@').unwrap_or((text, "platform"));
        Ok(Self { role: role.parse()?, scope: scope.parse()? })
    }
}

/// What of a tenant somebody may do something with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing.
    Nothing,
    /// What belongs to one of these crews.
    Crews(BTreeSet<CrewId>),
    /// All of it.
    All,
}

impl Sight {
    /// Whether it takes in what belongs to this crew; what belongs to none is for those alone who may see all.
    pub fn takes_in(&self, crew: Option<&CrewId>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Crews(crews) => crew.is_some_and(|crew| crews.contains(crew)),
            Self::All => true,
        }
    }

    /// The crews to which it is confined.
    pub fn crews(&self) -> Option<&BTreeSet<CrewId>> {
        match self {
            Self::Crews(crews) => Some(crews),
            Self::Nothing | Self::All => None,
        }
    }
}

/// Whether a role in this scope reaches what needs the permission and is done at `at`.
fn reaches(scope: &Scope, permission: &str, at: &Scope) -> bool {
    match (level_of(permission), at) {
        (Level::Own, _) => true,
        (Level::Platform, _) => scope.is_platform(),
        (Level::Tenant, Scope::Crew(tenant, _)) => scope.covers(&Scope::Tenant(tenant.clone())),
        (Level::Tenant | Level::Crew, at) => scope.covers(at),
    }
}

/// Whether whoever has these roles may do what needs the permission at this scope.
pub fn is_permitted(grants: &[Grant], permission: &str, at: &Scope) -> bool {
    grants.iter().any(|grant| grant.role.permits(permission) && reaches(&grant.scope, permission, at))
}

/// With what of a tenant whoever has these roles may do what needs the permission.
pub fn sight(grants: &[Grant], permission: &str, tenant: &Tenant) -> Sight {
    if is_permitted(grants, permission, &Scope::Tenant(tenant.clone())) {
        return Sight::All;
    }
    let crews = grants.iter().filter_map(|grant| match &grant.scope {
        Scope::Crew(of, crew) if of == tenant => Some((crew, &grant.scope)),
        _ => None,
    });
    let crews: BTreeSet<CrewId> = crews
        .filter(|(_, scope)| is_permitted(grants, permission, scope))
        .map(|(crew, _)| crew.clone())
        .collect();
    if crews.is_empty() { Sight::Nothing } else { Sight::Crews(crews) }
}

/// What `given` permits and whoever has `own` may not do there: nobody gives away what they do not have.
pub fn missing_of(own: &[Grant], given: &Grant) -> Option<&'static str> {
    let Grant { role, scope } = given;
    // A role in a tenant does not bring what it takes one in the platform for.
    let is_brought = |permission: &str| role.permits(permission) && reaches(scope, permission, scope);
    PERMISSIONS
        .iter()
        .map(|(permission, _)| *permission)
        .find(|permission| is_brought(permission) && !is_permitted(own, permission, scope))
}

#[cfg(test)]
mod tests;
