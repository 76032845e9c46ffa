//! From a request to its answer, for every door.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use events::api::{Caller, Commands, Problem, ProblemKind, Reply};
use events::{EventStore, Principal};
use identity::{Role, is_permitted};

use super::answer::Done;
use super::caller::{Headers, Shown};
use super::denials::Denials;
use super::input::Request;
use super::operation::{Deed, Operation, Pace};
use super::problem::Refusal;
use super::rates::Rates;
use super::token::Token;
use crate::access::{Access, Identity};
use crate::erasure::Eraser;
use crate::issuers::Issuers;
use crate::keyring::Keyring;
use crate::secrets::Stored;

/// The bounds of requests, at every door.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a request may take, in milliseconds.
    pub request_ms: u64,
    /// How long assembling a crew or moving an artifact may take, in milliseconds.
    pub long_request_ms: u64,
    /// Largest body that is not an artifact, in bytes.
    pub body_bytes_max: usize,
    /// Longest idempotency key, in bytes.
    pub key_bytes_max: usize,
    /// Requests of one principal in a second; twice as many at once.
    pub requests_per_second: u32,
    /// Requests in a second by tokens that are not known; twice as many at once. What is more is not looked at.
    pub strangers_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_ms: 30_000,
            long_request_ms: 300_000,
            body_bytes_max: 2 * 1024 * 1024,
            key_bytes_max: 128,
            requests_per_second: 1_000,
            strangers_per_second: 50,
        }
    }
}

impl From<&crate::config::Config> for Limits {
    fn from(config: &crate::config::Config) -> Self {
        Self {
            request_ms: config.request_ms,
            long_request_ms: config.request_ms.saturating_mul(10),
            body_bytes_max: config.body_bytes_max,
            requests_per_second: config.requests_per_second,
            strangers_per_second: config.strangers_per_second,
            ..Self::default()
        }
    }
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    /// As the platform's parts know them.
    pub(crate) caller: Caller,
    /// Who they are, and what to the platform.
    pub(crate) identity: Identity,
}

/// What somebody lacks who is denied a permission.
fn lacking(identity: &Identity, permission: &str) -> String {
    let principal = &identity.principal;
    let roles: Vec<&str> = identity.roles.iter().copied().map(Role::as_str).collect();
    match roles.is_empty() {
        true => format!("{principal} may not do `{permission}`: no role is granted to it"),
        false => {
            format!("{principal} may not do `{permission}`: it is not permitted to {}", roles.join(", "))
        }
    }
}

/// What stands behind every door.
pub struct Service {
    commands: Arc<dyn Commands>,
    store: Arc<dyn EventStore>,
    access: Arc<Access>,
    limits: Limits,
    denials: Denials,
    rates: Rates<Principal>,
    limited: AtomicU64,
    eraser: Option<Arc<Eraser>>,
    keyring: Option<Arc<Keyring>>,
    secrets: Option<Arc<Stored>>,
}

impl Service {
    /// A service that has commands carried out here, for who shows this token or one of those in the log.
    pub fn new(
        commands: Arc<dyn Commands>,
        store: Arc<dyn EventStore>,
        token: Token,
        limits: Limits,
    ) -> Self {
        let access = Arc::new(Access::new(Arc::clone(&store), token, limits.strangers_per_second));
        let rates = Rates::new(limits.requests_per_second);
        Self {
            commands,
            store,
            access,
            limits,
            denials: Denials::default(),
            rates,
            limited: AtomicU64::new(0),
            eraser: None,
            keyring: None,
            secrets: None,
        }
    }

    /// The same, which lets those in as well whom these issuers know.
    #[must_use]
    pub fn with_issuers(self, issuers: Issuers) -> Self {
        let access = Arc::into_inner(self.access).expect("nobody else has it before the service is up");
        Self { access: Arc::new(access.with_issuers(issuers)), ..self }
    }

    /// The same, which can erase.
    #[must_use]
    pub fn with_eraser(self, eraser: Arc<Eraser>) -> Self {
        Self { eraser: Some(eraser), ..self }
    }

    /// The same, which can change the keys that sign agents' tokens.
    #[must_use]
    pub fn with_keyring(self, keyring: Arc<Keyring>) -> Self {
        Self { keyring: Some(keyring), ..self }
    }

    /// The same, which keeps secrets.
    #[must_use]
    pub fn with_secrets(self, secrets: Arc<Stored>) -> Self {
        Self { secrets: Some(secrets), ..self }
    }

    /// The secrets that tenants have stored.
    ///
    /// # Errors
    /// Where none are kept.
    pub(crate) fn secrets(&self) -> Result<&Arc<Stored>, Problem> {
        let none = || Problem::new(ProblemKind::Unavailable, "this platform keeps no secrets");
        self.secrets.as_ref().ok_or_else(none)
    }

