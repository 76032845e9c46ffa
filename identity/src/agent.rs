//! Agents' tokens: who an agent is, in which of its lives and in which sandbox, for ten minutes at most.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use events::domain::keys;
use events::{AgentId, CrewId, Incarnation, Principal, SandboxId, Tenant};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::compact::{Compact, Fault, LEEWAY_S, compact};
use crate::key::{Jwk, Kid, PublicKey, SigningKey};
use crate::verified::Verified;

/// Longest life of an agent's token, in seconds.
pub const LIFETIME_S_MAX: u64 = 600;

/// A key is accepted for as long as its last token lives.
const _: () = assert!(keys::RETIRING_MS.cast_unsigned() / 1_000 > LIFETIME_S_MAX + LEEWAY_S);

/// What agents' tokens are for, and nothing else is.
const AUDIENCE: &str = "agent-link";
/// How their type is written.
const TYPE: &str = "agent+jwt";
/// How they are signed (RFC 8037).
const ALGORITHM: &str = "EdDSA";
/// The word that each agent's scope begins with.
const SCOPE: &str = "agent";

/// What a token lets its agent do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Open its link.
    OpenLink,
    /// Fetch artifacts.
    GetArtifact,
    /// Keep artifacts.
    PutArtifact,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 3] = [Self::OpenLink, Self::GetArtifact, Self::PutArtifact];

    fn as_str(self) -> &'static str {
        match self {
            Self::OpenLink => "link:open",
            Self::GetArtifact => "artifact:get",
            Self::PutArtifact => "artifact:put",
        }
    }
}

/// Whom a token is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The tenant.
    pub tenant: Tenant,
    /// The crew.
    pub crew: CrewId,
    /// The agent.
    pub agent: AgentId,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// The sandbox of that life.
    pub sandbox: SandboxId,
}

/// What an agent's token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentToken {
    /// The deployment that made it.
    pub iss: String,
    /// The agent: `agent:<id>`.
    pub sub: Principal,
    /// What it is for.
    pub aud: String,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// When it begins.
    pub nbf: u64,
    /// When it was made.
    pub iat: u64,
    /// Its own id.
    pub jti: Uuid,
    /// The tenant.
    pub tid: Tenant,
    /// The crew.
    pub cid: CrewId,
    /// Which of the agent's lives.
    pub rid: Incarnation,
    /// The sandbox of that life.
    pub slot: SandboxId,
    /// What it permits: `agent`, and verbs.
    pub scope: String,
}

impl AgentToken {
    fn of(bearer: &Bearer, issuer: &str, now_s: u64, lifetime_s: u64) -> Self {
        let verbs = Verb::ALL.map(Verb::as_str).join(" ");
        Self {
            iss: issuer.to_owned(),
            sub: Principal::agent(&bearer.agent),
            aud: AUDIENCE.to_owned(),
            exp: now_s + lifetime_s,
            nbf: now_s,
            iat: now_s,
            jti: Uuid::now_v7(),
            tid: bearer.tenant.clone(),
            cid: bearer.crew.clone(),
            rid: bearer.incarnation,
            slot: bearer.sandbox.clone(),
            scope: format!("{SCOPE} {verbs}"),
        }
    }

    /// Whether all that it says of its agent is so of this one, who may do this by it.
    ///
    /// # Errors
    /// With what is not so.
    pub fn is_of(&self, bearer: &Bearer, verb: Verb) -> Result<(), Fault> {
        let same = [
            ("sub", self.sub == Principal::agent(&bearer.agent)),
            ("tid", self.tid == bearer.tenant),
            ("cid", self.cid == bearer.crew),
            ("rid", self.rid == bearer.incarnation),
            ("slot", self.slot == bearer.sandbox),
        ];
        if let Some((claim, _)) = same.into_iter().find(|(_, is_same)| !is_same) {
            return Err(Fault::Foreign(claim));
        }
        let has = |word: &str| self.scope.split(' ').any(|found| found == word);
        if has(SCOPE) && has(verb.as_str()) { Ok(()) } else { Err(Fault::Scope) }
    }

    fn check_times(&self, now_s: u64, is_late: bool) -> Result<(), Fault> {
        let life_s = self.exp.checked_sub(self.iat).filter(|life_s| (1..=LIFETIME_S_MAX).contains(life_s));
        if life_s.is_none() || self.nbf >= self.exp {
            return Err(Fault::Lifetime);
        }
        if self.iat.max(self.nbf) > now_s + LEEWAY_S {
            return Err(Fault::Early);
        }
        if now_s >= self.exp + LEEWAY_S && !is_late {
            return Err(Fault::Expired);
        }
        Ok(())
    }
}

/// Why no token can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("make an agent's token: there is no key to sign it with")]
pub struct NoKey;

