//! People whom an outside issuer knows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use events::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use crate::stage::Stage;
use crate::support::{Home, Up};

const ISSUERS: &str = r#"
[[issuer]]
name = "corp"
issuer = "https://login.example.com/main"
audience = "hypercode"
keys = "@KEYS@"
algorithms = ["EdDSA"]
roles = { audit = ["auditor"] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_token_maps_to_roles_by_configuration() {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key");
    let x = BASE64.encode(key.public_key());
    let home = Home::new();
    let keys = home.write(
        "jwks.json",
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}).to_string(),
    );
    let issuers = home.write("issuers.toml", ISSUERS.replace("@KEYS@", &keys.display().to_string()));
    let up = Up::spawn_after(&format!("export HYPERCODE_ISSUERS_FILE={}", issuers.display()), &home);
    let stage = Stage::of(home, up).await;

    let now_s = Timestamp::now().millis() / 1_000;
    let token = |groups: &[&str]| {
        let claims = json!({
            "iss": "https://login.example.com/main", "aud": "hypercode", "sub": "8c2f", "groups": groups,
            "iat": now_s, "exp": now_s + 600,
        });
        let message = format!(
            "{}.{}",
            BASE64.encode(r#"{"alg":"EdDSA","kid":"k"}"#),
            BASE64.encode(claims.to_string())
        );
        format!("{message}.{}", BASE64.encode(key.sign(message.as_bytes())))
    };
    let file = stage.home.write("carol.token", token(&["audit", "others"]));
    let carol = ["--token-file", file.to_str().expect("text")];
    let run = async |args: &[&str]| stage.hypercode(&[&carol[..], args].concat()).await;
    let who = run(&["whoami", "--output", "json"]).await.json();
    assert_eq!((&who["principal"], &who["roles"]), (&json!("user:corp/8c2f"), &json!(["auditor"])));
    run(&["audit", "tail"]).await.ok();
    let said = run(&["key", "rotate"]).await.refused(3);
    let (_, position) = said.split_once("recorded at position ").expect("where it is recorded");
    let event = stage.json(&["audit", "show", position.trim()]).await;
    assert_eq!((&event["kind"], &event["principal"]), (&json!("access_denied"), &json!("user:corp/8c2f")));

    // A role that is granted here adds to those of the groups.
    stage.hypercode(&["role", "grant", "user:corp/8c2f", "operator"]).await.ok();
    let who = run(&["whoami", "--output", "json"]).await.json();
    assert_eq!(who["roles"], json!(["operator", "auditor"]));
    let mut tampered = token(&["audit"]);
    let other = if tampered.as_bytes()[60] == b'A' { "B" } else { "A" };
    tampered.replace_range(60..61, other);
    stage.home.write("carol.token", tampered);
    run(&["whoami"]).await.refused(3);
    stage.leave().await;
}