    /// The keys that sign agents' tokens.
    ///
    /// # Errors
    /// Where there are none.
    pub(crate) fn keyring(&self) -> Result<&Arc<Keyring>, Problem> {
        let none = || Problem::new(ProblemKind::Unavailable, "this platform has no keys for agents' tokens");
        self.keyring.as_ref().ok_or_else(none)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn store(&self) -> &dyn EventStore {
        &*self.store
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Who asks, by these headers, if they may do what needs the permission. Who is turned away is recorded.
    pub(crate) fn admit(
        &self,
        headers: &dyn Headers,
        permission: &'static str,
    ) -> impl Future<Output = Result<Admitted, Refusal>> + Send + use<'_> {
        // Headers are not kept while others are waited for.
        self.admitted(Shown::by(headers, self.limits.key_bytes_max), permission)
    }

    async fn admitted(&self, shown: Shown, permission: &'static str) -> Result<Admitted, Refusal> {
        let identity = self.identify(&shown).await.inspect_err(|problem| {
            if problem.kind == ProblemKind::Busy {
                self.limited.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(problem.kind, ProblemKind::Unauthenticated | ProblemKind::Busy) {
                self.denials.of_stranger(&self.store, permission, &problem.detail);
            }
        })?;
        // Whoever asks too much may still pull the kill switch.
        if !permission.ends_with(":kill") && !self.rates.take(&identity.principal, Instant::now()) {
            return Err(self.too_many(&identity, permission).await.into());
        }
        if !is_permitted(&identity.roles, permission) {
            return Err(self.denied(&identity, permission, lacking(&identity, permission)).await.into());
        }
        Ok(Admitted { caller: shown.caller(identity.principal.clone())?, identity })
    }

    async fn identify(&self, shown: &Shown) -> Result<Identity, Problem> {
        let bearer = shown.bearer.as_ref().map_err(Problem::clone)?;
        self.access.identify(bearer).await
    }

    /// Whether somebody who was let in some time ago may still do what needs the permission.
    pub(crate) async fn still_may(&self, identity: &Identity, permission: &str) -> bool {
        let now = self.access.renewed(identity).await;
        now.is_ok_and(|now| is_permitted(&now.roles, permission))
    }

    /// A denial that was recorded: where, it says.
    async fn denied(&self, identity: &Identity, permission: &'static str, reason: String) -> Problem {
        let position = self.denials.of(&*self.store, &identity.principal, permission, &reason).await;
        let mut problem = Problem::new(ProblemKind::Denied, reason);
        problem.position = position;
        problem
    }

    /// Somebody asks for more than the platform does for one.
    async fn too_many(&self, identity: &Identity, permission: &'static str) -> Problem {
        self.limited.fetch_add(1, Ordering::Relaxed);
        let (principal, most) = (&identity.principal, self.limits.requests_per_second);
        let reason = format!("{principal} asks more than {most} times a second; wait a second");
        let position = self.denials.of(&*self.store, principal, permission, &reason).await;
        Problem { position, ..Problem::new(ProblemKind::Busy, reason) }
    }

    /// Requests that were refused because there were too many.
    pub(crate) fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }

    /// How long an answer may take; `None` for as long as the client listens.
    pub(crate) fn limit(&self, pace: Pace) -> Option<Duration> {
        match pace {
            Pace::Usual => Some(Duration::from_millis(self.limits.request_ms)),
            Pace::Long => Some(Duration::from_millis(self.limits.long_request_ms)),
            Pace::Endless => None,
        }
    }

    /// A refusal for a body that is too large.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), Refusal> {
        let most = self.limits.body_bytes_max;
        if bytes > most { Err(Refusal::too_large(most as u64)) } else { Ok(()) }
    }

    /// Carries out an operation.
    pub(crate) async fn perform(
        &self,
        operation: &Operation,
        admitted: Admitted,
        request: Request,
    ) -> Result<Done, Refusal> {
        let identity = admitted.identity.clone();
        match self.carry_out(operation, admitted, request).await {
            // Whatever it is that who asks may not do, it is written down.
            Err(refusal) if refusal.problem().kind == ProblemKind::Denied => {
                let reason = refusal.problem().detail.clone();
                Err(self.denied(&identity, operation.permission, reason).await.into())
            }
            answer => answer,
        }
    }

    async fn carry_out(
        &self,
        operation: &Operation,
        admitted: Admitted,
        request: Request,
    ) -> Result<Done, Refusal> {
        let input = request.read(operation.takes_yaml)?;
        let Admitted { caller, identity } = admitted;
        let reply = match (operation.make)(self, &caller, input).await? {
            Deed::Command(command) => {
                let commands = Arc::clone(&self.commands);
                to_its_end(async move { commands.execute(&caller, command).await }).await?
            }
            Deed::Change(change) => {
                let access = Arc::clone(&self.access);
                to_its_end(async move { access.change(&caller, &identity, change).await }).await?
            }
            Deed::Key(change) => {
                let keyring = Arc::clone(self.keyring()?);
                to_its_end(async move { keyring.change(&caller, &change).await }).await?
            }
            Deed::Secret(change) => {
                let secrets = Arc::clone(self.secrets()?);
                to_its_end(async move { secrets.change(&caller, &change).await }).await?
            }
            Deed::Erase(erasure) => {
                let eraser = self.eraser.clone().ok_or_else(|| {
                    Problem::new(ProblemKind::Unavailable, "this platform keeps no keys of data subjects")
                })?;
                to_its_end(async move { eraser.erase(&caller, erasure).await }).await?
            }
        };
        Ok(reply.into())
    }
}

/// Carries out what was begun, though whoever asked for it hangs up.
async fn to_its_end(
    deed: impl Future<Output = Result<Reply, Problem>> + Send + 'static,
) -> Result<Reply, Problem> {
    tokio::spawn(deed).await.unwrap_or_else(|error| {
        tracing::error!(%error, "command panicked");
        Err(Problem::new(ProblemKind::Internal, "the command met a fault of the platform; see its log"))
    })
}
