//! Who a link is, beside the socket that it came in on: the token of its assignment.

use events::SandboxId;
use hmac::{Hmac, KeyInit, Mac};
use link::Secret;
use sha2::Sha256;

/// Makes and checks the tokens that bind a link to its sandbox's assignment.
pub trait Authenticator: Send + Sync + 'static {
    /// The token that the sandbox gets with its assignment.
    fn issue(&self, sandbox: &SandboxId) -> Secret;
    /// Whether `token` is the one of this sandbox. Takes as long for a wrong token as for the right one.
    fn verify(&self, sandbox: &SandboxId, token: &str) -> bool;
}

/// Bearer tokens of 256 bits: HMAC-SHA-256 (RFC 2104) of the sandbox's id under the platform's key. A sandbox serves
/// one incarnation, so a token does too; and a platform that comes back with its key knows them all again.
pub struct SandboxTokens {
    keyed: Hmac<Sha256>,
}

impl SandboxTokens {
    /// Tokens under this key: 32 random bytes that never leave the platform.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { keyed: Hmac::new_from_slice(key).expect("a key of any length is legal") }
    }

    fn mac(&self, sandbox: &SandboxId) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(sandbox.as_str().as_bytes());
        mac
    }
}

impl Authenticator for SandboxTokens {
    fn issue(&self, sandbox: &SandboxId) -> Secret {
        Secret::new(hex::encode(self.mac(sandbox).finalize().into_bytes()))
    }

    fn verify(&self, sandbox: &SandboxId, token: &str) -> bool {
        let mut tag = [0; 32];
        hex::decode_to_slice(token, &mut tag).is_ok() && self.mac(sandbox).verify_slice(&tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_sandbox_and_key_only() {
        let (one, other) = (SandboxId::derive(&["one"]), SandboxId::derive(&["other"]));
        let tokens = SandboxTokens::new(&[7; 32]);
        let token = tokens.issue(&one);
        assert!(tokens.verify(&one, token.expose()));
        assert!(SandboxTokens::new(&[7; 32]).verify(&one, token.expose()), "a restart keeps it");
        assert!(!tokens.verify(&other, token.expose()));
        assert!(!SandboxTokens::new(&[8; 32]).verify(&one, token.expose()));
        for bad in ["", "zz", &token.expose()[1..], &format!("{}00", token.expose())] {
            assert!(!tokens.verify(&one, bad));
        }
    }
}
