//! Tasks that wait for others: those that could wait for ever are refused, and what a child came to is told.

use serde_json::{Value, json};

use crate::stage::{Stage, wait_for};

/// A lead and workers, each of whom may ask the other, with one place each.
const CREW: &str = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: deeds}
spec:
  handler: {command: [python3, deeds.py], source: ./deeds, grace: 2s}
  env: {DIARY: "@DIARY@"}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: troupe}
spec:
  entry: lead
  members:
    - {name: lead, profile: deeds, replicas: 2}
    - {name: worker, profile: deeds}
  channels:
    - {from: lead, to: worker, kinds: [task], maxDepth: 8}
    - {from: worker, to: lead, kinds: [task], maxDepth: 8}
  supervision: {maxRestarts: 20, within: 60s, backoff: {initial: 10ms, max: 50ms}}
  liveness: {heartbeat: 500ms, missed: 60}
"#;

async fn stage() -> Stage {
    let stage = Stage::empty().await;
    stage.assemble(CREW).await.ok();
    stage
}

/// Asks for a child, and tells what came of it.
fn asking(to: &str, input: &Value, more: &Value) -> Value {
    let mut params = json!({"key": "child", "to": to, "input": input});
    params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({"do": "call", "here": true, "method": "task/delegate", "params": params})
}

async fn submit(stage: &Stage, to: &str, deed: &Value) -> String {
    let body = json!({"crew": "troupe", "to": to, "input": deed});
    let answer = stage.api.post("/v1/tasks", &body, None).await.expect("an answer").done();
    answer["id"].as_str().expect("an id").to_owned()
}

/// What a completed task answered.
async fn answered(stage: &Stage, task: &str) -> Value {
    let ended = stage.ended(task).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    ended["output"]["parts"][0]["data"].clone()
}

/// Two tasks of no kinship that wait for each other's places.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_would_wait_for_each_other_one_is_refused() {
    let stage = stage().await;
    stage.hypercode(&["crew", "scale", "troupe", "lead=1"]).await.ok();
    let (echo, go) = (json!({"do": "echo"}), stage.home.path("go"));
    let after = |to| json!({"do": "use", "tokens": 1, "for": go, "then": asking(to, &echo, &json!({}))});
    let one = submit(&stage, "lead", &after("worker")).await;
    let two = submit(&stage, "worker", &after("lead")).await;
    stage.in_hand(&one, 1).await;
    stage.in_hand(&two, 1).await;
    stage.home.write("go", "");
    let outcomes = [answered(&stage, &one).await, answered(&stage, &two).await];
    let refused = |outcome: &&Value| outcome["error"]["data"]["type"] == "would_deadlock";
    assert!(outcomes.iter().any(|outcome| refused(&outcome)), "{outcomes:#?}");
    stage.leave().await;
}

/// A replica that waits above is the only one that could take it, though its member has others; and whoever does not wait
/// may ask for anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_above_that_waits_is_asked_only_by_who_does_not_wait() {
    let stage = stage().await;
    let echo = json!({"do": "echo"});
    let back = |to: &str, more: &Value| asking("worker", &asking(to, &echo, more), &json!({}));
    let told = |outcome: &Value| outcome["result"]["output"]["parts"][0]["data"].clone();
    let any = submit(&stage, "lead[0]", &back("lead", &json!({}))).await;
    assert_eq!(told(&answered(&stage, &any).await)["result"]["state"], "completed", "the other lead is free");
    let same = submit(&stage, "lead[0]", &back("lead[0]", &json!({}))).await;
    let refused = told(&answered(&stage, &same).await);
    assert_eq!(refused["error"]["data"]["type"], "would_deadlock", "{refused:#}");
    let later = submit(&stage, "lead[0]", &back("lead[0]", &json!({"wait": false}))).await;
    let accepted = told(&answered(&stage, &later).await);
    assert_eq!(accepted["result"]["state"], "submitted", "{accepted:#}");
    stage.leave().await;
}

/// What waits for an agent that is scaled away is called off, and nobody else gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_an_agent_that_is_gone_is_called_off() {
    let stage = stage().await;
    let busy = submit(&stage, "lead[1]", &wait_for(&stage.home, "go")).await;
    stage.in_hand(&busy, 1).await;
    let waiting = submit(&stage, "lead[1]", &json!({"do": "echo"})).await;
    stage.hypercode(&["crew", "scale", "troupe", "lead=1"]).await.ok();
    let ended = stage.ended(&waiting).await;
    assert_eq!(ended["status"], "canceled", "{ended:#}");
    assert!(ended["error"].as_str().is_some_and(|error| error.contains("lead[1]")), "{ended:#}");
    stage.home.write("go", "");
    assert_eq!(stage.ended(&busy).await["status"], "completed", "what it has in hand it ends");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_is_told_what_became_of_its_child() {
    let stage = stage().await;
    let never = wait_for(&stage.home, "never");
    for (input, more, code, kind) in [
        (never, json!({"timeoutMs": 300}), 504, "deadline"),
        (json!({"do": "die", "attempts": 9}), json!({}), 500, "crash"),
        (json!({"do": "fail"}), json!({}), 500, "handler_failed"),
    ] {
        let task = submit(&stage, "lead", &asking("worker", &input, &more)).await;
        let child = answered(&stage, &task).await["result"].clone();
        assert_eq!(child["state"], "failed", "{child:#}");
        assert_eq!((&child["error"]["code"], &child["error"]["data"]["type"]), (&json!(code), &json!(kind)));
    }
    stage.leave().await;
}

/// A default is an answer that nobody gave: it is one that somebody could give, and a `false` is a no.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_granted_by_a_default_that_does_not_grant_it() {
    let stage = stage().await;
    let ask = |more: Value| {
        let mut params = json!({"key": "q", "title": "pay?", "timeoutMs": 100, "onTimeout": "default"});
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"do": "call", "here": true, "method": "input/request", "params": params})
    };
    for (question, refusal) in [
        (json!({"kind": "approval"}), "`default`"),
        (json!({"kind": "approval", "default": "yes"}), "`default`"),
        (json!({"kind": "choice", "choices": ["a"], "default": "zz"}), "`choices`"),
        (json!({"kind": "choice", "onTimeout": "decline"}), "`choices`"),
    ] {
        let task = submit(&stage, "lead", &ask(question)).await;
        let error = answered(&stage, &task).await["error"].clone();
        assert_eq!(error["data"]["type"], "invalid_params", "{error:#}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(refusal)), "{error:#}");
    }
    for (default, action) in [(true, "accept"), (false, "decline")] {
        let task = submit(&stage, "lead", &ask(json!({"kind": "approval", "default": default}))).await;
        assert_eq!(answered(&stage, &task).await["result"]["action"], action);
    }
    stage.leave().await;
}

/// ES-5: the same key gives the first outcome, also when more has happened since.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_is_answered_as_it_was_at_first() {
    let stage = stage().await;
    let body = json!({"crew": "troupe", "to": "lead", "input": {"do": "echo"}});
    let first = stage.api.insist("/v1/tasks", &body, "k").await.done();
    stage.ended(first["id"].as_str().expect("an id")).await;
    let again = stage.api.insist("/v1/tasks", &body, "k").await.done();
    assert_eq!(first, again);
    stage.leave().await;
}
