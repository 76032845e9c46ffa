//! What is done to agents and to what stands by from outside, through the daemon itself: it is ended, and an event tells of it.
//! `docs/attacks.md` says where the other attacks are tried.

use std::process::Command;

use events::Position;
use events::domain::DomainEvent;
use events::domain::platform::{Event, Tampered, Tampering};
use serde_json::Value;

use crate::docker::{
    ECHO, PYTHON, containers, containers_of, crew, docker, in_hand, is_available, ready, with_images,
};
use crate::pool::{light, sandboxes};
use crate::stage::{IMAGE, Stage};
use crate::support::{Home, Up, eventually};

/// What the log tells of tampering with this sandbox, once it tells anything.
async fn tampered(stage: &Stage, sandbox: &str) -> Vec<Tampered> {
    eventually("an event of tampering", async || {
        let log = stage.home.log().await.read(Position(0), 10_000).await.expect("the log can be read");
        let decoded =
            log.iter().filter_map(|event| Event::decode(&event.kind, event.schema, &event.payload).ok());
        let told = decoded.filter_map(|event| match event {
            Event::Tampered(tampered) if tampered.sandbox.as_str() == sandbox => Some(tampered),
            _ => None,
        });
        Some(told.collect::<Vec<_>>()).filter(|told| !told.is_empty())
    })
    .await
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {value:#}"))
}

/// A platform with one agent in a container, and that agent.
async fn one_agent() -> Option<(Stage, Value)> {
    if !is_available() {
        return None;
    }
    let home = Home::in_containers();
    with_images(&home).await;
    let stage = Stage::over(home).await;
    stage.assemble(&crew("one", PYTHON, ECHO)).await.ok();
    let agent = ready(&stage, 1).await;
    Some((stage, agent))
}

/// The agent goes on in another container, answers, and the one that was tampered with is gone.
async fn goes_on(stage: Stage, before: &Value) {
    let after = ready(&stage, 2).await;
    assert_ne!(after["container"], before["container"]);
    let said = stage.hypercode(&["task", "submit", "one", "still here", "--wait"]).await.ok();
    assert!(said.contains("still here"), "{said}");
    assert_eq!(containers_of(&stage.home), [text(&after, "container")]);
    stage.leave().await;
}

/// T33: a container that ended and was started again by hand while no platform was there to see it.
#[tokio::test(flavor = "multi_thread")]
async fn t33_a_second_life_by_hand_is_not_adopted_and_is_told_of() {
    let Some((mut stage, before)) = one_agent().await else { return };
    stage.up.kill().await;
    let container = text(&before, "container");
    docker(&["kill", container]);
    docker(&["start", container]);
    stage.up = Up::start(&stage.home).await;
    let told = tampered(&stage, text(&before, "sandbox")).await;
    assert!(matches!(&told[..], [Tampered { what: Tampering::Started, .. }]), "{told:?}");
    assert_eq!(told[0].agent.as_deref(), before["id"].as_str());
    goes_on(stage, &before).await;
}

/// T40: whatever is executed in a sandbox that stands by spoils it: nobody ever claims it.
#[tokio::test(flavor = "multi_thread")]
async fn t40_a_standby_in_which_something_was_executed_is_nobodys() {
    let Some(stage) = Stage::in_containers().await else { return };
    let pool = "apiVersion: hypercode.dev/v1\nkind: Pool\nmetadata: {name: small}\nspec:\n  image: IMAGE\n  \
                size: {min: 0, max: 5, target: 2}\n";
    stage.apply(&pool.replace("IMAGE", IMAGE)).await;
    let standing = sandboxes(&stage.pool("filled", |pool| pool["ready"] == 2).await, "ready");
    let victim = standing.first().expect("two stand by");
    let container = &containers(&format!("label=hypercode.sandbox={victim}"))[0];
    let _ = Command::new("docker").args(["exec", container, "true"]).output().expect("docker");
    let told = tampered(&stage, victim).await;
    assert!(matches!(&told[..], [Tampered { what: Tampering::Executed, agent: None, .. }]), "{told:?}");
    let pool = stage.pool("rid of it", |pool| pool["ready"] == 2 && pool["destroyed"] == 1).await;
    assert!(!sandboxes(&pool, "ready").contains(victim), "{pool:#}");
    stage.assemble(&light(1)).await.ok();
    assert!(!stage.agents().await.contains(victim), "somebody claimed it");
    stage.leave_pool().await;
}

/// T26: an agent that makes processes without end costs its own task, and no other agent anything.
#[tokio::test(flavor = "multi_thread")]
async fn t26_a_fork_bomb_ends_as_a_failed_task_beside_an_agent_that_answers() {
    let Some((stage, _)) = one_agent().await else { return };
    let bomb =
        "{protocol: exec, command: [python3, -c, \"import os\\nwhile True: os.fork()\"], timeout: 20s}";
    stage.assemble(&crew("bomb", PYTHON, bomb)).await.ok();
    let bomb = in_hand(&stage, "bomb", "go off").await;
    let said = stage.hypercode(&["task", "submit", "one", "unharmed", "--wait"]).await.ok();
    assert!(said.contains("unharmed"), "{said}");
    let ended = stage.ended(&bomb).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    let error = ended["error"].as_str().expect("a reason");
    assert!(!error.contains("longer than"), "it met its bounds, not its time: {error}");
    stage.leave().await;
}
