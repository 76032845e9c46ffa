//! Who may come in, and who may do what: one decision for every door.
//!
//! The tokens and roles of the log are kept in memory, and read on at most a second after they changed on another
//! node; what is changed here holds at once. The administrator's token of the data directory needs no log: it opens
//! when nothing else does.

mod change;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::api::{Problem, ProblemKind};
use events::domain::access::{self, Held, State, Token as Kept, TokenMinted};
use events::{EventStore, Principal, Tenant, Timestamp};
use identity::{ApiToken, Grant, Role, TokenId, is_signed_token};
use tokio::sync::Semaphore;

use crate::api::{Rates, Token};
use crate::issuers::{Issuers, Outsider};
use crate::known::Known;
pub(crate) use change::Change;

/// Tokens that are verified at a time; each takes some milliseconds of a processor and 7 MiB.
const VERIFICATIONS_MAX: usize = 2;
/// How long a token waits to be verified.
const VERIFICATION_WAIT: Duration = Duration::from_secs(5);
/// Tokens that are remembered as verified.
const VERIFIED_MAX: usize = 10_000;

/// Somebody who was recognised.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Who.
    pub(crate) principal: Principal,
    /// What they are to the platform and where, by this token.
    pub(crate) grants: Vec<Grant>,
    /// The token, unless it is the administrator's of the data directory, or an outside issuer's.
    pub(crate) token: Option<TokenId>,
    /// The roles that an outside issuer's groups give.
    pub(crate) mapped: Vec<Grant>,
    /// When the token ends.
    pub(crate) expires_at: Option<Timestamp>,
}

impl Identity {
    /// The only tenant that their roles name, if they name one and no other.
    pub(crate) fn only_tenant(&self) -> Option<&Tenant> {
        let mut tenants = self.grants.iter().filter_map(|grant| grant.scope.tenant());
        let first = tenants.next()?;
        tenants.all(|tenant| tenant == first).then_some(first)
    }

    /// Whether they have a role that names this tenant.
    pub(crate) fn is_of(&self, tenant: &Tenant) -> bool {
        self.grants.iter().any(|grant| grant.scope.tenant() == Some(tenant))
    }
}

/// What is known of tokens and roles.
pub(crate) struct Access {
    admin: Token,
    known: Known<access::Access>,
    issuers: Option<Issuers>,
    verified: Mutex<HashMap<TokenId, [u8; 32]>>,
    verifications: Arc<Semaphore>,
    /// What strangers have asked, all of them together.
    strangers: Rates<()>,
}

impl Access {
    /// Access by the administrator's token and by those in the log; so many strangers are looked at in a second.
    pub(crate) fn new(store: Arc<dyn EventStore>, admin: Token, strangers_per_second: u32) -> Self {
        Self {
            admin,
            known: Known::new(store, access::ID),
            issuers: None,
            verified: Mutex::default(),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            strangers: Rates::new(strangers_per_second),
        }
    }

    /// The same, and by tokens of these issuers.
    pub(crate) fn with_issuers(self, issuers: Issuers) -> Self {
        Self { issuers: Some(issuers), ..self }
    }

    /// Who shows this bearer token.
    ///
    /// # Errors
    /// `unauthenticated` for a token that is not known, has ended or was revoked; `busy` for one that is new while too many
    /// strangers ask: looking at a token takes its time.
    pub(crate) async fn identify(&self, shown: &str) -> Result<Identity, Problem> {
        let identity = self.recognise(shown).await;
        if identity.as_ref().is_err_and(|problem| problem.kind == ProblemKind::Unauthenticated) {
            self.strangers.take(&(), Instant::now());
        }
        identity
    }

    fn look_at_strangers(&self) -> Result<(), Problem> {
        match self.strangers.admits(&(), Instant::now()) {
            true => Ok(()),
            false => Err(Problem::new(
                ProblemKind::Busy,
                "too many tokens that are not known were shown just now; wait a second",
            )),
        }
    }

    async fn recognise(&self, shown: &str) -> Result<Identity, Problem> {
        if !ApiToken::is_meant(shown) {
            return match &self.issuers {
                _ if self.admin.is(shown) => Ok(administrator()),
                Some(issuers) if is_signed_token(shown) => {
                    self.look_at_strangers()?;
                    self.outsider(issuers.identify(shown).await?).await
                }
                _ => Err(stranger(
                    "the token is not one of this platform; is it from another data directory? The administrator's token opens only the node that made it: `hypercode token mint` makes tokens for all",
                )),
            };
        }
        let token = ApiToken::parse(shown).map_err(|error| stranger(&error.to_string()))?;
        let state = self.known.current().await?;
        let known = state.tokens.get(token.id().as_str());
        // What differs is not told apart: a stranger learns nothing of which tokens there are.
        let refused = || stranger("the token is not known, has ended or was revoked");
        let known = known.filter(|known| known.is_live(Timestamp::now().millis())).ok_or_else(refused)?;
        if !self.is_genuine(&token, &known.minted.hash).await? {
            return Err(refused());
        }
        Ok(holder_of(&state, token.id(), known))
    }

