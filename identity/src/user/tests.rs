use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

use super::*;
use crate::{AgentKeys, KeySet, SigningKey};

const NOW_S: u64 = 1_800_000_000;
const ISSUER: &str = "https://login.example.com/main";

/// An issuer of the tests' own, with a key of each kind.
struct Login {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Login {
    fn new() -> Self {
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        Self {
            rsa: RsaKeyPair::from_pkcs8(include_bytes!("../../testdata/test-rsa.pk8")).expect("a key"),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random)
                .expect("a key"),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).expect("a key"),
        }
    }

    fn jwks(&self) -> Value {
        let text = |bytes: &[u8]| BASE64.encode(bytes);
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let (n, e) = (text(&rsa.n), text(&rsa.e));
        let point = self.p256.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "RS256", "use": "sig", "n": n, "e": e},
            {"kty": "RSA", "kid": "PS256", "alg": "PS256", "n": n, "e": e},
            {"kty": "EC", "crv": "P-256", "kid": "ES256", "x": text(&point[1..33]), "y": text(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "alg": "EdDSA", "x": text(self.ed25519.public_key().as_ref())},
            {"kty": "RSA", "kid": "enc", "use": "enc", "n": n, "e": e},
            {"kty": "oct", "kid": "shared", "k": "AAAA"},
            {"kty": 7},
        ]})
    }

    fn keys(&self, algorithms: &[Algorithm]) -> UserKeys {
        let issuer = Issuer {
            issuer: ISSUER.to_owned(),
            audience: "hypercode".to_owned(),
            groups_claim: "groups".to_owned(),
            algorithms: algorithms.to_vec(),
        };
        UserKeys::parse(issuer, self.jwks().to_string().as_bytes()).expect("keys")
    }

    fn signed(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &random, message, &mut signature).expect("signed");
            signature
        };
        match alg {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => self.p256.sign(&random, message).expect("signed").as_ref().to_vec(),
            _ => self.ed25519.sign(message).as_ref().to_vec(),
        }
    }

    /// A token, signed as `alg` says by the key that is named so, with some members other than usual.
    fn token(&self, alg: &str, header: &Value, claims: &Value) -> String {
        let with = |mut usual: Value, changes: &Value| {
            for (name, value) in changes.as_object().expect("changes are an object") {
                match value {
                    Value::Null => drop(usual.as_object_mut().expect("an object").remove(name)),
                    value => usual[name] = value.clone(),
                }
            }
            BASE64.encode(usual.to_string())
        };
        let header = with(json!({"alg": alg, "typ": "JWT", "kid": alg, "x5t": "a hint for others"}), header);
        let usual = json!({
            "iss": ISSUER, "sub": "8c2f", "aud": "hypercode", "exp": NOW_S + 3_600, "iat": NOW_S,
            "groups": ["staff", "platform"], "email": "ada@example.com",
        });
        let message = format!("{header}.{}", with(usual, claims));
        let signature = BASE64.encode(self.signed(alg, message.as_bytes()));
        format!("{message}.{signature}")
    }
}

#[test]
fn tokens_of_every_algorithm_that_is_allowed_are_taken_and_of_no_other() {
    let login = Login::new();
    for algorithm in Algorithm::ALL {
        let token = login.token(algorithm.as_str(), &json!({}), &json!({}));
        let user = login.keys(&Algorithm::ALL).verify(&token, NOW_S).expect("it is the issuer's");
        assert_eq!((&user.subject[..], user.expires_s), ("8c2f", NOW_S + 3_600));
        assert_eq!(user.groups, ["staff", "platform"]);
        let others: Vec<_> = Algorithm::ALL.into_iter().filter(|other| *other != algorithm).collect();
        assert_eq!(login.keys(&others).verify(&token, NOW_S), Err(Fault::UnknownKey));
        assert_eq!(
            Login::new()
                .keys(&[Algorithm::EdDsa])
                .verify(&login.token("EdDSA", &json!({}), &json!({})), NOW_S),
            Err(Fault::Signature)
        );
        // Each key checks in one way, whatever a token asks for.
        for other in ["none", "HS256", "RS256", "PS256", "ES256", "EdDSA"] {
            if other != algorithm.as_str() {
                let posing = login.token(algorithm.as_str(), &json!({"alg": other}), &json!({}));
                assert_eq!(login.keys(&Algorithm::ALL).verify(&posing, NOW_S), Err(Fault::Algorithm));
            }
        }
    }
}

