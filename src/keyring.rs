//! The keys that sign agents' tokens: read from the log, opened with the master key, rotated and revoked.
//!
//! Every node folds `platform/keys`. A change that is made here holds at once, one that another node made within a second,
//! and the agents get new tokens over the links that are up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::api::{Caller, Problem, ProblemKind, Reply};
use events::domain::keys::{Command, ID, Key, Keys, Made, Stage, State};
use events::domain::{Context, Decider as _};
use events::seal;
use events::store::AppendError;
use events::{Digest, EntityKind, EventStore, Position, Principal, Tenant, Timestamp, Version};
use gateway::Gateway;
use identity::{AgentKeys, KeySet, PublicKey, SigningKey};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::known::{Folded, Known};

/// How often a change is decided anew because somebody else made one.
const TRIES_MAX: usize = 8;
/// How often it is looked whether another node changed the keys.
const LOOK: Duration = Duration::from_secs(1);
/// How long a key signs before another takes its place by itself: 30 days.
const ACTIVE_MS_MAX: i64 = 30 * 24 * 3_600_000;

/// What is to be changed.
#[derive(Clone, Debug)]
pub(crate) enum KeyChange {
    /// Have the next key sign.
    Rotate { reason: String },
    /// The same, if the one that signs is old.
    RotateOld,
    /// Accept a key no longer.
    Revoke { key: String, reason: String },
}

/// The keys of this platform.
pub struct Keyring {
    known: Known<Keys>,
    wrapping: seal::Keys,
    keys: Arc<AgentKeys>,
    /// The version of the stream whose keys are in use.
    used: Mutex<Version>,
    changed: Notify,
}

/// What a key's secret half is encrypted for.
fn purpose(key: &str) -> String {
    format!("agent key {key}")
}

fn system() -> Caller {
    Caller {
        tenant: Tenant::default(),
        principal: Principal::system("keyring"),
        idempotency_key: None,
        traceparent: None,
    }
}

impl Keyring {
    /// The keys in the log; the first ones are made. Keys that another master key encrypted are replaced, unless another node
    /// that `shares` the log is running, and signs with them.
    ///
    /// # Errors
    /// When the log cannot be read or does not take new keys, or when other nodes have another master key.
    pub async fn open(
        store: Arc<dyn EventStore>,
        wrapping: seal::Keys,
        shares: bool,
    ) -> Result<Arc<Self>, Problem> {
        let keyring = Self {
            known: Known::new(store, ID),
            wrapping,
            keys: Arc::default(),
            used: Mutex::default(),
            changed: Notify::new(),
        };
        let state = keyring.known.refreshed().await?;
        let lacks = state.active().is_none_or(|key| keyring.opened(key).is_none());
        if lacks && shares && state.active().is_some() {
            let detail = "the keys of agents' tokens are encrypted by another master key; give this node the one of the nodes that share the log, as `master_key_file`";
            return Err(Problem::new(ProblemKind::Unavailable, detail));
        }
        if lacks {
            let issuer = format!("urn:uuid:{}", Uuid::now_v7());
            let begin =
                || Command::Begin { issuer: issuer.clone(), active: keyring.made(), next: keyring.made() };
            let has_begun = |state: &State| state.active().is_some_and(|key| keyring.opened(key).is_some());
            keyring.decide(&system(), Digest::of(b"begin"), |state| (!has_begun(state)).then(begin)).await?;
        }
        keyring.look().await?;
        Ok(Arc::new(keyring))
    }

    /// What makes tokens with these keys, and checks them.
    pub fn agent_keys(&self) -> &Arc<AgentKeys> {
        &self.keys
    }