    async fn outsider(&self, known: Outsider) -> Result<Identity, Problem> {
        let Outsider { principal, grants, expires_at } = known;
        let identity = Identity {
            principal,
            grants: Vec::new(),
            token: None,
            mapped: grants,
            expires_at: Some(expires_at),
        };
        as_of(&identity, &*self.known.current().await?)
    }

    /// The same somebody as they are by now, for whoever stays longer than one request.
    ///
    /// # Errors
    /// `unauthenticated` once the token has ended or was revoked.
    pub(crate) async fn renewed(&self, was: &Identity) -> Result<Identity, Problem> {
        as_of(was, &*self.known.current().await?)
    }

    /// The tokens and roles that there are.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) async fn state(&self) -> Result<Arc<State>, Problem> {
        self.known.refreshed().await
    }

    /// The tokens and roles that there were.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) async fn state_at(&self, time: Timestamp) -> Result<State, Problem> {
        self.known.at(time).await
    }

    async fn is_genuine(&self, token: &ApiToken, hash: &str) -> Result<bool, Problem> {
        let fingerprint = token.fingerprint();
        if let Some(verified) = self.verified().get(token.id()) {
            return Ok(*verified == fingerprint);
        }
        let busy = || Problem::new(ProblemKind::Busy, "too many tokens are verified at once; try again");
        let permit = Arc::clone(&self.verifications).acquire_owned();
        let permit = tokio::time::timeout(VERIFICATION_WAIT, permit).await.map_err(|_| busy())?;
        // Those before it may have turned out to be strangers.
        self.look_at_strangers()?;
        let (shown, hash) = (token.clone(), hash.to_owned());
        let verified = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            shown.is_of(&hash)
        });
        let is_genuine = verified.await.unwrap_or(false);
        if is_genuine {
            let mut verified = self.verified();
            if verified.len() >= VERIFIED_MAX {
                verified.clear();
            }
            verified.insert(token.id().clone(), fingerprint);
        }
        Ok(is_genuine)
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, HashMap<TokenId, [u8; 32]>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom the token of somebody who was recognised stands for in this state.
fn as_of(was: &Identity, state: &State) -> Result<Identity, Problem> {
    let Some(id) = &was.token else { return without_token(was, state) };
    let known = state.tokens.get(id.as_str()).filter(|known| known.is_live(Timestamp::now().millis()));
    Ok(holder_of(state, id, known.ok_or_else(|| stranger("the token has ended or was revoked"))?))
}

/// The administrator, or somebody whom an outside issuer knows, with the roles of both their groups and their grants.
fn without_token(was: &Identity, state: &State) -> Result<Identity, Problem> {
    let Some(expires_at) = was.expires_at else { return Ok(was.clone()) };
    if expires_at <= Timestamp::now() {
        return Err(stranger("the token has ended"));
    }
    let mut grants: Vec<Grant> = was.mapped.iter().cloned().chain(grants_of(state, &was.principal)).collect();
    grants.sort_unstable();
    grants.dedup();
    Ok(Identity { grants, ..was.clone() })
}

/// Who comes in by a token, with as many of its roles as its holder still has, and no further than its scope.
fn holder_of(state: &State, id: &TokenId, token: &Kept) -> Identity {
    let TokenMinted { holder, roles, scope, .. } = &token.minted;
    let held = grants_of(state, holder).filter(|grant| roles.contains(grant.role.as_str()));
    let mut grants: Vec<Grant> = held
        .filter_map(|Grant { role, scope: held }| Some(Grant { role, scope: held.within(scope)?.clone() }))
        .collect();
    grants.sort_unstable();
    grants.dedup();
    Identity {
        principal: holder.clone(),
        grants,
        token: Some(id.clone()),
        mapped: Vec::new(),
        expires_at: Some(Timestamp(token.minted.expires_at_ms * 1_000)),
    }
}

fn administrator() -> Identity {
    Identity {
        principal: Principal::user("admin"),
        grants: vec![Grant::everywhere(Role::PlatformAdmin)],
        token: None,
        mapped: Vec::new(),
        expires_at: None,
    }
}

fn stranger(detail: &str) -> Problem {
    Problem::new(ProblemKind::Unauthenticated, detail)
}

/// The roles of a principal. A name that this version does not know permits nothing.
fn grants_of(state: &State, principal: &Principal) -> impl Iterator<Item = Grant> {
    let held = state.roles.get(principal).into_iter().flatten();
    held.filter_map(|Held { role, scope }| Some(Grant { role: role.parse().ok()?, scope: scope.clone() }))
}

#[cfg(test)]
mod tests;