#[test]
fn it_must_be_for_us_from_the_issuer_and_of_now() {
    let login = Login::new();
    let keys = login.keys(&Algorithm::ALL);
    let judged = |claims: Value| keys.verify(&login.token("EdDSA", &json!({}), &claims), NOW_S).map(drop);
    for (claims, fault) in [
        (json!({"iss": "https://login.example.com/other"}), Fault::Issuer),
        (json!({"aud": "another"}), Fault::Audience),
        (json!({"aud": []}), Fault::Audience),
        (json!({"aud": ["hypercode", "another"]}), Fault::Audience),
        (json!({"aud": ["hypercode", "another"], "azp": "another"}), Fault::Audience),
        (json!({"aud": 7}), Fault::Claims),
        (json!({"sub": null}), Fault::Claims),
        (json!({"exp": null}), Fault::Claims),
        (json!({"exp": "soon"}), Fault::Claims),
        (json!({"exp": NOW_S - 60, "iat": NOW_S - 120}), Fault::Expired),
        (json!({"exp": NOW_S + 10 * LIFETIME_S_MAX}), Fault::Lifetime),
        (json!({"nbf": NOW_S + 61}), Fault::Early),
        (json!({"iat": NOW_S + 61, "exp": NOW_S + 90}), Fault::Early),
    ] {
        assert_eq!(judged(claims.clone()), Err(fault), "{claims}");
    }
    assert_eq!(judged(json!({"aud": ["hypercode"]})), Ok(()));
    assert_eq!(judged(json!({"aud": ["hypercode", "another"], "azp": "hypercode"})), Ok(()));
    assert_eq!(judged(json!({"exp": NOW_S - 59, "iat": NOW_S - 120})), Ok(()));
    let none = login.token("EdDSA", &json!({"typ": null}), &json!({"groups": "staff"}));
    assert_eq!(keys.verify(&none, NOW_S).expect("a type is not needed").groups, Vec::<String>::new());
    for typ in ["agent+jwt", "logout+jwt"] {
        let other = login.token("EdDSA", &json!({"typ": typ}), &json!({}));
        assert_eq!(keys.verify(&other, NOW_S), Err(Fault::Type));
    }
    for header in [json!({"crit": ["b64"]}), json!({"jwk": {}}), json!({"jku": "https://x"})] {
        assert!(keys.verify(&login.token("EdDSA", &header, &json!({})), NOW_S).is_err(), "{header}");
    }
    let unknown = login.token("EdDSA", &json!({"kid": "../../etc/passwd"}), &json!({}));
    assert_eq!(keys.verify(&unknown, NOW_S), Err(Fault::UnknownKey));
}

#[test]
fn an_agents_token_is_nobodys_and_a_persons_is_no_agents() {
    let (login, signing) = (Login::new(), SigningKey::generate());
    let agents = AgentKeys::default();
    agents.set(KeySet {
        issuer: ISSUER.to_owned(),
        accepted: vec![(signing.public().clone(), None)],
        signing: Some(std::sync::Arc::new(SigningKey::from_seed(&signing.seed()))),
    });
    let bearer = crate::Bearer {
        tenant: events::Tenant::default(),
        crew: events::CrewId::derive(&["crew"]),
        agent: events::AgentId::derive(&["agent"]),
        incarnation: events::Incarnation(1),
        sandbox: events::SandboxId::derive(&["sandbox"]),
    };
    let token = agents.mint(&bearer, NOW_S).expect("there is a key").text;
    let jwks = serde_json::to_vec(&agents.jwks(NOW_S)).expect("plain data");
    let issuer = login.keys(&Algorithm::ALL).issuer;
    // Even where somebody sets the platform itself as an issuer.
    let keys = UserKeys::parse(issuer, &jwks).expect("keys");
    assert_eq!(keys.verify(&token, NOW_S), Err(Fault::Type));
    assert_eq!(agents.verify(&login.token("EdDSA", &json!({}), &json!({})), NOW_S), Err(Fault::Type));
}

#[test]
fn a_set_without_a_key_that_can_be_used_is_refused() {
    let issuer = Login::new().keys(&Algorithm::ALL).issuer;
    for (set, what) in [
        ("", "EOF"),
        ("{}", "keys"),
        (r#"{"keys": []}"#, "none of its 0 keys"),
        (r#"{"keys": [{"kty": "oct", "kid": "k", "k": "AAAA"}]}"#, "none of its 1 keys"),
        (r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]}"#, "none of its 1 keys"),
    ] {
        let error = UserKeys::parse(issuer.clone(), set.as_bytes()).expect_err("no keys").to_string();
        assert!(error.contains(what), "{error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(text in ".{0,300}", claims in "[ -~]{0,200}") {
        let login = Login::new();
        let keys = login.keys(&Algorithm::ALL);
        prop_assert!(keys.verify(&text, NOW_S).is_err());
        let _ = (claimed_issuer(&text), UserKeys::parse(keys.issuer.clone(), text.as_bytes()));
        let message = format!("{}.{}", BASE64.encode(r#"{"alg":"EdDSA","kid":"EdDSA"}"#), BASE64.encode(&claims));
        let token = format!("{message}.{}", BASE64.encode(login.signed("EdDSA", message.as_bytes())));
        prop_assert!(keys.verify(&token, NOW_S).is_err());
    }
}