    /// The keys that there are.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) async fn state(&self) -> Result<Arc<State>, Problem> {
        self.known.refreshed().await
    }

    /// Carries out a change.
    ///
    /// # Errors
    /// When it is refused or does not become durable.
    pub(crate) async fn change(&self, caller: &Caller, change: &KeyChange) -> Result<Reply, Problem> {
        let digest = Digest::of(format!("{change:?}").as_bytes());
        let command = |state: &State| {
            let next = || self.made();
            Some(match change {
                KeyChange::Rotate { reason } => Command::Rotate { next: next(), reason: reason.clone() },
                KeyChange::RotateOld if !is_old(state) => return None,
                KeyChange::RotateOld => {
                    Command::Rotate { next: next(), reason: "it has signed for 30 days".to_owned() }
                }
                KeyChange::Revoke { key, reason } => {
                    Command::Revoke { key: key.clone(), reason: reason.clone(), next: next() }
                }
            })
        };
        let position = self.decide(caller, digest, command).await?;
        self.look().await?;
        let state = self.known.current().await?;
        let name = |key: Option<&Key>| key.map(|key| key.made.key.clone());
        let body = json!({ "active": name(state.active()), "next": name(state.next()) });
        Ok(Reply { kind: EntityKind::Platform, id: ID.to_owned(), position, body })
    }

    /// Follows changes for as long as the platform runs: agents get new tokens, and a key that is old is replaced.
    pub(crate) async fn follow(self: Arc<Self>, gateway: Gateway) {
        loop {
            tokio::select! {
                () = self.changed.notified() => gateway.renew_tokens(),
                () = tokio::time::sleep(LOOK) => {
                    if let Err(problem) = self.keep_up().await {
                        tracing::warn!(%problem, "it cannot be seen whether the keys of agents' tokens have changed");
                    }
                }
            }
        }
    }

    async fn keep_up(&self) -> Result<(), Problem> {
        self.look().await?;
        if is_old(&*self.known.current().await?) {
            self.change(&system(), &KeyChange::RotateOld).await?;
        }
        Ok(())
    }

    /// Decides and appends, again where somebody else was faster; `None` where nothing is to be done any more.
    async fn decide(
        &self,
        caller: &Caller,
        digest: Digest,
        command: impl Fn(&State) -> Option<Command>,
    ) -> Result<Position, Problem> {
        for _ in 0..TRIES_MAX {
            let folded = self.known.folded().await?;
            let context = Context { now: Timestamp::now(), seed: 0 };
            let events = match command(&folded.state) {
                Some(command) => Keys::decide(&folded.state, &command, &context)?,
                None => Vec::new(),
            };
            if events.is_empty() {
                return Ok(self.known.store.head().await?.position);
            }
            match self.known.store.append(self.known.request(caller, digest, &folded, &events)).await {
                Ok(appended) => return Ok(appended.position),
                Err(AppendError::WrongVersion { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::new(ProblemKind::Busy, "the keys are being changed by many at once; try again"))
    }

    /// Uses the keys that the log has now.
    async fn look(&self) -> Result<(), Problem> {
        let Folded { state, version, .. } = self.known.folded().await?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if version <= *used {
            return Ok(());
        }
        let signing = state.active().and_then(|key| self.opened(key));
        if signing.is_none() {
            tracing::error!(
                "the key that signs agents' tokens is encrypted by another master key: no agent can be started here"
            );
        }
        let accepted = state.keys.values().filter_map(|key| {
            let until_ms = match key.stage {
                Stage::Next | Stage::Active { .. } => None,
                Stage::Retiring { until_ms } => Some(until_ms),
                Stage::Revoked { .. } => return None,
            };
            let public = PublicKey::parse(&key.made.public).ok()?;
            Some((public, until_ms.map(|until_ms| u64::try_from(until_ms / 1_000).unwrap_or_default())))
        });
        let accepted = accepted.collect();
        self.keys.set(KeySet { issuer: state.issuer.clone(), signing: signing.map(Arc::new), accepted });
        *used = version;
        self.changed.notify_one();
        Ok(())
    }

    /// A new key, its secret half encrypted.
    fn made(&self) -> Made {
        let key = SigningKey::generate();
        let (kid, public) = (key.public().kid().to_string(), key.public().x());
        let sealed = self.wrapping.wrap_own(&purpose(&kid), &*key.seed());
        Made { key: kid, public, sealed }
    }

    /// A key with its secret half, if our master key encrypted it.
    fn opened(&self, key: &Key) -> Option<SigningKey> {
        let seed = Zeroizing::new(self.wrapping.unwrap_own(&purpose(&key.made.key), &key.made.sealed)?);
        let key = SigningKey::from_seed(seed[..].try_into().ok()?);
        Some(key)
    }
}

fn is_old(state: &State) -> bool {
    let now_ms = Timestamp::now().millis();
    let since = |key: &Key| match key.stage {
        Stage::Active { since_ms } => Some(since_ms),
        _ => None,
    };
    state.active().and_then(since).is_some_and(|since_ms| now_ms.saturating_sub(since_ms) > ACTIVE_MS_MAX)
}

#[cfg(test)]
mod tests;
