//! Agents in containers that come to the platform over TCP.

use std::process::Command;

use crate::docker::{ECHO, PYTHON, containers_of, crew, docker, inspected, is_available, ready, with_images};
use crate::pool::{light, sandboxes};
use crate::stage::{IMAGE, Stage};
use crate::support::{Home, Up};

/// A platform over TCP; none, and a line, without a daemon.
async fn stage() -> Option<Stage> {
    if !is_available() {
        return None;
    }
    let home = Home::over_tcp();
    with_images(&home).await;
    Some(Stage::over(home).await)
}

/// The networks of this home's platform.
fn networks(home: &Home) -> Vec<String> {
    let instance = std::fs::read_to_string(home.path("data/instance")).expect("an instance");
    let filter = format!("label=hypercode.instance={}", instance.trim());
    docker(&["network", "ls", "--format", "{{.Name}}", "--filter", &filter])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// An agent works, is adopted after the platform was killed, is recovered after its relay was, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_works_behind_a_relay_and_leaves_nothing() {
    let Some(mut stage) = stage().await else { return };
    stage.assemble(&crew("far", PYTHON, ECHO)).await.ok();
    let before = ready(&stage, 1).await;
    let sandbox = before["sandbox"].as_str().expect("a sandbox").to_owned();
    assert_eq!(networks(&stage.home), std::slice::from_ref(&sandbox));
    let said = stage.hypercode(&["task", "submit", "far", "over the wire", "--wait"]).await.ok();
    assert!(said.contains("over the wire"), "{said}");
    for variables in inspected(&stage.home, "{{range .Config.Env}}{{.}} {{end}}") {
        let names: Vec<&str> = variables.split_whitespace().filter_map(|one| one.split('=').next()).collect();
        assert!(names.iter().all(|name| ["HOME", "LANG", "PATH", "TMPDIR"].contains(name)), "{variables}");
    }

    stage.up.kill().await;
    stage.up = Up::start(&stage.home).await;
    let said = stage.hypercode(&["task", "submit", "far", "adopted", "--wait"]).await.ok();
    assert!(said.contains("adopted"), "{said}");
    assert_eq!(ready(&stage, 1).await["container"], before["container"], "it is the same one");

    docker(&["kill", &format!("{sandbox}.relay")]);
    let after = ready(&stage, 2).await;
    assert_eq!(networks(&stage.home), [after["sandbox"].as_str().expect("a sandbox")]);
    let home = stage.home.path("data/instance");
    let instance = std::fs::read_to_string(home).expect("an instance");
    stage.leave().await;
    let filter = format!("label=hypercode.instance={}", instance.trim());
    for what in [
        &["ps", "--all", "--quiet", "--filter", &filter],
        &["network", "ls", "--quiet", "--filter", &filter][..],
    ] {
        assert_eq!(docker(what), "", "{what:?}");
    }
}

/// SB-2 over TCP: what stands by has linked with a token of its own, and serves whoever claims it.
#[tokio::test(flavor = "multi_thread")]
async fn sb_2_what_stands_by_behind_a_relay_is_claimed() {
    let Some(stage) = stage().await else { return };
    let pool = "apiVersion: hypercode.dev/v1\nkind: Pool\nmetadata: {name: small}\nspec:\n  image: IMAGE\n  \
                size: {min: 0, max: 5, target: 2}\n";
    stage.apply(&pool.replace("IMAGE", IMAGE)).await;
    let standing = sandboxes(&stage.pool("filled", |pool| pool["ready"] == 2).await, "ready");
    stage.assemble(&light(1)).await.ok();
    let agents = stage.agents().await;
    assert!(agents.len() == 2 && agents.is_subset(&standing), "{agents:?} of {standing:?}");
    stage.leave_pool().await;
}

/// What an earlier platform left of a sandbox that was being made is removed at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_sandbox_is_removed_at_the_start() {
    let Some(mut stage) = stage().await else { return };
    stage.assemble(&crew("far", PYTHON, ECHO)).await.ok();
    let before = ready(&stage, 1).await;
    stage.up.kill().await;
    let sandbox = before["sandbox"].as_str().expect("a sandbox");
    let removed = Command::new("docker").args(["rm", "--force", sandbox]).output().expect("docker");
    assert!(removed.status.success());
    stage.up = Up::start(&stage.home).await;
    let after = ready(&stage, 2).await;
    assert_eq!(networks(&stage.home), [after["sandbox"].as_str().expect("a sandbox")]);
    assert_eq!(containers_of(&stage.home).len(), 2, "an agent and its relay");
    stage.leave().await;
}
