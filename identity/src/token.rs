//! API tokens: `hct_<id>_<secret>`, of which the platform keeps a hash only.

use std::fmt;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What an API token begins with, so that a leaked one is recognised by whoever searches for it.
const PREFIX: &str = "hct_";
/// Random bytes of an id.
const ID_BYTES: usize = 8;
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Memory, passes and lanes of Argon2id (RFC 9106). A secret of 256 random bits cannot be guessed from its hash
/// anyhow, so this is the least that OWASP's password storage sheet names.
const ARGON: (u32, u32, u32) = (7 * 1024, 5, 1);

/// Which token: no secret, in lists, logs and events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(String);

impl TokenId {
    /// The id as text: 16 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token as its owner shows it. It is never shown by `{:?}`.
#[derive(Clone)]
pub struct ApiToken {
    id: TokenId,
    secret: String,
}

/// A text that is no API token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read an API token: expected `hct_`, 16 hexadecimal digits, `_` and 64 more")]
pub struct MalformedToken;

/// Why a token could not be hashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hash an API token: {reason}")]
pub struct HashError {
    reason: String,
}

impl ApiToken {
    /// A new token, from the operating system's randomness.
    pub fn generate() -> Self {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        OsRng.fill_bytes(&mut id);
        OsRng.fill_bytes(&mut secret);
        Self { id: TokenId(hex::encode(id)), secret: hex::encode(secret) }
    }

    /// Whether a text is meant to be an API token.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// A token as it was shown.
    ///
    /// # Errors
    /// When it has not exactly the form of one.
    pub fn parse(text: &str) -> Result<Self, MalformedToken> {
        let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let (id, secret) = parts.ok_or(MalformedToken)?;
        let is_hex = |text: &str, bytes: usize| {
            text.len() == 2 * bytes && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        match is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES) {
            true => Ok(Self { id: TokenId(id.to_owned()), secret: secret.to_owned() }),
            false => Err(MalformedToken),
        }
    }

    /// Which token it claims to be.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The whole token, for its owner and nobody else.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret)
    }

    /// What is kept of it: Argon2id in the PHC string format. Takes some milliseconds of a processor.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn hash(&self) -> Result<String, HashError> {
        let failed = |error: &dyn fmt::Display| HashError { reason: error.to_string() };
        let (memory, passes, lanes) = ARGON;
        let params = Params::new(memory, passes, lanes, None).map_err(|error| failed(&error))?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let salt = SaltString::generate(&mut OsRng);
        let hash = argon.hash_password(self.secret.as_bytes(), &salt).map_err(|error| failed(&error))?;
        Ok(hash.to_string())
    }

    /// Whether this is the token that was hashed. Takes as long as [`ApiToken::hash`].
    pub fn is_of(&self, hash: &str) -> bool {
        let Ok(hash) = PasswordHash::new(hash) else { return false };
        Argon2::default().verify_password(self.secret.as_bytes(), &hash).is_ok()
    }

    /// What remembers a token that was verified, so that it is verified slowly once.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_bytes()).into()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}, …)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_token_itself_is_of_its_hash() {
        let (token, other) = (ApiToken::generate(), ApiToken::generate());
        let hash = token.hash().expect("hashed");
        assert!(hash.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{hash}");
        assert!(token.is_of(&hash) && !other.is_of(&hash) && !token.is_of("") && !token.is_of("$argon2id$"));
        assert_ne!(hash, token.hash().expect("hashed"), "each hash has a salt of its own");
        let shown = token.expose();
        assert!(!format!("{token:?}{hash}").contains(&token.secret));
        let read = ApiToken::parse(&shown).expect("its own form");
        assert_eq!((read.id(), read.fingerprint()), (token.id(), token.fingerprint()));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,120}", at in 0..85_usize, with in "[ -~]") {
            prop_assert!(ApiToken::parse(&text).is_err());
            let mut changed = ApiToken::generate().expose();
            changed.replace_range(at..at + 1, &with);
            let hex = with.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let separator = at < PREFIX.len() || at == PREFIX.len() + 2 * ID_BYTES;
            if !hex && !separator {
                prop_assert_eq!(ApiToken::parse(&changed).err(), Some(MalformedToken));
            }
        }
    }
}
