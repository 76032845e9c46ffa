//! Secrets on a running platform: they reach the agents that need them, and are found nowhere else.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::stage::Stage;
use crate::support::Home;
use crate::vault::{Canaries, done, holder, set, stage};

/// The `secret_resolved` events, decoded, by name and version.
async fn resolved(stage: &Stage) -> Vec<(String, Value)> {
    let log = stage.home.log().await;
    let events = log.read(events::Position(0), 10_000).await.expect("the log can be read");
    let resolved = events.iter().filter(|event| &*event.kind == "secret_resolved");
    let payloads = resolved.map(|event| serde_json::from_str::<Value>(&event.payload).expect("JSON"));
    payloads.map(|payload| (payload["name"].as_str().expect("a name").to_owned(), payload)).collect()
}

/// What pads a base64 at its end gives nothing away.
fn is_masked(said: &Value) -> bool {
    said.as_str().is_some_and(|said| said.trim_end_matches('=') == "***")
}

async fn secrets_reach_their_agent(stage: &Stage, crew: &str, canaries: &Canaries) {
    set(stage, canaries.of("FROM_STORE")).await.ok();
    stage.hypercode(&["crew", "assemble", crew]).await.ok();
    let task = done(stage, "tell").await;
    let told = &task["output"]["parts"][0]["data"];
    assert_eq!((&told["digests"], &told["mode"]), (&canaries.digests(), &json!("0o400")), "{task:#}");
    let said = told["said"].as_array().expect("a list");
    assert!(said.len() == 12 && said.iter().all(is_masked), "{task:#}");
    let given = resolved(stage).await;
    assert_eq!(given.len(), 4, "{given:?}");
    for (name, payload) in &given {
        let version = (name == "FROM_STORE").then_some(1);
        assert_eq!((&payload["incarnation"], payload["version"].as_u64()), (&json!(1), version), "{payload}");
    }
    let failed = done(stage, "fail").await;
    assert!(failed["status"] == "failed" && failed.to_string().contains("***"), "{failed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_the_agent_that_needs_them_and_the_next_life_gets_the_next_value() {
    let canaries = Canaries::new();
    let (stage, crew) = stage(Home::new(), &canaries).await;
    secrets_reach_their_agent(&stage, &crew, &canaries).await;
    let listed = stage.json(&["secret", "list"]).await;
    assert_eq!(listed["items"][0]["version"], 1, "{listed:#}");
    assert!(!listed.to_string().contains(canaries.of("FROM_STORE")));

    set(&stage, "another-value").await.ok();
    let agent = holder(&stage, "is there", |_| true).await;
    let id = agent["id"].as_str().expect("an id");
    stage.hypercode(&["agent", "restart", id]).await.ok();
    holder(&stage, "lives again", |agent| agent["incarnation"] == 2 && agent["status"] == "ready").await;
    let task = done(&stage, "tell").await;
    let told = &task["output"]["parts"][0]["data"]["digests"]["FROM_STORE"];
    assert_eq!(told, &json!(hex::encode(Sha256::digest("another-value"))), "{task:#}");
    let given = resolved(&stage).await;
    assert!(given.iter().any(|(_, payload)| payload["version"] == 2), "{given:?}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_agents_in_native_sandboxes() {
    let canaries = Canaries::new();
    let (stage, crew) = stage(Home::by_default(), &canaries).await;
    secrets_reach_their_agent(&stage, &crew, &canaries).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_secret_does_not_start_and_the_reason_is_told() {
    let canaries = Canaries::new();
    let (stage, crew) = stage(Home::new(), &canaries).await;
    let said = stage.hypercode(&["crew", "assemble", &crew]).await;
    assert!(said.code != 0, "{said:?}");
    for part in ["FROM_STORE", "holder", "stored `canary`", "hypercode secret set canary"] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    set(&stage, canaries.of("FROM_STORE")).await.ok();
    stage.hypercode(&["crew", "assemble", &crew]).await.ok();
    stage.hypercode(&["secret", "delete", "canary", "--reason", "leaked"]).await.ok();
    stage.hypercode(&["secret", "delete", "canary"]).await.refused(4);
    let agent = holder(&stage, "is ready", |agent| agent["status"] == "ready").await;
    stage.hypercode(&["agent", "restart", agent["id"].as_str().expect("an id")]).await.ok();
    let given_up = holder(&stage, "is given up", |agent| agent["status"] == "quarantined").await;
    assert!(given_up.to_string().contains("hypercode secret set canary"), "{given_up:#}");
    let tries = given_up["incarnation"].as_u64().expect("a number");
    assert!((2..=6).contains(&tries), "as often as the crew allows, and no more: {given_up:#}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_no_argument_and_nobody_is_shown_one() {
    let stage = Stage::empty().await;
    let api = &stage.api;
    let refused = api.insist("/v1/secrets", &json!({"name": "a", "value": "short"}), "k1").await;
    assert_eq!(refused.status, 400, "{refused:?}");
    set(&stage, "a-value-to-keep").await.ok();
    let auditor = stage.json(&["token", "mint", "--role", "auditor"]).await;
    let file = stage.home.write("token", auditor["body"]["secret"].as_str().expect("a secret"));
    let by = ["--token-file", file.to_str().expect("text")];
    let value = stage.home.path("secrets/value");
    let value = value.to_str().expect("text");
    let listed = stage.hypercode(&[&by[..], &["secret", "list"]].concat()).await.ok();
    assert!(listed.contains("canary") && !listed.contains("a-value-to-keep"), "{listed}");
    stage.hypercode(&[&by[..], &["secret", "set", "canary", "--file", value]].concat()).await.refused(3);
    stage.hypercode(&[&by[..], &["secret", "delete", "canary"]].concat()).await.refused(3);
    stage.hypercode(&["secret", "set", "canary", "a-value-to-keep"]).await.refused(2);
    stage.leave().await;
}
