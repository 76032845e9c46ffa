//! Tokens of people and services that somebody else issues: OpenID Connect issuers whose keys and audience are set.
//!
//! Their keys are of another type than those of agents' tokens, and so is what is verified with them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::compact::{Compact, Fault};
use crate::verified::Verified;

/// How far an issuer's clock may be from ours, in seconds.
const LEEWAY_S: u64 = 60;
/// Longest life of a token, in seconds: a day.
const LIFETIME_S_MAX: u64 = 86_400;
/// Types that such tokens have: none is usual for ID tokens, `at+jwt` is RFC 9068's.
const TYPES: [&str; 2] = ["JWT", "at+jwt"];
/// Most keys of an issuer.
const KEYS_MAX: usize = 64;
/// Most groups that are looked at.
const GROUPS_MAX: usize = 1_000;

/// How a token may be signed (RFC 7518, RFC 8037): with a private key, whose public half the issuer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// Its name in tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A name that no algorithm has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no algorithm that is taken; those are RS256, PS256, ES256 and EdDSA")]
pub struct UnknownAlgorithm {
    /// The name, shortened.
    pub found: String,
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let found = || UnknownAlgorithm { found: text.chars().take(32).collect() };
        Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(found)
    }
}

/// Whose tokens are taken, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its name, exactly as in `iss`.
    pub issuer: String,
    /// What its tokens must be for.
    pub audience: String,
    /// The claim that has the groups of whoever it is.
    pub groups_claim: String,
    /// How its tokens may be signed.
    pub algorithms: Vec<Algorithm>,
}

/// What an issuer says of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserToken {
    /// Who, as the issuer names them. Means something together with the issuer only.
    pub subject: String,
    /// Their groups.
    pub groups: Vec<String>,
    /// When the token ends, in seconds since 1970.
    pub expires_s: u64,
}

