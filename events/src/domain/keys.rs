//! The keys that sign agents' tokens, in `platform/keys`: `next`, then `active`, then `retiring`, or `revoked` at any time.
//!
//! One key signs. The next one is known to whoever checks before it signs anything, and the last one is accepted for as
//! long as tokens of it may live. What is private of a key is here only encrypted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Context, Decider};
use crate::api::{Problem, ProblemKind};
use crate::id::EntityKind;

#[cfg(test)]
mod tests;

/// The id of the one entity.
pub const ID: &str = "keys";
/// Keys that may retire at the same time: whoever checks tokens knows them all.
pub const RETIRING_MAX: usize = 16;
/// Keys that are remembered after they were accepted for the last time.
pub const ENDED_MAX: usize = 100;

crate::domain_events! {
    /// What happens to keys.
    pub enum Event {
        "agent_issuer_named" v 1 => IssuerNamed,
        "agent_key_made" v 1 => Made,
        "agent_key_activated" v 1 => Activated,
        "agent_key_retired" v 1 => Retired,
        "agent_key_revoked" v 1 => Revoked,
    }
}

/// The deployment has a name, which stands in each of its agents' tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerNamed {
    /// The name: a URN.
    pub issuer: String,
}

/// There is a new key. It will be the next that signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its thumbprint (RFC 7638).
    pub key: String,
    /// Its public half: `x` of RFC 8037.
    pub public: String,
    /// Its secret half, encrypted by the master key of the data directory, in base64url.
    pub sealed: String,
}

/// A key signs from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activated {
    /// The key.
    pub key: String,
    /// Since when, in milliseconds since 1970.
    pub at_ms: i64,
}

/// A key signs no longer, and is accepted for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The key.
    pub key: String,
    /// Until when it is accepted, in milliseconds since 1970.
    pub until_ms: i64,
    /// Why another one took its place.
    pub reason: String,
}

/// A key is not accepted any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The key.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin with these keys; of those that there were, the one that signed retires and the next one is revoked.
    Begin {
        /// The deployment's name, if it has none yet.
        issuer: String,
        /// The key to sign with.
        active: Made,
        /// The key after it.
        next: Made,
    },
    /// Have the next key sign.
    Rotate {
        /// The key after that one.
        next: Made,
        /// Why.
        reason: String,
    },
    /// Accept a key no longer, at once.
    Revoke {
        /// The key.
        key: String,
        /// Why.
        reason: String,
        /// A key in place of the one that is then missing.
        next: Made,
    },
}

/// Why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// There is no such key.
    #[error("there is no key `{key}` that signs agents' tokens")]
    NoKey {
        /// The id.
        key: String,
    },
    /// There are no keys yet.
    #[error("there are no keys yet; they are made when the platform starts")]
    NotBegun,
    /// Too many keys are accepted.
    #[error("{RETIRING_MAX} keys retire at once; wait until some of them have ended, or revoke them")]
    Full,
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection {
            Rejection::NoKey { .. } => ProblemKind::NotFound,
            Rejection::NotBegun => ProblemKind::Unavailable,
            Rejection::Full => ProblemKind::Conflict,
        };
        Self::new(kind, rejection.to_string())
    }
}

/// How far a key has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It will sign after the one that does.
    Next,
    /// It signs.
    Active {
        /// Since when, in milliseconds since 1970.
        since_ms: i64,
    },
    /// It is accepted for a while.
    Retiring {
        /// Until when, in milliseconds since 1970.
        until_ms: i64,
    },
    /// It is not accepted.
    Revoked {
        /// Why.
        reason: String,
    },
}

/// A key as its events left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// How it was made.
    pub made: Made,
    /// How far it has come.
    pub stage: Stage,
}

impl Key {
    /// Whether tokens of it are accepted at this time.
    pub fn is_accepted(&self, now_ms: i64) -> bool {
        match self.stage {
            Stage::Next | Stage::Active { .. } => true,
            Stage::Retiring { until_ms } => now_ms < until_ms,
            Stage::Revoked { .. } => false,
        }
    }
}

/// The keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The deployment's name.
    pub issuer: String,
    /// The keys by their thumbprints.
    pub keys: BTreeMap<String, Key>,
    /// Those that retired or were revoked, the oldest first.
    ended: Vec<String>,
}

impl State {
    /// The key that signs.
    pub fn active(&self) -> Option<&Key> {
        self.keys.values().find(|key| matches!(key.stage, Stage::Active { .. }))
    }

    /// The key after it.
    pub fn next(&self) -> Option<&Key> {
        self.keys.values().find(|key| key.stage == Stage::Next)
    }

