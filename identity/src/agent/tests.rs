use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::compact::TOKEN_BYTES_MAX;

const NOW_S: u64 = 1_800_000_000;
const ISSUER: &str = "urn:uuid:0193";

fn bearer() -> Bearer {
    Bearer {
        tenant: Tenant::default(),
        crew: CrewId::derive(&["crew"]),
        agent: AgentId::derive(&["agent"]),
        incarnation: Incarnation(3),
        sandbox: SandboxId::derive(&["sandbox"]),
    }
}

struct World {
    keys: AgentKeys,
    signing: Arc<SigningKey>,
}

impl World {
    fn new() -> Self {
        let (keys, signing) = (AgentKeys::default(), Arc::new(SigningKey::generate()));
        keys.set(KeySet {
            issuer: ISSUER.to_owned(),
            signing: Some(Arc::clone(&signing)),
            accepted: vec![(signing.public().clone(), None)],
        });
        Self { keys, signing }
    }

    fn token(&self) -> String {
        self.keys.mint(&bearer(), NOW_S).expect("there is a key").text.to_string()
    }

    /// A token that the key really signed, with other members in its header and other claims than usual: `null` takes
    /// one away.
    fn signed(&self, header: &Value, claims: &Value) -> String {
        let usual = json!({"alg": "EdDSA", "typ": "agent+jwt", "kid": self.signing.public().kid().as_str()});
        let token = AgentToken::of(&bearer(), ISSUER, NOW_S, LIFETIME_S_MAX);
        let with = |mut usual: Value, changes: &Value| {
            for (name, value) in changes.as_object().expect("changes are an object") {
                match value {
                    Value::Null => drop(usual.as_object_mut().expect("an object").remove(name)),
                    value => usual[name] = value.clone(),
                }
            }
            usual.to_string()
        };
        let claims = with(serde_json::to_value(token).expect("plain data"), claims);
        compact(with(usual, header).as_bytes(), claims.as_bytes(), |message| self.signing.sign(message))
    }

    fn fault(&self, token: &str) -> Fault {
        self.keys.verify(token, NOW_S).expect_err("it is refused")
    }

    fn fault_of_header(&self, header: &Value) -> Fault {
        self.fault(&self.signed(header, &json!({})))
    }

    fn fault_of_claims(&self, claims: &Value) -> Fault {
        self.fault(&self.signed(&json!({}), claims))
    }
}

#[test]
fn a_token_says_whose_it_is_and_that_is_checked_claim_by_claim() {
    let world = World::new();
    let token = world.keys.verify(&world.token(), NOW_S + 1).expect("it is ours");
    assert_eq!((&token.iss[..], &token.aud[..], token.exp - token.iat), (ISSUER, "agent-link", 600));
    assert_eq!(token.scope, "agent link:open artifact:get artifact:put");
    for verb in Verb::ALL {
        assert_eq!(token.is_of(&bearer(), verb), Ok(()));
    }
    let own = bearer;
    for (claim, other) in [
        ("sub", Bearer { agent: AgentId::derive(&["other"]), ..own() }),
        ("tid", Bearer { tenant: "other".parse().expect("a tenant"), ..own() }),
        ("cid", Bearer { crew: CrewId::derive(&["other"]), ..own() }),
        ("rid", Bearer { incarnation: Incarnation(4), ..own() }),
        ("slot", Bearer { sandbox: SandboxId::derive(&["other"]), ..own() }),
    ] {
        assert_eq!(token.is_of(&other, Verb::OpenLink), Err(Fault::Foreign(claim)));
    }
    for scope in ["", "link:open", "agent", "agent artifact:get", "agentlink:open", "agent link:opened"] {
        let narrow = world.signed(&json!({}), &json!({"scope": scope}));
        let narrow = world.keys.verify(&narrow, NOW_S).expect("it is ours");
        assert_eq!(narrow.is_of(&bearer(), Verb::OpenLink), Err(Fault::Scope), "{scope}");
    }
}

#[test]
fn only_the_one_algorithm_is_taken() {
    let world = World::new();
    for alg in ["none", "NoNe", "", "HS256", "ES256", "RS256", "eddsa", "Ed25519"] {
        assert_eq!(world.fault_of_header(&json!({"alg": alg})), Fault::Algorithm, "{alg}");
    }
    for alg in [json!(null), json!(1), json!(["EdDSA"])] {
        assert_eq!(world.fault_of_header(&json!({"alg": alg})), Fault::Header);
    }
    // HS256 keyed with the public key: what a library that trusts `alg` would take.
    let header = json!({"alg": "HS256", "typ": "agent+jwt", "kid": world.signing.public().kid().as_str()});
    let forged = compact(header.to_string().as_bytes(), b"{}", |message| {
        use sha2::Digest as _;
        sha2::Sha256::new().chain_update(world.signing.public().x()).chain_update(message).finalize().into()
    });
    assert_eq!(world.fault(&forged), Fault::Algorithm);
}

