//! Idempotency keys: who asks again gets the first answer, whatever has happened since (ES-5).

use serde_json::{Value, json};

use crate::stage::{CREW, Stage};

/// The crew of [`CREW`] as one JSON manifest, under another name.
fn manifest(name: &str) -> Value {
    json!({
        "apiVersion": "hypercode.dev/v1", "kind": "Crew", "metadata": {"name": name},
        "spec": {"entry": "lead", "members": [{"name": "lead", "profile": "deeds"}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_answered_as_the_first_time_though_its_crew_has_ended() {
    let stage = Stage::with_crew().await;
    let assemble = json!({"manifest": manifest("band")});
    let submit = json!({"crew": "band", "input": {"do": "echo"}});
    let end = json!({});
    let commands = [
        ("/v1/crews/assemble", &assemble, "k-assemble"),
        ("/v1/tasks", &submit, "k-submit"),
        ("/v1/crews/band/disband", &end, "k-disband"),
    ];
    let post = async |path: &str, body: &Value, key: &str| {
        stage.api.post(path, body, Some(key)).await.expect("an answer")
    };
    let mut first = Vec::new();
    for (path, body, key) in commands {
        first.push(post(path, body, key).await.done());
    }
    let answered_as_before = async || {
        for ((path, body, key), first) in commands.iter().zip(&first) {
            let again = post(path, body, key).await.done();
            assert_eq!(
                (&again["id"], &again["body"]["agents"]),
                (&first["id"], &first["body"]["agents"]),
                "{path}"
            );
        }
    };
    answered_as_before().await;
    let other = post("/v1/crews/assemble", &assemble, "k-other").await.done();
    assert_ne!(other["id"], first[0]["id"]);
    answered_as_before().await;
    let left = stage.json(&["crew", "show", "band"]).await;
    assert_eq!((&left["id"], &left["status"]), (&other["id"], &json!("running")), "{left:#}");
    let tasks = stage.api.list("/v1/tasks").await;
    assert_eq!(tasks.len(), 1, "no command was carried out twice: {tasks:#?}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_used_for_something_else_is_named() {
    let stage = Stage::with_crew().await;
    let submit = |text: &str| json!({"crew": "troupe", "input": {"do": "echo", "text": text}});
    stage.api.post("/v1/tasks", &submit("one"), Some("mine")).await.expect("an answer").done();
    let refused = stage.api.post("/v1/tasks", &submit("two"), Some("mine")).await.expect("an answer");
    assert_eq!(refused.status, 422, "{refused:?}");
    let detail = refused.body["detail"].as_str().expect("a reason").to_owned();
    assert_eq!(detail, "the key `mine` was used before for something else");
    // A crew of another name is something else too.
    stage.assemble(&CREW.replace("name: troupe", "name: other")).await.ok();
    let elsewhere = json!({"crew": "other", "input": {"do": "echo", "text": "one"}});
    let refused = stage.api.post("/v1/tasks", &elsewhere, Some("mine")).await.expect("an answer");
    assert_eq!(refused.status, 422, "{refused:?}");
    stage.leave().await;
}
