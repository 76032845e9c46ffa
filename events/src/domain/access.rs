//! Access: which tokens there are, and who has which role, in `platform/access`.
//!
//! Every node folds this one stream and asks nothing else when somebody comes in: what is revoked is revoked for all.
//! What a role means is not for this module: roles are names here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Context, Decider};
use crate::api::{Problem, ProblemKind};
use crate::event::Principal;
use crate::id::EntityKind;

mod scope;
#[cfg(test)]
mod tests;

pub use scope::{Scope, UnknownScope};

/// The id of the one entity.
pub const ID: &str = "access";
/// Most tokens that are neither revoked nor expired.
pub const TOKENS_MAX: usize = 10_000;
/// Most roles that all principals together have.
pub const GRANTS_MAX: usize = 10_000;
/// Most tokens that are neither revoked nor expired, and most roles, within one tenant: none takes the room of another.
pub const OF_A_TENANT_MAX: usize = 1_000;

crate::domain_events! {
    /// What happens to who may come in.
    pub enum Event {
        "token_minted" v 1 => TokenMinted,
        "token_revoked" v 1 => TokenRevoked,
        "role_granted" v 1 => RoleGranted,
        "role_revoked" v 1 => RoleRevoked,
    }
}

/// There is a new token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMinted {
    /// Its id.
    pub token: String,
    /// Who comes in by it.
    pub holder: Principal,
    /// What it is for, in words for people.
    pub purpose: String,
    /// The roles beyond which it does not reach, whatever its holder has.
    pub roles: BTreeSet<String>,
    /// The scope beyond which it does not reach; older events name none, and mean the platform.
    #[serde(default, skip_serializing_if = "Scope::is_platform")]
    pub scope: Scope,
    /// The hash of its secret, in the PHC string format.
    pub hash: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: i64,
    /// How long it was asked for, in milliseconds; older events do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_ms: Option<i64>,
}

/// A token opens nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRevoked {
    /// Its id.
    pub token: String,
    /// Why.
    pub reason: String,
}

/// Somebody has a role from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleGranted {
    /// Who.
    pub principal: Principal,
    /// The role.
    pub role: String,
    /// Where they have it; older events name none, and mean the platform.
    #[serde(default, skip_serializing_if = "Scope::is_platform")]
    pub scope: Scope,
}

/// Somebody has a role no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRevoked {
    /// Who.
    pub principal: Principal,
    /// The role.
    pub role: String,
    /// Where they had it; older events name none, and mean the platform.
    #[serde(default, skip_serializing_if = "Scope::is_platform")]
    pub scope: Scope,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Keep a new token, and give its holder the roles that it is for.
    Mint(TokenMinted),
    /// End a token.
    Revoke(TokenRevoked),
    /// Give somebody a role.
    Grant(RoleGranted),
    /// Take a role from somebody.
    Withdraw(RoleRevoked),
}

/// Why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// There is no such token.
    #[error("there is no token `{token}`")]
    NoToken {
        /// The id.
        token: String,
    },
    /// Somebody does not have the role.
    #[error("{principal} does not have the role {role} in the scope {scope}")]
    NoRole {
        /// Who.
        principal: Principal,
        /// The role.
        role: String,
        /// Where it was looked for.
        scope: Scope,
    },
    /// There are too many.
    #[error(
        "there are {TOKENS_MAX} tokens or {GRANTS_MAX} roles, or {OF_A_TENANT_MAX} in the tenant; revoke what is not needed"
    )]
    Full,
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection {
            Rejection::NoToken { .. } | Rejection::NoRole { .. } => ProblemKind::NotFound,
            Rejection::Full => ProblemKind::Conflict,
        };
        Self::new(kind, rejection.to_string())
    }
}

/// A token as its events left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// How it was made.
    pub minted: TokenMinted,
    /// Why it opens nothing any more.
    pub revoked: Option<String>,
}

impl Token {
    /// Whether it opens anything at this time.
    pub fn is_live(&self, now_ms: i64) -> bool {
        self.revoked.is_none() && now_ms < self.minted.expires_at_ms
    }
}

/// A role that somebody has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// The role.
    pub role: String,
    /// Where.
    pub scope: Scope,
}

