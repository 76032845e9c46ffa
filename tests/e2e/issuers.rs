//! People whom an outside issuer knows.

use serde_json::json;

use crate::stage::Stage;
use crate::support::{Home, Issuer, Up};

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_token_maps_to_roles_by_configuration() {
    let (home, issuer) = (Home::new(), Issuer::new());
    let up = Up::spawn_after(&format!("export {}", issuer.known_to(&home)), &home);
    let stage = Stage::of(home, up).await;
    let file = stage.home.write("carol.token", issuer.token(&["audit", "others"]));
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
    let mut tampered = issuer.token(&["audit"]);
    let other = if tampered.as_bytes()[60] == b'A' { "B" } else { "A" };
    tampered.replace_range(60..61, other);
    stage.home.write("carol.token", tampered);
    run(&["whoami"]).await.refused(3);
    stage.leave().await;
}
