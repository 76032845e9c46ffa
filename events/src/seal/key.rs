//! One data subject's key, and the master key that wraps it.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::id::{Digest, KeyId, StreamId};

/// How a sealed text begins: what it is, and in which form.
pub(super) const PREFIX: &str = "sealed:1:";

/// What stands between the keys of a text that needs several.
const AND: char = '+';

/// A sealed text, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The keys that open it, the outermost first: without any one of them it stays closed.
    pub(super) keys: Vec<KeyId>,
    /// What is to be opened.
    pub(super) sealed: Vec<u8>,
}

/// Takes a sealed text apart; `None` for any other text.
pub(super) fn parse(text: &str) -> Option<Parsed> {
    let (keys, sealed) = text.strip_prefix(PREFIX)?.split_once(':')?;
    let keys = keys.split(AND).map(|key| key.parse().ok()).collect::<Option<_>>()?;
    Some(Parsed { keys, sealed: BASE64.decode(sealed).ok()? })
}

/// A field of an event of `stream` as it is stored: under all of `keys`, of which there is one at least, so that the end
/// of any of them is the end of the field.
pub(super) fn seal(keys: &[(KeyId, Arc<Secret>)], stream: &StreamId, clear: &[u8]) -> String {
    let innermost_first = keys.iter().rev();
    let sealed =
        innermost_first.fold(clear.to_vec(), |inner, (id, key)| key.encrypt(&context(id, stream), &inner));
    let ids: Vec<&str> = keys.iter().map(|(id, _)| id.as_str()).collect();
    format!("{PREFIX}{}:{}", ids.join(&AND.to_string()), BASE64.encode(sealed))
}

/// 32 bytes of which two keys are made, one for encryption and one for digests. Never shown.
pub(crate) struct Secret {
    aead: LessSafeKey,
    mac: hmac::Key,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// 32 bytes from the operating system.
pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

impl Secret {
    pub(crate) fn new(bytes: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let part = |purpose: &str| hmac::sign(&root, purpose.as_bytes());
        let aead = UnboundKey::new(&AES_256_GCM, part("aead").as_ref()).expect("a SHA-256 is a key's length");
        let mac = hmac::Key::new(hmac::HMAC_SHA256, part("mac").as_ref());
        Self { aead: LessSafeKey::new(aead), mac }
    }

    /// A random nonce and the ciphertext, which opens only with the same `context`.
    pub(crate) fn encrypt(&self, context: &str, clear: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the operating system has randomness");
        let mut sealed = clear.to_vec();
        let (aad, counter) = (Aad::from(context.as_bytes()), Nonce::assume_unique_for_key(nonce));
        self.aead.seal_in_place_append_tag(counter, aad, &mut sealed).expect("it is shorter than 64 GiB");
        [&nonce[..], &sealed].concat()
    }

    /// The clear bytes; `None` if they were sealed by another key or in another context, or were changed.
    pub(crate) fn decrypt(&self, context: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let mut clear = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = self.aead.open_in_place(nonce, Aad::from(context.as_bytes()), &mut clear).ok()?.len();
        clear.truncate(opened);
        Some(clear)
    }

    /// 32 bytes that nobody without the key can tell from random ones, the same for the same parts.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.mac);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("a SHA-256 has 32 bytes")
    }

    /// Takes one layer off what [`seal`] made.
    pub(super) fn open(&self, id: &KeyId, stream: &StreamId, sealed: &[u8]) -> Option<Vec<u8>> {
        self.decrypt(&context(id, stream), sealed)
    }

    /// Masks a digest, or unmasks one: it is combined with bytes that only the key knows and that are used for this
    /// `place` in `stream` alone.
    pub(super) fn mask(&self, stream: &StreamId, place: &str, digest: Digest) -> Digest {
        let mask = self.mac(&[b"mask", stream.to_string().as_bytes(), place.as_bytes()]);
        Digest(std::array::from_fn(|index| digest.0[index] ^ mask[index]))
    }

    /// A digest in place of one that tells whoever guesses the content that the guess is right.
    pub(super) fn keyed(&self, digest: Digest) -> Digest {
        Digest(self.mac(&[b"digest", &digest.0]))
    }
}

fn context(id: &KeyId, stream: &StreamId) -> String {
    format!("{id} {stream}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EntityKind;

    #[test]
    fn only_the_same_key_and_place_open_what_was_sealed() {
        let (secret, other) = (Secret::new(&[1; 32]), Secret::new(&[2; 32]));
        let id: KeyId = "k_1".parse().unwrap();
        let (here, there) = (StreamId::new(EntityKind::Task, "a"), StreamId::new(EntityKind::Task, "b"));
        let keys = [(id.clone(), Arc::new(Secret::new(&[1; 32])))];
        let text = seal(&keys, &here, b"\"hello\"");
        assert_ne!(text, seal(&keys, &here, b"\"hello\""), "no nonce is used twice");
        let Parsed { keys, sealed } = parse(&text).unwrap();
        assert_eq!(keys, std::slice::from_ref(&id));
        assert_eq!(secret.open(&id, &here, &sealed).as_deref(), Some(&b"\"hello\""[..]));
        assert_eq!(secret.open(&id, &there, &sealed), None);
        assert_eq!(other.open(&id, &here, &sealed), None);
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(secret.open(&id, &here, &changed), None);
        assert_eq!(secret.decrypt("", b"short"), None);
        for other in [
            "",
            "hello",
            "sealed:1:",
            "sealed:1:k_1",
            "sealed:1:k 1:AA",
            "sealed:1:k_1:!",
            "sealed:1:k_1+:AA",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_masked_digest_is_unmasked_in_its_place() {
        let secret = Secret::new(&[1; 32]);
        let (stream, digest) = (StreamId::new(EntityKind::Task, "a"), Digest::of(b"x"));
        let masked = secret.mask(&stream, "/digest", digest);
        assert_ne!(masked, digest);
        assert_eq!(secret.mask(&stream, "/digest", masked), digest);
        assert_ne!(secret.mask(&stream, "/other", masked), digest);
        assert_ne!(secret.keyed(digest), digest);
    }
}