/// The key that checks, and the one way in which it does.
#[derive(Clone)]
enum Key {
    Rsa { algorithm: Algorithm, n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { algorithm, .. } => *algorithm,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let plain = |algorithm, key: &[u8]| UnparsedPublicKey::new(algorithm, key).verify(message, signature);
        match self {
            Self::Rsa { algorithm, n, e } => {
                let parameters = match algorithm {
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            Self::P256(point) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            Self::Ed25519(point) => plain(&signature::ED25519, point),
        }
        .is_ok()
    }
}

/// A key as issuers show it (RFC 7517).
#[derive(Deserialize)]
struct Shown {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl Shown {
    /// The key, if it is one to check signatures with in a way that is allowed. Others in the set are for others.
    fn key(&self, allowed: &[Algorithm]) -> Option<(String, Key)> {
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |field: &Option<String>| BASE64.decode(field.as_deref()?).ok();
        let key = match (&self.kty[..], self.crv.as_deref()) {
            ("RSA", None) => {
                let algorithm =
                    if self.alg.as_deref() == Some("PS256") { Algorithm::Ps256 } else { Algorithm::Rs256 };
                Key::Rsa { algorithm, n: bytes(&self.n)?, e: bytes(&self.e)? }
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
                // The uncompressed form of SEC 1, section 2.3.3.
                ((x.len(), y.len()) == (32, 32)).then(|| Key::P256([&[4][..], &x, &y].concat()))?
            }
            ("OKP", Some("Ed25519")) => Key::Ed25519(bytes(&self.x)?),
            _ => return None,
        };
        let algorithm = key.algorithm();
        let says_so = self.alg.as_deref().is_none_or(|alg| alg == algorithm.as_str());
        (says_so && allowed.contains(&algorithm)).then_some((self.kid.clone()?, key))
    }
}

/// Why a JWK Set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is none.
    #[error("read a JWK Set: {0}")]
    Malformed(String),
    /// Nothing in it can be used.
    #[error("use a JWK Set: none of its {0} keys has a `kid` and is for an algorithm that is allowed")]
    Empty(usize),
}

/// An issuer's keys, by which its tokens are checked and nothing else is.
#[derive(Clone)]
pub struct UserKeys {
    issuer: Issuer,
    keys: HashMap<String, Key>,
}

impl UserKeys {
    /// The keys that are in a JWK Set.
    ///
    /// # Errors
    /// When it is none, or has no key that can be used.
    pub fn parse(issuer: Issuer, jwks: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let malformed = |error: serde_json::Error| KeySetError::Malformed(error.to_string());
        let set: Set = serde_json::from_slice(jwks).map_err(malformed)?;
        let shown = set.keys.iter().take(KEYS_MAX);
        // A set may hold kinds of keys that did not exist when this was written.
        let keys: HashMap<_, _> =
            shown.filter_map(|key| Shown::deserialize(key).ok()?.key(&issuer.algorithms)).collect();
        if keys.is_empty() { Err(KeySetError::Empty(set.keys.len())) } else { Ok(Self { issuer, keys }) }
    }

    /// What a token says, if it is one of this issuer and of this time.
    ///
    /// # Errors
    /// With why it is not; [`Fault::UnknownKey`] may pass once newer keys are fetched.
    pub fn verify(&self, text: &str, now_s: u64) -> Result<Verified<UserToken>, Fault> {
        let token = Compact::parse(text)?;
        if !token.has_no_type() && !TYPES.iter().any(|known| token.is_type(known)) {
            return Err(Fault::Type);
        }
        let key = token.kid().and_then(|kid| self.keys.get(kid)).ok_or(Fault::UnknownKey)?;
        if token.algorithm() != key.algorithm().as_str() {
            return Err(Fault::Algorithm);
        }
        if !key.signed(token.message, &token.signature) {
            return Err(Fault::Signature);
        }
        let claims: Claims = token.claims()?;
        if claims.iss != self.issuer.issuer {
            return Err(Fault::Issuer);
        }
        let audiences = &claims.aud.0;
        let is_meant = audiences.contains(&self.issuer.audience);
        let is_only = audiences.len() == 1 || claims.azp.as_deref() == Some(&self.issuer.audience);
        if !is_meant || !is_only {
            return Err(Fault::Audience);
        }
        claims.check_times(now_s)?;
        let mut others: BTreeMap<String, serde_json::Value> = token.claims()?;
        let groups = others.remove(&self.issuer.groups_claim);
        let groups = groups.as_ref().and_then(serde_json::Value::as_array).into_iter().flatten();
        let groups = groups.filter_map(|group| group.as_str().map(str::to_owned)).take(GROUPS_MAX).collect();
        Ok(Verified::new(UserToken { subject: claims.sub, groups, expires_s: claims.exp }))
    }
}

impl fmt::Debug for UserKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserKeys({}, {} keys)", self.issuer.issuer, self.keys.len())
    }
}

/// Which issuer a token says that it is of: not believed, but whose keys are asked.
///
/// # Errors
/// When it is no token at all.
pub fn claimed_issuer(text: &str) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Claimed {
        iss: String,
    }
    Ok(Compact::parse(text)?.claims::<Claimed>()?.iss)
}

/// Whether a text is meant to be a signed token: it has three parts.
pub fn is_signed_token(text: &str) -> bool {
    text.bytes().filter(|b| *b == b'.').count() == 2
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audiences,
    exp: u64,
    iat: u64,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(default)]
    azp: Option<String>,
}

impl Claims {
    fn check_times(&self, now_s: u64) -> Result<(), Fault> {
        let life_s = self.exp.checked_sub(self.iat).filter(|life_s| (1..=LIFETIME_S_MAX).contains(life_s));
        if life_s.is_none() {
            return Err(Fault::Lifetime);
        }
        if self.iat.max(self.nbf.unwrap_or_default()) > now_s + LEEWAY_S {
            return Err(Fault::Early);
        }
        if now_s >= self.exp + LEEWAY_S { Err(Fault::Expired) } else { Ok(()) }
    }
}

/// One audience, or a list (RFC 7519 §4.1.3).
struct Audiences(Vec<String>);

impl<'de> Deserialize<'de> for Audiences {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Audiences;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an audience or a list of some")
            }

            fn visit_str<E>(self, text: &str) -> Result<Audiences, E> {
                Ok(Audiences(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Audiences, A::Error> {
                let mut audiences = Vec::new();
                while let Some(audience) = list.next_element()? {
                    audiences.push(audience);
                }
                Ok(Audiences(audiences))
            }
        }
        value.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests;
