//! Starting and stopping the platform.

use serde_json::json;

use crate::stage::{CREW, Stage, wait_for};
use crate::support::{Home, Up, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_platform_at_a_time() {
    let stage = Stage::empty().await;
    let said = stage.hypercode(&["up", "--listen", "127.0.0.1:0"]).await.refused(5);
    let data = stage.home.data();
    assert!(said.contains("in use") && said.contains(data.to_str().expect("text")), "{said}");
    // Reading takes nothing away.
    stage.hypercode(&["audit", "verify", "--offline"]).await.ok();
    // The first is not disturbed, and can still be found.
    stage.hypercode(&["crew", "list"]).await.ok();
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_without_a_platform_say_what_to_do() {
    let home = Home::new();
    let said = home.hypercode(&["crew", "list"]).await.refused(5);
    assert!(said.contains("hypercode up"), "{said}");
    let up = Up::start(&home).await;
    assert!(up.stop().await.success());
    let said = home.hypercode(&["crew", "list"]).await.refused(5);
    assert!(said.contains("hypercode up"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_not_found() {
    let stage = Stage::empty().await;
    let task = "tk_00000000000000000000000000000000";
    for args in [
        &["task", "show", task][..],
        &["task", "cancel", task],
        &["crew", "show", "nobody"],
        &["agent", "show", "ag_00000000000000000000000000000000"],
        &["profile", "show", "nobody"],
        &["task", "submit", "nobody", "do it"],
        &["audit", "show", "999999"],
        &["audit", "show", "0"],
    ] {
        let ran = stage.hypercode(args).await;
        assert_eq!(ran.code, 4, "{args:?}: {ran:?}");
    }
    let said = stage.hypercode(&["audit", "tail", "--kind", "task_complete"]).await.refused(2);
    assert!(said.contains("did you mean `task_completed`?"), "{said}");
    stage.leave().await;
}

/// What this command would choose itself says nothing of the agents that run.
#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_of_the_platform_that_runs() {
    let stage = Stage::empty().await;
    let examined = stage.json(&["doctor", "--set", "sandbox=auto"]).await;
    let finding = |what: &str| {
        let findings = examined["findings"].as_array().expect("findings");
        findings.iter().find(|finding| finding["what"] == what).expect("a finding").clone()
    };
    let isolation = finding("isolation");
    assert_eq!(isolation["verdict"], "warning", "{isolation:#}");
    let found = isolation["found"].as_str().expect("text");
    assert!(found.contains("none (process sandboxes)"), "{found}");
    let directory = finding("data directory");
    assert!(!directory.to_string().contains("stop that process"), "{directory:#}");
    stage.leave().await;
}

/// SIGTERM lets agents work on; the next platform adopts them with what they have in hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_in_hand_outlives_a_restart() {
    let Stage { home, api, up } = Stage::with_crew().await;
    let child = wait_for(&home, "go");
    let body = json!({"crew": "troupe", "input": {"do": "delegate", "to": "worker", "input": child}});
    let done = api.insist("/v1/tasks", &body, "k1").await.done();
    let task = done["id"].as_str().expect("an id").to_owned();
    let in_hand = || home.diary().iter().any(|entry| entry["member"] == "worker");
    eventually("the child is in hand", async || in_hand().then_some(())).await;
    let handlers = home.diary().len();
    assert!(up.stop().await.success());
    assert!(!home.processes().is_empty(), "agents work on without a platform");
    home.hypercode(&["audit", "verify", "--offline"]).await.ok();

    // It ends while nobody listens.
    home.write("go", "");
    let stage = Stage { up: Up::start(&home).await, home, api };
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    assert_eq!(ended["attempts"], 1, "{ended:#}");
    assert_eq!(stage.home.diary().len(), handlers, "nobody was given anything twice");
    for agent in stage.api.list("/v1/agents?crew=troupe").await {
        assert_eq!(agent["incarnation"], 1, "{agent:#}");
    }
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gy_1_a_crew_that_requires_certificates_is_not_started() {
    let stage = Stage::empty().await;
    let gated = CREW.replace("  liveness:", "  gym: {require: [hello-world]}\n  liveness:");
    let said = stage.assemble(&gated).await.refused(1);
    assert!(said.contains("spec.gym.require") && said.contains("hello-world"), "{said}");
    assert_eq!(stage.api.list("/v1/agents").await, Vec::<serde_json::Value>::new());
    stage.leave().await;
}