    fn set(&mut self, key: &str, stage: Stage) {
        let Some(found) = self.keys.get_mut(key) else { return };
        if matches!(stage, Stage::Retiring { .. } | Stage::Revoked { .. })
            && !self.ended.iter().any(|ended| ended == key)
        {
            self.ended.push(key.to_owned());
        }
        found.stage = stage;
        // Rotations cannot come as fast as to push one out that is still accepted: see `RETIRING_MAX`.
        while self.ended.len() > ENDED_MAX {
            let oldest = self.ended.remove(0);
            self.keys.remove(&oldest);
        }
    }

    fn rotated(&self, next: &Made, reason: &str, now_ms: i64) -> Result<Vec<Event>, Rejection> {
        let (Some(active), Some(following)) = (self.active(), self.next()) else {
            return Err(Rejection::NotBegun);
        };
        let retiring = |key: &&Key| matches!(key.stage, Stage::Retiring { .. }) && key.is_accepted(now_ms);
        if self.keys.values().filter(retiring).count() >= RETIRING_MAX {
            return Err(Rejection::Full);
        }
        Ok(vec![
            activated(&following.made.key, now_ms),
            retired(&active.made.key, reason, now_ms),
            next.clone().into(),
        ])
    }

    fn revoked(&self, key: &str, reason: &str, next: &Made, now_ms: i64) -> Result<Vec<Event>, Rejection> {
        let known = self.keys.get(key).ok_or_else(|| Rejection::NoKey { key: key.to_owned() })?;
        let revoked = Revoked { key: key.to_owned(), reason: reason.to_owned() }.into();
        match (&known.stage, self.next()) {
            (Stage::Revoked { .. }, _) => Ok(Vec::new()),
            (Stage::Retiring { .. }, _) => Ok(vec![revoked]),
            (Stage::Next, _) => Ok(vec![revoked, next.clone().into()]),
            (Stage::Active { .. }, Some(following)) => {
                Ok(vec![activated(&following.made.key, now_ms), revoked, next.clone().into()])
            }
            (Stage::Active { .. }, None) => Err(Rejection::NotBegun),
        }
    }

    fn begun(&self, issuer: &str, active: &Made, next: &Made, now_ms: i64) -> Vec<Event> {
        let named = self.issuer.is_empty().then(|| IssuerNamed { issuer: issuer.to_owned() }.into());
        const LOST: &str = "the master key that encrypts it is not here";
        let retired = self.active().map(|key| retired(&key.made.key, LOST, now_ms));
        let unused =
            self.next().map(|key| Revoked { key: key.made.key.clone(), reason: LOST.to_owned() }.into());
        let made = [active.clone().into(), activated(&active.key, now_ms), next.clone().into()];
        named.into_iter().chain(retired).chain(unused).chain(made).collect()
    }
}

/// How long a key is accepted after it signed for the last time, in milliseconds: as long as a token lives, and a minute.
pub const RETIRING_MS: i64 = 660_000;

fn activated(key: &str, now_ms: i64) -> Event {
    Activated { key: key.to_owned(), at_ms: now_ms }.into()
}

fn retired(key: &str, reason: &str, now_ms: i64) -> Event {
    let until_ms = now_ms.saturating_add(RETIRING_MS);
    Retired { key: key.to_owned(), until_ms, reason: reason.to_owned() }.into()
}

/// The entity.
pub struct Keys;

impl Decider for Keys {
    const KIND: EntityKind = EntityKind::Platform;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = ();
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
        let now_ms = context.now.millis();
        match command {
            Command::Begin { issuer, active, next } => Ok(state.begun(issuer, active, next, now_ms)),
            Command::Rotate { next, reason } => state.rotated(next, reason, now_ms),
            Command::Revoke { key, reason, next } => state.revoked(key, reason, next, now_ms),
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::IssuerNamed(named) => state.issuer.clone_from(&named.issuer),
            Event::Made(made) => {
                let key = Key { made: made.clone(), stage: Stage::Next };
                state.keys.insert(made.key.clone(), key);
            }
            Event::Activated(activated) => {
                state.set(&activated.key, Stage::Active { since_ms: activated.at_ms });
            }
            Event::Retired(retired) => {
                state.set(&retired.key, Stage::Retiring { until_ms: retired.until_ms })
            }
            Event::Revoked(revoked) => {
                state.set(&revoked.key, Stage::Revoked { reason: revoked.reason.clone() });
            }
        }
        state
    }

    fn obligations(_: &State) -> Vec<()> {
        Vec::new()
    }
}
