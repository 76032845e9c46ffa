//! The secrets that tenants have the platform keep: set and deleted, never shown, and given to agents alone.
//!
//! Their values are in the log, each encrypted under a key of its own that lies beside it. When a value is no more, its
//! key is destroyed.

mod command;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use actors::{Resolved, Unresolved};
use events::api::{Caller, Problem, ProblemKind, Reply};
use events::domain::secrets::{self, Command, Secrets, State};
use events::domain::{Context, Decider as _, DomainEvent as _};
use events::seal;
use events::store::AppendError;
use events::{Digest, EntityKind, EventStore, KeyId, Position, Tenant, Timestamp};
use serde_json::json;

use crate::known::Known;

pub(crate) use source::Sources;

/// How often a change is decided anew because somebody else made one.
const TRIES_MAX: usize = 8;

/// What is to be changed.
#[derive(Clone, Debug)]
pub(crate) enum SecretChange {
    /// Give a secret a value.
    Set { name: String, value: link::Secret },
    /// Take its value from a secret.
    Delete { name: String, reason: String },
}

impl SecretChange {
    fn name(&self) -> &str {
        match self {
            Self::Set { name, .. } | Self::Delete { name, .. } => name,
        }
    }
}

/// The secrets of all tenants.
pub struct Stored {
    store: Arc<dyn EventStore>,
    keys: seal::Keys,
    tenants: Mutex<HashMap<Tenant, Arc<Known<Secrets>>>>,
    /// Those whose earlier secrets were looked after since the start.
    tidied: Mutex<HashSet<Tenant>>,
}

/// What a value is encrypted for: no other tenant and no other name opens it.
fn purpose(tenant: &Tenant, name: &str) -> String {
    format!("secret {tenant} {name}")
}

fn unavailable(error: &seal::SealError) -> Problem {
    Problem::new(ProblemKind::Unavailable, format!("failed to {error}"))
}

impl Stored {
    /// The secrets in this log. What a crash kept from being destroyed is destroyed when its tenant's secrets are first
    /// looked at, those of `default` now.
    pub(crate) async fn open(store: Arc<dyn EventStore>, keys: seal::Keys) -> Arc<Self> {
        let stored = Self { store, keys, tenants: Mutex::default(), tidied: Mutex::default() };
        if let Err(problem) = stored.state(&Tenant::default()).await {
            tracing::warn!(%problem, "it cannot be seen whether the keys of earlier secrets are destroyed");
        }
        Arc::new(stored)
    }

