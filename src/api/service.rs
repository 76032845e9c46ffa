//! From a request to its answer, for every door.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use events::api::{Caller, Commands, Problem, ProblemKind, Reply};
use events::{EventStore, Position, Principal, Tenant};
use identity::{Level, Scope, Sight, is_permitted, level_of, sight};

use super::answer::Done;
use super::caller::{Headers, Shown, place};
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
    /// What the request is about: the tenant, or the whole platform where none was named.
    pub(crate) at: Scope,
    /// With what of the tenant they may do what they ask for.
    pub(crate) sight: Sight,
}

/// What somebody lacks who is denied a permission.
fn lacking(identity: &Identity, permission: &str, tenant: &Tenant, at: &Scope) -> String {
    let principal = &identity.principal;
    let grants: Vec<String> = identity.grants.iter().map(ToString::to_string).collect();
    let place = match (at, level_of(permission)) {
        (Scope::Platform, _) => String::new(),
        (_, Level::Platform) => ", which is of the whole platform".to_owned(),
        _ => format!(" in the tenant `{tenant}`"),
    };
    match grants.is_empty() {
        true => format!("{principal} may not do `{permission}`{place}: no role is granted to it"),
        false => {
            format!(
                "{principal} may not do `{permission}`{place}: it is not permitted to {}",
                grants.join(", ")
            )
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
    rates: Rates<(Principal, Option<Tenant>)>,
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

    async fn admitted(&self, mut shown: Shown, permission: &'static str) -> Result<Admitted, Refusal> {
        let identity = self.identify(&shown).await.inspect_err(|problem| {
            if problem.kind == ProblemKind::Busy {
                self.limited.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(problem.kind, ProblemKind::Unauthenticated | ProblemKind::Busy) {
                self.denials.of_stranger(&self.store, permission, &problem.detail);
            }
        })?;
        let (tenant, at) = place(shown.tenant.take().transpose()?, &identity);
        // What somebody asks in one tenant does not count in another; a tenant of which they are not is not told apart.
        let rated = (identity.principal.clone(), identity.is_of(&tenant).then(|| tenant.clone()));
        let caller = shown.caller(&identity, tenant)?;
        // Whoever asks too much may still pull the kill switch.
        if !permission.ends_with(":kill") && !self.rates.take(&rated, Instant::now()) {
            return Err(self.too_many(&caller, &identity, permission).await.into());
        }
        let sight = sight(&identity.grants, permission, &caller.tenant);
        if sight == Sight::Nothing {
            let reason = lacking(&identity, permission, &caller.tenant, &at);
            return Err(self.denied(&caller, &identity, permission, reason).await.into());
        }
        Ok(Admitted { caller, identity, at, sight })
    }

    async fn identify(&self, shown: &Shown) -> Result<Identity, Problem> {
        let bearer = shown.bearer.as_ref().map_err(Problem::clone)?;
        self.access.identify(bearer).await
    }

    /// With what of the tenant somebody who was let in some time ago may still do what needs the permission.
    pub(crate) async fn still_sees(&self, identity: &Identity, permission: &str, tenant: &Tenant) -> Sight {
        let now = self.access.renewed(identity).await;
        now.map_or(Sight::Nothing, |now| sight(&now.grants, permission, tenant))
    }

    /// Whether somebody who was let in some time ago may still do with the whole platform what needs the permission.
    pub(crate) async fn still_sees_all(&self, identity: &Identity, permission: &str) -> bool {
        let now = self.access.renewed(identity).await;
        now.is_ok_and(|now| is_permitted(&now.grants, permission, &Scope::Platform))
    }

    /// Refuses what needs the permission to whoever has it not in the whole platform.
    pub(crate) async fn check_whole(
        &self,
        admitted: &Admitted,
        permission: &'static str,
    ) -> Result<(), Problem> {
        let Admitted { caller, identity, .. } = admitted;
        if is_permitted(&identity.grants, permission, &Scope::Platform) {
            return Ok(());
        }
        let reason = lacking(identity, permission, &caller.tenant, &admitted.at);
        Err(self.denied(caller, identity, permission, reason).await)
    }

    /// A denial that was recorded: where, it says.
    async fn denied(
        &self,
        caller: &Caller,
        identity: &Identity,
        permission: &'static str,
        reason: String,
    ) -> Problem {
        let position = self.record_denial(caller, identity, permission, &reason).await;
        let mut problem = Problem::new(ProblemKind::Denied, reason);
        problem.position = position;
        problem
    }

    /// Records a denial where it belongs: who is of another tenant writes nothing into the one that they asked about.
    async fn record_denial(
        &self,
        caller: &Caller,
        identity: &Identity,
        permission: &'static str,
        reason: &str,
    ) -> Option<Position> {
        let is_theirs =
            identity.is_of(&caller.tenant) || identity.grants.iter().any(|grant| grant.scope.is_platform());
        let home = || identity.only_tenant().cloned().unwrap_or_default();
        let tenant = if is_theirs { caller.tenant.clone() } else { home() };
        self.denials.of(&*self.store, &tenant, &identity.principal, permission, reason).await
    }

    /// Somebody asks for more than the platform does for one.
    async fn too_many(&self, caller: &Caller, identity: &Identity, permission: &'static str) -> Problem {
        self.limited.fetch_add(1, Ordering::Relaxed);
        let (principal, most) = (&identity.principal, self.limits.requests_per_second);
        let reason = format!("{principal} asks more than {most} times a second; wait a second");
        let position = self.record_denial(caller, identity, permission, &reason).await;
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
        let (caller, identity) = (admitted.caller.clone(), admitted.identity.clone());
        match self.carry_out(operation, admitted, request).await {
            // Whatever it is that who asks may not do, it is written down.
            Err(refusal) if refusal.problem().kind == ProblemKind::Denied => {
                let reason = refusal.problem().detail.clone();
                Err(self.denied(&caller, &identity, operation.permission, reason).await.into())
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
        let deed = (operation.make)(self, &admitted, input).await?;
        let reply = match deed {
            Deed::Command(command) => {
                self.check_command(&admitted, &command).await?;
                let caller = admitted.caller;
                let commands = Arc::clone(&self.commands);
                to_its_end(async move { commands.execute(&caller, command).await }).await?
            }
            Deed::Change(change) => {
                let (access, Admitted { caller, identity, at, .. }) = (Arc::clone(&self.access), admitted);
                to_its_end(async move { access.change(&caller, &identity, &at, change).await }).await?
            }
            Deed::Key(change) => {
                let keyring = Arc::clone(self.keyring()?);
                let caller = admitted.caller;
                to_its_end(async move { keyring.change(&caller, &change).await }).await?
            }
            Deed::Secret(change) => {
                let secrets = Arc::clone(self.secrets()?);
                let caller = admitted.caller;
                to_its_end(async move { secrets.change(&caller, &change).await }).await?
            }
            Deed::Erase(erasure) => {
                let eraser = self.eraser.clone().ok_or_else(|| {
                    Problem::new(ProblemKind::Unavailable, "this platform keeps no keys of data subjects")
                })?;
                let caller = admitted.caller;
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