#[test]
fn no_key_is_taken_from_a_token_and_no_extension_is_understood() {
    let world = World::new();
    let attacker = SigningKey::generate();
    let jwk = serde_json::to_value(attacker.public().jwk()).expect("plain data");
    assert_eq!(world.fault_of_header(&json!({"jwk": jwk})), Fault::EmbeddedKey("jwk"));
    for name in ["jku", "x5u", "x5c"] {
        let header = json!({name: "https://attacker.example/keys"});
        assert!(matches!(world.fault_of_header(&header), Fault::EmbeddedKey(found) if found == name));
    }
    for crit in [json!(["b64"]), json!([]), json!("exp")] {
        assert_eq!(world.fault_of_header(&json!({"crit": crit})), Fault::Critical);
    }
    // `null` is there as well.
    let kid = world.signing.public().kid();
    let header = format!(r#"{{"alg":"EdDSA","typ":"agent+jwt","kid":"{kid}","crit":null}}"#);
    let token = compact(header.as_bytes(), b"{}", |message| world.signing.sign(message));
    assert_eq!(world.fault(&token), Fault::Critical);
}

#[test]
fn only_tokens_of_agents_are_taken() {
    let world = World::new();
    for typ in [json!(null), json!(""), json!("JWT"), json!("at+jwt"), json!("refresh+jwt"), json!("agent")] {
        assert_eq!(world.fault_of_header(&json!({"typ": typ})), Fault::Type, "{typ}");
    }
    for typ in ["agent+jwt", "Agent+JWT", "application/agent+jwt", "Application/AGENT+jwt"] {
        let token = world.signed(&json!({"typ": typ}), &json!({}));
        assert!(world.keys.verify(&token, NOW_S).is_ok(), "{typ}");
    }
}

#[test]
fn the_name_of_a_key_is_looked_up_and_nothing_else() {
    let world = World::new();
    let long = "k".repeat(1_500);
    for kid in [json!(null), json!(""), json!("../../etc/passwd"), json!("' OR 1=1 --"), json!(long)] {
        assert_eq!(world.fault_of_header(&json!({"kid": kid})), Fault::UnknownKey);
    }
    let foreign = World::new();
    assert_eq!(world.fault(&foreign.token()), Fault::UnknownKey);
    let posing = foreign.signed(&json!({"kid": world.signing.public().kid().as_str()}), &json!({}));
    assert_eq!(world.fault(&posing), Fault::Signature);
}

#[test]
fn a_token_has_one_spelling() {
    let world = World::new();
    let token = world.token();
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    for (mangled, fault) in [
        (String::new(), Fault::Parts),
        (signed.to_owned(), Fault::Signature),
        (format!("{signed}."), Fault::Signature),
        (format!("{token}.x"), Fault::Parts),
        (format!("{token}="), Fault::Charset),
        (format!("{token} "), Fault::Charset),
        (format!("{token}\n"), Fault::Charset),
        (format!("Bearer {token}"), Fault::Charset),
        (format!("{signed}.{}", &signature[..80]), Fault::Signature),
        ("x".repeat(TOKEN_BYTES_MAX + 1), Fault::TooLong(TOKEN_BYTES_MAX + 1)),
        ("x".repeat(1 << 20), Fault::TooLong(1 << 20)),
    ] {
        let found = world.fault(&mangled);
        let is_encoding = matches!(found, Fault::Encoding(_) | Fault::Parts | Fault::Header);
        assert!(found == fault || is_encoding, "{found:?} instead of {fault:?}");
    }
}

#[test]
fn it_is_for_one_audience_of_one_issuer() {
    let world = World::new();
    for aud in ["", "agent-api", "artifact", "Agent-Link"] {
        assert_eq!(world.fault_of_claims(&json!({"aud": aud})), Fault::Audience, "{aud}");
    }
    for aud in [json!(["agent-link"]), json!(["agent-link", "x"]), json!(null), json!({"a": 1})] {
        assert_eq!(world.fault_of_claims(&json!({"aud": aud})), Fault::Claims, "{aud}");
    }
    assert_eq!(world.fault_of_claims(&json!({"iss": "https://elsewhere.example"})), Fault::Issuer);
    assert_eq!(world.fault_of_claims(&json!({"iss": [ISSUER]})), Fault::Claims);
}

#[test]
fn its_life_is_short_and_now() {
    let world = World::new();
    for (claims, fault) in [
        (json!({"exp": NOW_S + 10 * 365 * 86_400}), Fault::Lifetime),
        (json!({"exp": NOW_S + LIFETIME_S_MAX + 1}), Fault::Lifetime),
        (json!({"exp": NOW_S}), Fault::Lifetime),
        (json!({"exp": u64::MAX}), Fault::Lifetime),
        (json!({"nbf": NOW_S + LIFETIME_S_MAX}), Fault::Lifetime),
        (json!({"nbf": NOW_S + 6}), Fault::Early),
        (json!({"iat": NOW_S + 6, "exp": NOW_S + 60}), Fault::Early),
        (json!({"iat": NOW_S - 60, "nbf": NOW_S - 60, "exp": NOW_S - 5}), Fault::Expired),
        (json!({"exp": null}), Fault::Claims),
        (json!({"exp": (NOW_S + 60).to_string()}), Fault::Claims),
        (json!({"exp": 1.0e30}), Fault::Claims),
        (json!({"exp": -1}), Fault::Claims),
        (json!({"nbf": null}), Fault::Claims),
        (json!({"iat": 1.5}), Fault::Claims),
        (json!({"jti": "again"}), Fault::Claims),
        (json!({"admin": true}), Fault::Claims),
    ] {
        assert_eq!(world.fault_of_claims(&claims), fault, "{claims}");
    }
    let token = world.token();
    assert!(world.keys.verify(&token, NOW_S + 604).is_ok(), "clocks may be five seconds apart");
    assert_eq!(world.keys.verify(&token, NOW_S + 605), Err(Fault::Expired));
    assert!(world.keys.verify_late(&token, NOW_S + 86_400).is_ok());
    assert_eq!(world.keys.verify_late(&token, NOW_S - 6), Err(Fault::Early));
}

#[test]
fn a_claim_that_is_there_twice_is_not_taken() {
    let world = World::new();
    let claims = AgentToken::of(&bearer(), ISSUER, NOW_S, LIFETIME_S_MAX);
    let claims = serde_json::to_string(&claims).expect("plain data");
    let twice = format!(r#"{{"sub":"agent:other",{}"#, &claims[1..]);
    let kid = world.signing.public().kid();
    let header = format!(r#"{{"alg":"EdDSA","typ":"agent+jwt","kid":"{kid}"}}"#);
    let sign = |header: &str, claims: &str| {
        compact(header.as_bytes(), claims.as_bytes(), |message| world.signing.sign(message))
    };
    assert!(world.keys.verify(&sign(&header, &claims), NOW_S).is_ok());
    assert_eq!(world.fault(&sign(&header, &twice)), Fault::Claims);
    let header = format!(r#"{{"alg":"none",{}"#, &header[1..]);
    assert_eq!(world.fault(&sign(&header, &claims)), Fault::Header);
}

#[test]
fn keys_overlap_and_one_that_was_taken_away_opens_nothing() {
    let world = World::new();
    let (old, token) = (world.signing.public().clone(), world.token());
    let fresh = Arc::new(SigningKey::generate());
    let set = |accepted| {
        let signing = Some(Arc::clone(&fresh));
        world.keys.set(KeySet { issuer: ISSUER.to_owned(), signing, accepted });
    };
    set(vec![(fresh.public().clone(), None), (old, Some(NOW_S + 10))]);
    assert!(world.keys.verify(&token, NOW_S).is_ok());
    assert!(world.keys.verify(&world.token(), NOW_S).is_ok());
    assert_eq!(serde_json::to_value(world.keys.jwks(NOW_S)).expect("plain")["keys"][1]["kty"], "OKP");
    assert_eq!(world.keys.verify(&token, NOW_S + 10), Err(Fault::UnknownKey));
    assert_eq!(world.keys.jwks(NOW_S + 10).keys.len(), 1);
    set(vec![(fresh.public().clone(), None)]);
    assert_eq!(world.fault(&token), Fault::UnknownKey);
    world.keys.set(KeySet::default());
    assert!(matches!(world.keys.mint(&bearer(), NOW_S), Err(NoKey)));
}

proptest! {
    #[test]
    fn any_text_is_answered(text in ".{0,300}", parts in "[A-Za-z0-9_.-]{0,300}") {
        let world = World::new();
        prop_assert!(world.keys.verify(&text, NOW_S).is_err());
        prop_assert!(world.keys.verify(&parts, NOW_S).is_err());
    }

    #[test]
    fn any_header_and_claims_are_answered(header in ".{0,200}", claims in ".{0,200}") {
        let world = World::new();
        let token = compact(header.as_bytes(), claims.as_bytes(), |message| world.signing.sign(message));
        prop_assert!(world.keys.verify(&token, NOW_S).is_err());
    }

    #[test]
    fn a_token_in_which_anything_was_changed_is_not_taken(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.-]") {
        let world = World::new();
        let token = world.token();
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &with);
        prop_assert_eq!(world.keys.verify(&changed, NOW_S).is_ok(), changed == token);
        let mut shorter = token.clone();
        shorter.remove(at);
        prop_assert!(world.keys.verify(&shorter, NOW_S).is_err());
        let mut longer = token;
        longer.insert_str(at, &with);
        prop_assert!(world.keys.verify(&longer, NOW_S).is_err());
    }
}

/// The spelling of a signature that decodes to the same bytes is refused too: a token's text may serve as its name.
#[test]
fn stray_bits_at_the_end_are_refused() {
    let world = World::new();
    let token = world.token();
    let last = token.chars().last().expect("it is not empty");
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = ALPHABET.find(last).expect("base64url");
    let stray = ALPHABET.as_bytes()[at ^ 1] as char;
    let other = format!("{}{stray}", &token[..token.len() - 1]);
    assert!(BASE64.decode(&token[token.len() - 86..]).is_ok());
    assert_eq!(world.fault(&other), Fault::Encoding("signature"));
}
