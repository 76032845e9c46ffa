//! An outside issuer of the tests' own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use events::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::Home;

const ISSUERS: &str = r#"
[[issuer]]
name = "corp"
issuer = "https://login.example.com/main"
audience = "hypercode"
keys = "@KEYS@"
algorithms = ["EdDSA"]
roles = { audit = ["auditor"] }
"#;

/// Whose key a platform knows: groups named `audit` are auditors.
pub(crate) struct Issuer(Ed25519KeyPair);

impl Issuer {
    pub(crate) fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    /// What a platform over this home is told of it: a variable of its environment.
    pub(crate) fn known_to(&self, home: &Home) -> String {
        let x = BASE64.encode(self.0.public_key());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
        let keys = home.write("jwks.json", keys.to_string());
        let issuers = home.write("issuers.toml", ISSUERS.replace("@KEYS@", &keys.display().to_string()));
        format!("HYPERCODE_ISSUERS_FILE={}", issuers.display())
    }

    /// A token for somebody in these groups.
    pub(crate) fn token(&self, groups: &[&str]) -> String {
        let now_s = Timestamp::now().millis() / 1_000;
        let claims = json!({
            "iss": "https://login.example.com/main", "aud": "hypercode", "sub": "8c2f", "groups": groups,
            "iat": now_s, "exp": now_s + 600,
        });
        let head = BASE64.encode(r#"{"alg":"EdDSA","kid":"k"}"#);
        let message = format!("{head}.{}", BASE64.encode(claims.to_string()));
        format!("{message}.{}", BASE64.encode(self.0.sign(message.as_bytes())))
    }
}
