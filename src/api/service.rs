//! From a request to its answer, for every door.

use std::sync::Arc;
use std::time::Duration;

use events::EventStore;
use events::api::{Caller, Commands, Problem, ProblemKind, Reply};

use super::answer::Done;
use super::caller::{Headers, caller};
use super::denials::Denials;
use super::input::Request;
use super::operation::{Deed, Operation, Pace};
use super::problem::Refusal;
use super::token::Token;
use crate::erasure::Eraser;

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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_ms: 30_000,
            long_request_ms: 300_000,
            body_bytes_max: 2 * 1024 * 1024,
            key_bytes_max: 128,
        }
    }
}

impl From<&crate::config::Config> for Limits {
    fn from(config: &crate::config::Config) -> Self {
        Self {
            request_ms: config.request_ms,
            long_request_ms: config.request_ms.saturating_mul(10),
            body_bytes_max: config.body_bytes_max,
            ..Self::default()
        }
    }
}

/// What stands behind every door.
pub struct Service {
    commands: Arc<dyn Commands>,
    store: Arc<dyn EventStore>,
    token: Token,
    limits: Limits,
    denials: Denials,
    eraser: Option<Arc<Eraser>>,
}

impl Service {
    /// A service that has commands carried out here, for who shows this token.
    pub fn new(
        commands: Arc<dyn Commands>,
        store: Arc<dyn EventStore>,
        token: Token,
        limits: Limits,
    ) -> Self {
        Self { commands, store, token, limits, denials: Denials::default(), eraser: None }
    }

    /// The same, which can erase.
    #[must_use]
    pub fn with_eraser(self, eraser: Arc<Eraser>) -> Self {
        Self { eraser: Some(eraser), ..self }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn store(&self) -> &dyn EventStore {
        &*self.store
    }

    /// Who asks, by these headers, if they may do what needs the permission.
    ///
    /// There is one token so far, an administrator's, who may do everything. Who is turned away is recorded.
    pub(crate) fn admit(&self, headers: &dyn Headers, permission: &'static str) -> Result<Caller, Refusal> {
        let principal = self.token.authenticate(headers);
        let principal = principal.inspect_err(|problem| {
            self.denials.record(&self.store, permission, &problem.detail);
        })?;
        caller(headers, principal, self.limits.key_bytes_max)
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
        caller: Caller,
        request: Request,
    ) -> Result<Done, Refusal> {
        let input = request.read(operation.takes_yaml)?;
        let reply = match (operation.make)(self, &caller, input).await? {
            Deed::Command(command) => {
                let commands = Arc::clone(&self.commands);
                to_its_end(async move { commands.execute(&caller, command).await }).await?
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
