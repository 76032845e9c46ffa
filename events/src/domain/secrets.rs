//! The secrets that a tenant has the platform keep for its agents, in `platform/secrets-<tenant>`.
//!
//! A value is here only encrypted, under a key made for it alone that lies beside the log: when the secret is set anew or
//! deleted, that key is destroyed, and what stays in the log for ever is noise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Context, Decider};
use crate::api::{Problem, ProblemKind};
use crate::id::{EntityKind, KeyId, Tenant};

#[cfg(test)]
mod tests;

/// Names that a tenant may ever have used.
pub const NAMES_MAX: usize = 1_000;
/// Keys that are remembered after the last value that they opened, for whoever has to make sure that they are gone.
pub const ENDED_MAX: usize = 100;

/// The id of a tenant's entity.
pub fn id(tenant: &Tenant) -> String {
    format!("secrets-{tenant}")
}

crate::domain_events! {
    /// What happens to secrets.
    pub enum Event {
        "secret_set" v 1 => Set,
        "secret_deleted" v 1 => Deleted,
    }
}

/// A secret has a new value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Which value this is: 1, 2, 3 …, also after it was deleted.
    pub version: u32,
    /// The key that opens it.
    pub key: KeyId,
    /// The value, encrypted under that key.
    pub sealed: String,
    /// Since when it is so, in milliseconds since 1970.
    pub at_ms: i64,
}

/// A secret has no value any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Its name.
    pub name: String,
    /// The value that it had.
    pub version: u32,
    /// Why.
    pub reason: String,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give a secret a value.
    Set {
        /// Its name.
        name: String,
        /// The key that opens the value.
        key: KeyId,
        /// The value, encrypted for the version after the newest.
        sealed: String,
    },
    /// Take its value from a secret.
    Delete {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// There is no such secret.
    #[error("there is no secret `{name}`; `hypercode secret list` shows those that there are")]
    NoSecret {
        /// The name.
        name: String,
    },
    /// There are too many.
    #[error("{NAMES_MAX} names of secrets have been used; set one of those anew")]
    Full,
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection {
            Rejection::NoSecret { .. } => ProblemKind::NotFound,
            Rejection::Full => ProblemKind::Conflict,
        };
        Self::new(kind, rejection.to_string())
    }
}

/// A value that can be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The key that opens it.
    pub key: KeyId,
    /// The value, encrypted.
    pub text: String,
    /// Since when it is so, in milliseconds since 1970.
    pub at_ms: i64,
}

/// A secret as its events left it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its newest version.
    pub version: u32,
    /// The value of that version, unless it was deleted.
    pub value: Option<Sealed>,
}

/// The secrets of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    secrets: BTreeMap<String, Secret>,
    /// Keys of values that are no more, the oldest first.
    pub ended: Vec<KeyId>,
}

impl State {
    /// The secrets that have a value, by name.
    pub fn kept(&self) -> impl Iterator<Item = (&str, u32, &Sealed)> {
        self.secrets
            .iter()
            .filter_map(|(name, secret)| Some((name.as_str(), secret.version, secret.value.as_ref()?)))
    }

    /// A secret that has a value.
    pub fn find(&self, name: &str) -> Option<(u32, &Sealed)> {
        let secret = self.secrets.get(name)?;
        Some((secret.version, secret.value.as_ref()?))
    }

    /// The version that the next value of a secret will be.
    pub fn next_version(&self, name: &str) -> u32 {
        self.secrets.get(name).map_or(0, |secret| secret.version).saturating_add(1)
    }

    fn end(&mut self, value: Option<Sealed>) {
        self.ended.extend(value.map(|value| value.key));
        let excess = self.ended.len().saturating_sub(ENDED_MAX);
        self.ended.drain(..excess);
    }
}

/// The entity.
pub struct Secrets;

impl Decider for Secrets {
    const KIND: EntityKind = EntityKind::Platform;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = ();
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Set { name, .. }
                if !state.secrets.contains_key(name) && state.secrets.len() >= NAMES_MAX =>
            {
                Err(Rejection::Full)
            }
            Command::Set { name, key, sealed } => Ok(vec![
                Set {
                    name: name.clone(),
                    version: state.next_version(name),
                    key: key.clone(),
                    sealed: sealed.clone(),
                    at_ms: context.now.millis(),
                }
                .into(),
            ]),
            Command::Delete { name, reason } => match state.find(name) {
                Some((version, _)) => {
                    Ok(vec![Deleted { name: name.clone(), version, reason: reason.clone() }.into()])
                }
                None => Err(Rejection::NoSecret { name: name.clone() }),
            },
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::Set(set) => {
                let value = Sealed { key: set.key.clone(), text: set.sealed.clone(), at_ms: set.at_ms };
                let secret = state.secrets.entry(set.name.clone()).or_default();
                secret.version = set.version;
                let before = secret.value.replace(value);
                state.end(before);
            }
            Event::Deleted(deleted) => {
                let before = state.secrets.get_mut(&deleted.name).and_then(|secret| secret.value.take());
                state.end(before);
            }
        }
        state
    }

    fn obligations(_: &State) -> Vec<()> {
        Vec::new()
    }
}
