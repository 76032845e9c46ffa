//! Others than the administrator: their tokens, what they may do, and what is recorded when they may not.

use serde_json::json;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_reads_everything_and_changes_nothing() {
    let stage = Stage::with_crew().await;
    let minted = stage.json(&["token", "mint", "--role", "auditor", "--purpose", "the yearly audit"]).await;
    let secret = minted["body"]["secret"].as_str().expect("a secret");
    let file = stage.home.write("auditor.token", secret);
    let auditor = ["--token-file", file.to_str().expect("text")];
    let run = async |args: &[&str]| stage.hypercode(&[&auditor[..], args].concat()).await;

    let who = run(&["whoami", "--output", "json"]).await.json();
    assert_eq!((&who["principal"], &who["roles"]), (&json!("user:auditor"), &json!(["auditor"])));
    run(&["audit", "tail"]).await.ok();
    run(&["crew", "list"]).await.ok();

    let said = run(&["crew", "disband", "troupe"]).await.refused(3);
    let (_, position) = said.split_once("recorded at position ").expect("where it is recorded");
    assert!(said.contains("`crew:disband`"), "{said}");
    let event = stage.json(&["audit", "show", position.trim()]).await;
    assert_eq!((&event["kind"], &event["principal"]), (&json!("access_denied"), &json!("user:auditor")));

    // Nobody makes themselves more than they are.
    run(&["token", "mint", "--role", "platform_admin"]).await.refused(3);
    run(&["role", "grant", "user:auditor", "operator"]).await.refused(3);

    // What it may not look at is not made up from the files beside the platform.
    let approver = stage.json(&["token", "mint", "--role", "approver", "--purpose", "to approve"]).await;
    let file = stage.home.write("approver.token", approver["body"]["secret"].as_str().expect("a secret"));
    let doctor = ["--token-file", file.to_str().expect("text"), "doctor", "--output", "json"];
    let findings = stage.hypercode(&doctor).await.json();
    let finding = |what: &str| {
        let found = findings["findings"].as_array().expect("findings").iter().find(|it| it["what"] == what);
        found.expect("it is looked at")["found"].to_string()
    };
    assert!(finding("checkpoint sinks").contains("may not look"), "{findings}");
    assert!(finding("views").contains("no projection has stopped"), "{findings}");

    let id = minted["body"]["token"].as_str().expect("an id");
    stage.hypercode(&["token", "revoke", id, "--reason", "the audit is over"]).await.ok();
    run(&["crew", "list"]).await.refused(3);
    let was = stage.json(&["audit", "access"]).await;
    assert!(was["items"].to_string().contains("user:auditor"), "{was}");
    stage.leave().await;
}