/// A token as it goes to its agent.
#[derive(Clone)]
pub struct Minted {
    /// Its text, overwritten when it is dropped.
    pub text: Zeroizing<String>,
    /// How long it lives, in seconds.
    pub lifetime_s: u64,
}

/// The keys of agents' tokens, and whose tokens they are.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// The deployment whose keys they are.
    pub issuer: String,
    /// The key that signs, if there is one here.
    pub signing: Option<Arc<SigningKey>>,
    /// The keys that are accepted, and until when in seconds since 1970 where that is decided.
    pub accepted: Vec<(PublicKey, Option<u64>)>,
}

#[derive(Default)]
struct Known {
    issuer: String,
    signing: Option<Arc<SigningKey>>,
    accepted: BTreeMap<Kid, (PublicKey, Option<u64>)>,
}

/// Makes agents' tokens and checks them. No other kind of token is ever checked with these keys.
pub struct AgentKeys {
    lifetime_s: u64,
    known: RwLock<Known>,
}

impl Default for AgentKeys {
    fn default() -> Self {
        Self::living(LIFETIME_S_MAX)
    }
}

impl AgentKeys {
    /// No keys yet, for tokens that live so long, [`LIFETIME_S_MAX`] at most.
    pub fn living(lifetime_s: u64) -> Self {
        Self { lifetime_s: lifetime_s.clamp(1, LIFETIME_S_MAX), known: RwLock::default() }
    }

    /// From now on these keys, and no others.
    pub fn set(&self, keys: KeySet) {
        let accepted = keys.accepted.into_iter().map(|(key, until)| (key.kid().clone(), (key, until)));
        let known = Known { issuer: keys.issuer, signing: keys.signing, accepted: accepted.collect() };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// A token of this agent.
    ///
    /// # Errors
    /// While there is no key to sign with.
    pub fn mint(&self, bearer: &Bearer, now_s: u64) -> Result<Minted, NoKey> {
        let (issuer, key) = {
            let known = self.known();
            (known.issuer.clone(), known.signing.clone().ok_or(NoKey)?)
        };
        let token = AgentToken::of(bearer, &issuer, now_s, self.lifetime_s);
        let header = format!(r#"{{"alg":"{ALGORITHM}","typ":"{TYPE}","kid":"{}"}}"#, key.public().kid());
        let claims = serde_json::to_vec(&token).expect("claims are plain data with string keys");
        let text = compact(header.as_bytes(), &claims, |message| key.sign(message));
        Ok(Minted { text: Zeroizing::new(text), lifetime_s: self.lifetime_s })
    }

    /// What an agent's token says, if it is one of ours and of this time.
    ///
    /// # Errors
    /// With why it is not.
    pub fn verify(&self, text: &str, now_s: u64) -> Result<Verified<AgentToken>, Fault> {
        self.check(text, now_s, false)
    }

    /// The same, whenever it ended: for an agent that nobody could give another one meanwhile.
    ///
    /// # Errors
    /// With why it is not.
    pub fn verify_late(&self, text: &str, now_s: u64) -> Result<Verified<AgentToken>, Fault> {
        self.check(text, now_s, true)
    }

    fn check(&self, text: &str, now_s: u64, is_late: bool) -> Result<Verified<AgentToken>, Fault> {
        let token = Compact::parse(text)?;
        if !token.is_type(TYPE) {
            return Err(Fault::Type);
        }
        if token.algorithm() != ALGORITHM {
            return Err(Fault::Algorithm);
        }
        let (issuer, key) = {
            let known = self.known();
            let found = token.kid().and_then(|kid| known.accepted.get(kid));
            let (key, _) = found
                .filter(|(_, until)| until.is_none_or(|until| now_s < until))
                .ok_or(Fault::UnknownKey)?;
            (known.issuer.clone(), key.clone())
        };
        if !key.signed(token.message, &token.signature) {
            return Err(Fault::Signature);
        }
        let claims: AgentToken = token.claims()?;
        if claims.iss != issuer {
            return Err(Fault::Issuer);
        }
        if claims.aud != AUDIENCE {
            return Err(Fault::Audience);
        }
        claims.check_times(now_s, is_late)?;
        Ok(Verified::new(claims))
    }

    /// The keys with which others can check agents' tokens (RFC 7517).
    pub fn jwks(&self, now_s: u64) -> Jwks {
        let known = self.known();
        let accepted = known.accepted.values().filter(|(_, until)| until.is_none_or(|until| now_s < until));
        Jwks { keys: accepted.map(|(key, _)| key.jwk()).collect() }
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A JWK Set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Jwks {
    keys: Vec<Jwk>,
}

#[cfg(test)]
mod tests;
