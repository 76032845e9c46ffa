use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use events::EventStore;
use events::store::Memory;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;
use crate::access::Access;
use crate::api::Token;

const ISSUER: &str = "https://login.example.com/main";

/// An issuer of the tests' own.
struct Login(Ed25519KeyPair);

impl Login {
    fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    fn jwks(&self, kid: &str) -> String {
        let x = BASE64.encode(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x}]}).to_string()
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let now_s = Timestamp::now().millis() / 1_000;
        let mut all = json!({
            "iss": ISSUER, "sub": "8c2f", "aud": "hypercode", "iat": now_s, "exp": now_s + 300, "groups": ["platform"],
        });
        for (name, value) in claims.as_object().expect("an object") {
            all[name] = value.clone();
        }
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid});
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(all.to_string()));
        format!("{message}.{}", BASE64.encode(self.0.sign(message.as_bytes())))
    }
}

fn file(keys: &str) -> String {
    format!(
        r#"
        [[issuer]]
        name = "corp"
        issuer = "{ISSUER}"
        audience = "hypercode"
        keys = "{keys}"
        algorithms = ["EdDSA"]
        roles = {{ platform = ["operator", "auditor@tenant:acme"], staff = ["viewer"] }}
        "#
    )
}

#[tokio::test]
async fn an_outsider_is_who_the_issuer_says_and_may_what_their_groups_and_grants_permit() {
    let (login, home) = (Login::new(), tempfile::tempdir().expect("a directory"));
    let keys = home.path().join("jwks.json");
    std::fs::write(&keys, login.jwks("one")).expect("written");
    let issuers = Issuers::parse(&file(keys.to_str().expect("text")), None).expect("issuers");
    let store: Arc<dyn EventStore> = Arc::new(Memory::new());
    let access = Access::new(store, Token::random(), 50).with_issuers(issuers);
    let who = access.identify(&login.token("one", &json!({}))).await.expect("known");
    assert_eq!(
        (who.principal.as_str(), &who.grants[..]),
        (
            "user:corp/8c2f",
            &["operator", "auditor@tenant:acme"].map(|text| text.parse::<Grant>().expect("a role"))[..]
        )
    );
    assert!(access.renewed(&who).await.is_ok());
    let nobody = access.identify(&login.token("one", &json!({"groups": ["others"]}))).await.expect("known");
    assert_eq!(nobody.grants, []);
    let ended = crate::access::Identity { expires_at: Some(Timestamp::now()), ..who };
    assert_eq!(access.renewed(&ended).await.expect_err("it has ended").kind, ProblemKind::Unauthenticated);
    for (token, why) in [
        (Login::new().token("one", &json!({})), "signature"),
        (login.token("two", &json!({})), "`kid`"),
        (login.token("one", &json!({"iss": "https://elsewhere.example"})), "not known here"),
        (login.token("one", &json!({"aud": "another"})), "`aud`"),
        (login.token("one", &json!({"sub": "a\u{7}b"})), "`sub`"),
        (login.token("one", &json!({"sub": "x".repeat(200)})), "`sub`"),
        ("a.b.c".to_owned(), "header"),
    ] {
        let problem = access.identify(&token).await.expect_err("refused");
        assert_eq!(problem.kind, ProblemKind::Unauthenticated);
        assert!(problem.detail.contains(why), "{why}: {problem}");
    }
}

#[tokio::test]
async fn keys_are_asked_for_once_however_many_names_are_made_up() {
    let login = Arc::new(Login::new());
    let asked = Arc::new(AtomicUsize::new(0));
    let (shown, count) = (login.jwks("one"), Arc::clone(&asked));
    let router = axum::Router::new().route(
        "/keys",
        get(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            ([("cache-control", "public, max-age=1")], shown)
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let issuers = Arc::new(Issuers::parse(&file(&url), None).expect("issuers"));
    for number in 0..50 {
        let (issuers, made_up) = (Arc::clone(&issuers), login.token(&format!("k{number}"), &json!({})));
        let token = login.token("one", &json!({}));
        let (found, refused) = tokio::join!(issuers.identify(&token), issuers.identify(&made_up));
        assert!(found.is_ok() && refused.is_err());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a minute is the least for which keys are kept");
    server.abort();
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_is_no_reason_to_turn_anybody_away() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    drop(listener);
    let issuers = Issuers::parse(&file(&url), None).expect("issuers");
    for _ in 0..2 {
        let problem = issuers.identify(&Login::new().token("one", &json!({}))).await.expect_err("no keys");
        assert_eq!(problem.kind, ProblemKind::Unavailable);
        assert!(problem.detail.contains("`corp`"), "{problem}");
    }
}

#[test]
fn what_is_wrong_with_the_file_is_said() {
    let twice = file("keys.json") + &file("keys.json");
    for (text, what) in [
        (file("http://login.example.com/keys"), "`https://`"),
        (file("keys.json").replace("\"corp\"", "\"Corp\""), "`name`"),
        (file("keys.json").replace("operator", "root"), "`root` is no role"),
        (file("keys.json").replace("EdDSA", "HS256"), "`HS256` is no algorithm"),
        (file("keys.json").replace("audience", "audiences"), "audiences"),
        (twice, "twice"),
    ] {
        let error = Issuers::parse(&text, None).err().expect("it is wrong");
        assert!(error.contains(what), "{what}: {error}");
    }
    assert_eq!(max_age("no-cache, max-age=120, public"), Some(Duration::from_secs(120)));
    assert_eq!(max_age("no-store"), None);
}