/// Who may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Every token that was ever made, by its id.
    pub tokens: BTreeMap<String, Token>,
    /// The roles of each principal that has any.
    pub roles: BTreeMap<Principal, BTreeSet<Held>>,
}

impl State {
    /// Whether somebody was given a role in this scope and no other.
    pub fn has(&self, principal: &Principal, role: &str, scope: &Scope) -> bool {
        let is_it = |held: &Held| held.role == role && held.scope == *scope;
        self.roles.get(principal).is_some_and(|roles| roles.iter().any(is_it))
    }

    /// Whether somebody has a role in a scope that covers this one.
    fn reaches(&self, principal: &Principal, role: &str, scope: &Scope) -> bool {
        let reaches = |held: &Held| held.role == role && held.scope.covers(scope);
        self.roles.get(principal).is_some_and(|roles| roles.iter().any(reaches))
    }

    /// Whether there is no room for more in this scope.
    fn is_full(&self, scope: &Scope, now_ms: i64) -> bool {
        let live = self.tokens.values().filter(|token| token.is_live(now_ms));
        let tokens: Vec<&Scope> = live.map(|token| &token.minted.scope).collect();
        let roles: Vec<&Scope> = self.roles.values().flatten().map(|held| &held.scope).collect();
        let of_tenant = |scopes: &[&Scope]| {
            let tenant = scope.tenant();
            tenant.is_some() && scopes.iter().filter(|of| of.tenant() == tenant).count() >= OF_A_TENANT_MAX
        };
        tokens.len() >= TOKENS_MAX || roles.len() >= GRANTS_MAX || of_tenant(&tokens) || of_tenant(&roles)
    }
}

/// The entity.
pub struct Access;

impl Decider for Access {
    const KIND: EntityKind = EntityKind::Platform;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = ();
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
        let now_ms = context.now.millis();
        match command {
            Command::Mint(TokenMinted { scope, .. }) | Command::Grant(RoleGranted { scope, .. })
                if state.is_full(scope, now_ms) =>
            {
                Err(Rejection::Full)
            }
            Command::Mint(minted) => {
                let TokenMinted { holder, roles, scope, .. } = minted;
                let lacking = roles.iter().filter(|role| !state.reaches(holder, role, scope));
                let granted = lacking.map(|role| {
                    let (principal, role, scope) = (holder.clone(), role.clone(), scope.clone());
                    RoleGranted { principal, role, scope }.into()
                });
                Ok(granted.chain([minted.clone().into()]).collect())
            }
            Command::Revoke(revoked) => match state.tokens.get(&revoked.token) {
                None => Err(Rejection::NoToken { token: revoked.token.clone() }),
                Some(token) if token.revoked.is_some() => Ok(Vec::new()),
                Some(_) => Ok(vec![revoked.clone().into()]),
            },
            Command::Grant(RoleGranted { principal, role, scope }) if state.has(principal, role, scope) => {
                Ok(Vec::new())
            }
            Command::Grant(granted) => Ok(vec![granted.clone().into()]),
            Command::Withdraw(revoked) => {
                let RoleRevoked { principal, role, scope } = revoked.clone();
                match state.has(&principal, &role, &scope) {
                    true => Ok(vec![revoked.clone().into()]),
                    false => Err(Rejection::NoRole { principal, role, scope }),
                }
            }
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::TokenMinted(minted) => {
                let token = Token { minted: minted.clone(), revoked: None };
                state.tokens.insert(minted.token.clone(), token);
            }
            Event::TokenRevoked(revoked) => {
                if let Some(token) = state.tokens.get_mut(&revoked.token) {
                    token.revoked = Some(revoked.reason.clone());
                }
            }
            Event::RoleGranted(RoleGranted { principal, role, scope }) => {
                let held = Held { role: role.clone(), scope: scope.clone() };
                state.roles.entry(principal.clone()).or_default().insert(held);
            }
            Event::RoleRevoked(RoleRevoked { principal, role, scope }) => {
                if let Some(roles) = state.roles.get_mut(principal) {
                    roles.remove(&Held { role: role.clone(), scope: scope.clone() });
                    if roles.is_empty() {
                        state.roles.remove(principal);
                    }
                }
            }
        }
        state
    }

    fn obligations(_: &State) -> Vec<()> {
        Vec::new()
    }
}
