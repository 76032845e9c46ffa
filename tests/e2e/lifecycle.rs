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

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_can_take_says_what_it_waits_for() {
    let stage = Stage::with_crew().await;
    let waits_for = async |task: &str, reason: &str| {
        eventually(&format!("task {task} waits: {reason}"), async || {
            let wait = stage.json(&["task", "show", task]).await["waitsFor"].clone();
            (wait["reason"] == reason).then(|| wait["detail"].as_str().expect("a detail").to_owned())
        })
        .await
    };

    stage.hypercode(&["crew", "pause", "troupe"]).await.ok();
    let task = stage.submit(&json!({"do": "echo"})).await;
    assert!(waits_for(&task, "crew_paused").await.contains("hypercode crew resume"));
    stage.hypercode(&["crew", "resume", "troupe"]).await.ok();
    assert_eq!(stage.ended(&task).await["status"], "completed");

    // As many as the lead takes at a time, and one more.
    let file = stage.home.data().join("go");
    let wait = json!({"do": "wait", "for": file});
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(stage.submit(&wait).await);
    }
    assert!(waits_for(&tasks[4], "agents_busy").await.contains("`lead`"));
    std::fs::write(&file, "").expect("a file");
    for task in &tasks {
        assert_eq!(stage.ended(task).await["status"], "completed");
    }

    let lead = stage.agent("lead", "ready", |agent| agent["status"] == "ready").await;
    let lead = lead["id"].as_str().expect("an id");
    stage.hypercode(&["kill", "agent", lead, "--reason", "a test"]).await.ok();
    let submit = ["task", "submit", "troupe", "--input", r#"{"do":"echo"}"#, "--wait"];
    let mut submitting = stage.home.start(&submit);
    let task = eventually("the task is accepted", async || {
        let tasks = stage.api.list("/v1/tasks?status=submitted").await;
        Some(tasks.first()?["id"].as_str().expect("an id").to_owned())
    })
    .await;
    let detail = waits_for(&task, "agents_gone").await;
    assert!(
        detail.contains(&format!("{lead} was killed")) && detail.contains("crew scale CREW lead=1"),
        "{detail}"
    );
    submitting.says("the task waits: no agent of `lead` is left").await;
    stage.hypercode(&["crew", "scale", "troupe", "lead=1"]).await.ok();
    assert!(submitting.ends().await.success());
    assert_eq!(stage.ended(&task).await["status"], "completed");
    assert!(stage.json(&["task", "show", &task]).await["waitsFor"].is_null());
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_as_long_as_it_is_asked_to_be() {
    let stage = Stage::with_crew().await;
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(stage.submit(&json!({"do": "echo"})).await);
    }
    stage.ended(&tasks[2]).await;
    let ids = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
    };
    let two = stage.hypercode(&["task", "list", "--limit", "2", "--output", "json"]).await;
    assert_eq!(ids(&two.json()), tasks[1..]);
    assert_eq!(ids(&stage.json(&["task", "list", "--all"]).await), tasks);
    stage.hypercode(&["task", "list", "--limit", "0"]).await.refused(2);
    stage.leave().await;
}
