//! Keys that sign agents' tokens: Ed25519 (RFC 8032), each named by its thumbprint (RFC 7638).

use std::borrow::Borrow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use rand_core::{OsRng, RngCore as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes of the secret that a key is made of.
pub const SEED_BYTES: usize = 32;

/// Which key: the SHA-256 of what makes it up, in base64url.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(String);

impl Kid {
    fn of(x: &str) -> Self {
        // RFC 7638 §3: the required members, in the order of their names, without white space.
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        Self(BASE64.encode(Sha256::digest(members.as_bytes())))
    }

    /// The id as text: 43 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key is looked up by whatever text a token names: nothing else is done with that text.
impl Borrow<str> for Kid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The half of a key that signs. Its bytes are overwritten when it is dropped, and `{:?}` does not show them.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    public: PublicKey,
}

impl SigningKey {
    /// A new key, from the operating system's randomness.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        OsRng.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }

    /// The key of this secret.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let public = PublicKey::of(key.verifying_key());
        Self { key, public }
    }

    /// The secret that the key is made of, to be encrypted and kept.
    pub fn seed(&self) -> Zeroizing<[u8; SEED_BYTES]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The half that checks.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; Signature::BYTE_SIZE] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, …)", self.public.kid)
    }
}

/// A text that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read a public key: expected the 32 bytes of an Ed25519 key in base64url")]
pub struct MalformedKey;

/// The half of a key that checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kid: Kid,
    key: VerifyingKey,
}

impl PublicKey {
    fn of(key: VerifyingKey) -> Self {
        Self { kid: Kid::of(&BASE64.encode(key.as_bytes())), key }
    }

    /// The key whose coordinate `x` (RFC 8037) this is.
    ///
    /// # Errors
    /// When it is not 32 bytes in base64url, or no point of the curve, or one with which anything can be signed.
    pub fn parse(x: &str) -> Result<Self, MalformedKey> {
        let bytes = BASE64.decode(x).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(MalformedKey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| MalformedKey)?;
        if key.is_weak() { Err(MalformedKey) } else { Ok(Self::of(key)) }
    }

    /// Which key it is.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Its coordinate, as [`PublicKey::parse`] reads it.
    pub fn x(&self) -> String {
        BASE64.encode(self.key.as_bytes())
    }

    /// Whether the key signed this. No signature but the one that was made passes.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }

    /// The key as others read it (RFC 7517, RFC 8037).
    pub fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            purpose: "sig",
            kid: self.kid.to_string(),
            x: self.x(),
        }
    }
}

/// A public key in a JWK Set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
    kid: String,
    x: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037, appendix A.
    #[test]
    fn keys_and_signatures_are_those_of_the_standard() {
        let seed = BASE64.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("base64url");
        let key = SigningKey::from_seed(&seed.try_into().expect("32 bytes"));
        assert_eq!(key.public().x(), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.public().kid().as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = key.sign(message);
        let expected =
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(BASE64.encode(signature), expected);
        assert!(key.public().signed(message, &signature));
        assert!(!key.public().signed(b"another", &signature));
        assert!(!SigningKey::generate().public().signed(message, &signature));
    }

    #[test]
    fn a_key_is_read_as_it_is_shown_and_its_secret_is_not_shown() {
        let key = SigningKey::generate();
        assert_eq!(PublicKey::parse(&key.public().x()).as_ref(), Ok(key.public()));
        assert_eq!(SigningKey::from_seed(&key.seed()).public(), key.public());
        assert!(!format!("{key:?}").contains(&hex::encode(*key.seed())));
        let weak = BASE64.encode([0; 32]);
        for malformed in ["", "x", "=", &weak, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp"] {
            assert_eq!(PublicKey::parse(malformed), Err(MalformedKey), "{malformed}");
        }
    }
}