    fn of(&self, tenant: &Tenant) -> Arc<Known<Secrets>> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Known::new(Arc::clone(&self.store), &secrets::id(tenant)));
        Arc::clone(tenants.entry(tenant.clone()).or_insert_with(new))
    }

    /// The secrets of a tenant, without their values.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) async fn state(&self, tenant: &Tenant) -> Result<Arc<State>, Problem> {
        let state = self.of(tenant).refreshed().await?;
        let is_first = self.tidied.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone());
        if is_first {
            self.tidy(&state).await;
        }
        Ok(state)
    }

    /// Carries out a change.
    ///
    /// # Errors
    /// When it is refused or does not become durable.
    pub(crate) async fn change(&self, caller: &Caller, change: &SecretChange) -> Result<Reply, Problem> {
        let (name, tenant) = (change.name(), &caller.tenant);
        if let Some(position) = self.deleted_before(caller, change).await? {
            return Ok(self.reply(tenant, name, position));
        }
        let (command, digest) = match change {
            SecretChange::Set { value, .. } => {
                let sealed = self.keys.seal_alone(&purpose(tenant, name), value.expose().as_bytes()).await;
                let (key, sealed) = sealed.map_err(|error| unavailable(&error))?;
                // Whoever reads the log must not be able to try values until one fits.
                let content = format!("{} {name} {}", name.len(), value.expose());
                let digest = self.keys.keyed_own("secret set", content.as_bytes());
                (Command::Set { name: name.to_owned(), key, sealed }, digest)
            }
            SecretChange::Delete { reason, .. } => {
                let digest = Digest::of(format!("delete {name} {reason}").as_bytes());
                (Command::Delete { name: name.to_owned(), reason: reason.clone() }, digest)
            }
        };
        let before = self.state(tenant).await?;
        let decided = self.decide(caller, digest, &command).await;
        let after = self.state(tenant).await?;
        if let Command::Set { key, .. } = &command
            && after.find(name).is_none_or(|(_, value)| value.key != *key)
        {
            // It came to nothing, or somebody else was faster by now.
            self.destroy(key).await;
        }
        for key in after.ended.iter().filter(|key| !before.ended.contains(key)) {
            self.destroy(key).await;
        }
        Ok(self.reply(tenant, name, decided?))
    }

    /// Where the same request has deleted the secret before.
    async fn deleted_before(
        &self,
        caller: &Caller,
        change: &SecretChange,
    ) -> Result<Option<Position>, Problem> {
        if caller.idempotency_key.is_none() || matches!(change, SecretChange::Set { .. }) {
            return Ok(None);
        }
        let Some(appended) = self.store.find_command(caller.command_id()).await? else { return Ok(None) };
        let position = appended.position;
        let events = self.store.read(Position(position.0.saturating_sub(1)), 1).await?;
        let is_it = events.first().is_some_and(|event| {
            let decoded = secrets::Event::decode(&event.kind, event.schema, &event.payload);
            event.position == position
                && matches!(decoded, Ok(secrets::Event::Deleted(deleted)) if deleted.name == change.name())
        });
        match is_it {
            true => Ok(Some(position)),
            false => {
                let detail = "the idempotency key was used for something else";
                Err(Problem::new(ProblemKind::KeyConflict, detail))
            }
        }
    }

    fn reply(&self, tenant: &Tenant, name: &str, position: Position) -> Reply {
        let body = json!({ "secret": name });
        Reply { kind: EntityKind::Platform, id: secrets::id(tenant), position, body }
    }

    /// Decides and appends, again where somebody else was faster.
    async fn decide(&self, caller: &Caller, digest: Digest, command: &Command) -> Result<Position, Problem> {
        let known = self.of(&caller.tenant);
        for _ in 0..TRIES_MAX {
            let folded = known.folded().await?;
            let context = Context { now: Timestamp::now(), seed: 0 };
            let events = Secrets::decide(&folded.state, command, &context)?;
            match self.store.append(known.request(caller, digest, &folded, &events)).await {
                Ok(appended) => return Ok(appended.position),
                Err(AppendError::WrongVersion { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::new(ProblemKind::Busy, "secrets are being changed by many at once; try again"))
    }

    /// The value of a secret.
    async fn value(&self, tenant: &Tenant, name: &str) -> Result<Resolved, Unresolved> {
        let state = self.state(tenant).await.map_err(|problem| Unresolved(problem.detail))?;
        let Some((version, sealed)) = state.find(name) else {
            let what = "it has not been set, or was deleted";
            return Err(Unresolved(format!("{what}: give it a value by `hypercode secret set {name}`")));
        };
        let opened = self.keys.open_alone(&sealed.key, &purpose(tenant, name), &sealed.text).await;
        let opened = opened.map_err(|error| Unresolved(format!("failed to {error}")))?;
        let value = opened.and_then(|value| String::from_utf8(value).ok()).ok_or_else(|| {
            let what = "the key that opens it is not there any more";
            Unresolved(format!("{what}: restore `keys.db`, or set it anew by `hypercode secret set {name}`"))
        })?;
        Ok(Resolved { value: link::Secret::new(value), version: Some(version) })
    }

    /// Destroys the keys of values that are no more.
    async fn tidy(&self, state: &State) {
        for key in &state.ended {
            match self.keys.has(key).await {
                Ok(true) => self.destroy(key).await,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "it cannot be seen whether an earlier secret's key is destroyed")
                }
            }
        }
    }

    /// What cannot be destroyed now is by the next start.
    async fn destroy(&self, key: &KeyId) {
        if let Err(error) = self.keys.destroy(key).await {
            tracing::error!(%key, %error, "the key of an earlier secret is not destroyed yet");
        }
    }
}
