//! Agents that are parked and woken, drained within a time, and what their incarnations leave behind.

use serde_json::{Value, json};

use crate::stage::{CREW, Stage, wait_for};
use crate::support::eventually;

/// A platform with [`CREW`], whose workers hibernate.
async fn with_sleepy_workers(hibernate: &str) -> Stage {
    let stage = Stage::empty().await;
    let member = format!("{{name: worker, profile: deeds, hibernate: {hibernate}}}");
    stage.assemble(&CREW.replace("{name: worker, profile: deeds}", &member)).await.ok();
    stage
}

fn is_asleep(agent: &Value) -> bool {
    agent["status"] == "hibernating"
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_hibernates_and_is_woken_by_a_task_and_by_a_message() {
    let mut stage = with_sleepy_workers("{after: 1s}").await;
    let sleeper = stage.agent("worker", "asleep", is_asleep).await;
    let handlers =
        || stage.home.processes().iter().filter(|process| process.command.contains("deeds.py")).count();
    eventually("its sandbox is gone", async || (handlers() == 1).then_some(())).await;

    let child = json!({"do": "echo", "text": "awake"});
    let task = stage.submit(&json!({"do": "delegate", "to": "worker", "input": child})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["output"]["parts"][0]["data"]["state"], "completed", "{ended:#}");
    let woken = |agent: &Value| agent["id"] == sleeper["id"] && agent["incarnation"] == 2;
    stage.agent("worker", "woken", woken).await;

    // It stays asleep over a restart of the platform, and a message wakes it.
    stage.agent("worker", "asleep again", is_asleep).await;
    stage.up.restart(&stage.home).await;
    stage.up.ready(&stage.api).await;
    let task = stage.submit(&json!({"do": "send", "to": "worker", "text": "good morning"})).await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    eventually("the message reaches it", async || {
        let messages = stage.api.list("/v1/messages").await;
        messages.iter().any(|message| message["deliveries"][0]["status"] == "unhandled").then_some(())
    })
    .await;
    stage.agent("worker", "woken twice", |agent| agent["incarnation"] == 3).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hibernates_is_woken_by_its_timer() {
    let stage = with_sleepy_workers("{after: 1s, wakeEvery: 1s}").await;
    stage.agent("worker", "woken again and again", |agent| agent["incarnation"].as_u64() >= Some(3)).await;
    let exhausted = stage.api.list("/v1/audit?kind=restart_scheduled").await;
    assert!(exhausted.is_empty(), "waking is no restart: {exhausted:#?}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_with_its_grace() {
    let stage = Stage::with_crew().await;
    let task = stage.submit(&wait_for(&stage.home, "never")).await;
    stage.in_hand(&task, 1).await;
    stage.hypercode(&["crew", "drain", "troupe", "--grace", "1s"]).await.ok();
    assert_eq!(stage.ended(&task).await["status"], "canceled");
    let crew = eventually("the crew is gone", async || {
        stage.api.list("/v1/crews").await.into_iter().find(|crew| crew["status"] == "disbanded")
    })
    .await;
    assert_eq!(crew["reason"], "the grace of its drain is over", "{crew:#}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_incarnation_wrote_can_be_read_when_it_has_ended() {
    let stage = Stage::with_crew().await;
    let last_words =
        json!({"do": "say", "on": "stderr", "text": "these were its last words\n", "dies": true});
    let task = stage.submit(&last_words).await;
    stage.ended(&task).await;
    let agent = stage.agent("lead", "its log is kept", |agent| agent["logs"] == json!([1])).await;
    let id = agent["id"].as_str().expect("an id");
    let log = stage.hypercode(&["agent", "logs", id, "--incarnation", "1"]).await.ok();
    assert!(log.contains("these were its last words"), "{log}");

    let mut following = stage.home.start(&["agent", "logs", id, "--follow"]);
    let words = json!({"do": "say", "on": "stderr", "text": "and it lives on\n"});
    stage.ended(&stage.submit(&words).await).await;
    following.says("and it lives on").await;
    stage.leave().await;
}
