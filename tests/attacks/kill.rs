//! The kill switch: whatever an agent is doing, it is not heard any more, its sandbox goes, and it does not come back.

use std::time::{Duration, Instant};

use events::{Position, Recorded};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::stage::{CREW, Stage, wait_for};
use crate::support::{Up, eventually_within, send};
use crate::told::{text, told};

/// Nothing of who was killed is accepted so long after the kill was.
pub(crate) const SILENT: Duration = Duration::from_secs(1);
/// Its sandbox is gone so long after it.
pub(crate) const GONE: Duration = Duration::from_secs(10);

/// Everything in the log.
async fn events(stage: &Stage) -> Vec<Recorded> {
    stage.home.log().await.read(Position(0), 100_000).await.expect("the log can be read")
}

/// The processes of sandboxes: all but the platform.
pub(crate) fn in_sandboxes(stage: &Stage) -> Vec<i32> {
    let processes = stage.home.processes();
    processes.iter().filter(|process| !process.command.contains(" up ")).map(|process| process.pid).collect()
}

/// Waits until these processes are gone, as they must be in time.
async fn gone(stage: &Stage, processes: &[i32], since: Instant) {
    let left = GONE.saturating_sub(since.elapsed());
    eventually_within(left, "the sandboxes of who was killed are gone", async || {
        let there = in_sandboxes(stage);
        processes.iter().all(|process| !there.contains(process)).then_some(())
    })
    .await;
}

/// After the kill was accepted, nothing was recorded in the name of these agents but what was on its way. Where it is
/// recorded.
pub(crate) async fn silent(stage: &Stage, agents: &[&str]) -> u64 {
    let events = events(stage).await;
    let killed = events.iter().find(|event| matches!(&*event.kind, "agent_condemned" | "crew_killed"));
    let (position, killed) =
        killed.map(|event| (event.position, event.recorded_at)).expect("the kill is recorded");
    for event in &events {
        let by = event.meta.principal.as_str();
        let is_theirs = agents.iter().any(|agent| by.strip_prefix("agent:") == Some(agent));
        let late_ms = event.recorded_at.millis() - killed.millis();
        assert!(!is_theirs || late_ms <= SILENT.as_millis() as i64, "{late_ms} ms late: {event:?}");
    }
    position.0
}

/// A crew whose worker chatters with a lead that hears it, and the worker.
pub(crate) async fn chattering() -> (Stage, String, Value) {
    let stage = Stage::empty().await;
    let crew = CREW.replace(
        "    - {from: lead, to: worker, kinds: [task, message]}",
        "    - {from: lead, to: worker, kinds: [task, message]}\n    - {from: worker, to: lead, kinds: [message]}",
    );
    stage
        .assemble(
            &crew.replace("{name: worker, profile: deeds}", "{name: worker, profile: deeds, replicas: 2}"),
        )
        .await
        .ok();
    let deed = json!({"do": "chatter", "to": "lead", "for": stage.home.path("never")});
    let body = json!({"crew": "troupe", "to": "worker[0]", "input": deed});
    let task = stage.api.insist("/v1/tasks", &body, "chatter").await.done();
    let task = text(&task, "id").to_owned();
    stage.in_hand(&task, 1).await;
    let worker = stage.agent("worker", "chattering", |agent| agent["replica"] == 0).await;
    (stage, task, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_is_silent_at_once_and_never_comes_back() {
    let (stage, task, worker) = chattering().await;
    let id = text(&worker, "id");
    let before = in_sandboxes(&stage);
    stage.hypercode(&["kill", "agent", id, "--reason", "it chatters"]).await.ok();
    let since = Instant::now();

    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    assert!(text(&ended, "error").contains("killed by user:admin: it chatters"), "{ended:#}");
    let killed = stage.json(&["agent", "show", id]).await;
    assert_eq!(killed["status"], "terminated", "{killed:#}");
    assert_eq!(
        (text(&killed["killed"], "by"), text(&killed["killed"], "reason")),
        ("user:admin", "it chatters")
    );
    // Its keeper, runner and handler; the others stay.
    eventually_within(GONE.saturating_sub(since.elapsed()), "one sandbox fewer", async || {
        let there = in_sandboxes(&stage);
        (there.len() < before.len() && !there.is_empty()).then_some(())
    })
    .await;

    // A second kill finds it dead, a restart does not wake it, nobody else was harmed, and another takes its seat.
    let again = stage.api.insist(&format!("/v1/agents/{id}/kill"), &json!({}), "again").await.done();
    assert_eq!(text(&again["body"]["killed"], "reason"), "it chatters");
    let refused = stage.hypercode(&["agent", "restart", id]).await.refused(1);
    assert!(refused.contains("was killed by user:admin"), "{refused}");
    let crew = stage.json(&["crew", "show", "troupe"]).await;
    let seats = crew["seats"].as_array().expect("seats");
    let seat = seats.iter().find(|seat| seat["agent"] == id).expect("its seat");
    assert_eq!((&crew["status"], &seat["givenUp"]), (&json!("running"), &json!("killed")), "{crew:#}");
    stage.hypercode(&["crew", "scale", "troupe", "worker=2"]).await.ok();
    let next =
        stage.agent("worker", "another", |agent| agent["replica"] == 0 && agent["status"] == "ready").await;
    assert_ne!(next["id"], worker["id"]);
    tokio::time::sleep(SILENT).await;
    let position = silent(&stage, &[id]).await;
    told("T47", "to go on after being killed", "nothing more is accepted, and its sandbox is gone", position);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crew_is_killed_though_its_handlers_are_deaf_stopped_and_being_recovered() {
    let (stage, task, worker) = chattering().await;
    let deaf = stage.submit(&json!({"do": "deaf", "for": stage.home.path("never")})).await;
    let lead = stage.in_hand(&deaf, 1).await;
    send(lead, Signal::SIGSTOP);
    let other = stage.agent("worker", "the other", |agent| agent["replica"] == 1).await;
    let body = json!({"crew": "troupe", "to": "worker[1]", "input": {"do": "die", "attempts": 3}});
    let dying = stage.api.insist("/v1/tasks", &body, "dying").await.done();
    let before = in_sandboxes(&stage);

    stage.hypercode(&["kill", "crew", "troupe", "--reason", "enough"]).await.ok();
    let since = Instant::now();
    gone(&stage, &before, since).await;
    eventually_within(GONE.saturating_sub(since.elapsed()), "nothing but the platform runs", async || {
        in_sandboxes(&stage).is_empty().then_some(())
    })
    .await;
    for task in [task.as_str(), &deaf, text(&dying, "id")] {
        let ended = stage.ended(task).await;
        assert!(matches!(text(&ended, "status"), "failed" | "canceled" | "dead_lettered"), "{ended:#}");
    }
    let crews = stage.api.list("/v1/crews").await;
    let [crew] = &crews[..] else { panic!("one crew: {crews:?}") };
    let crew = stage.json(&["crew", "show", text(crew, "id")]).await;
    assert_eq!(text(&crew["killed"], "reason"), "enough", "{crew:#}");
    stage.api.crew_gone(text(&crew, "id")).await;
    stage.hypercode(&["kill", "crew", text(&crew, "id")]).await.ok();
    tokio::time::sleep(SILENT).await;
    assert!(in_sandboxes(&stage).is_empty(), "something came back");
    let position = silent(&stage, &[text(&worker, "id"), text(&other, "id")]).await;
    told("T47", "to go on, deaf, stopped or restarting, in a killed crew", "as above, for all", position);
    // The name is free again.
    stage.assemble(CREW).await.ok();
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_is_finished_by_the_platform_that_comes_after() {
    let (mut stage, task, worker) = chattering().await;
    let crew = stage.json(&["crew", "show", "troupe"]).await;
    stage.hypercode(&["kill", "tenant", "default", "--reason", "enough"]).await.ok();
    stage.up.kill().await;
    stage.up = Up::start(&stage.home).await;
    let since = Instant::now();
    stage.api.crew_gone(text(&crew, "id")).await;
    eventually_within(GONE.saturating_sub(since.elapsed()), "nothing but the platform runs", async || {
        in_sandboxes(&stage).is_empty().then_some(())
    })
    .await;
    let ended = stage.ended(&task).await;
    assert!(matches!(text(&ended, "status"), "failed" | "canceled"), "{ended:#}");
    let killed = stage.json(&["agent", "show", text(&worker, "id")]).await;
    assert_eq!(text(&killed["killed"], "by"), "user:admin", "{killed:#}");
    let order = events(&stage).await.into_iter().find(|event| &*event.kind == "tenant_killed");
    assert!(order.expect("the order").payload.contains(text(&crew, "id")));
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_kills() {
    let stage = Stage::with_crew().await;
    let task = stage.submit(&wait_for(&stage.home, "go")).await;
    let agent = stage.agent("lead", "at work", |agent| agent["tasks"] == 1).await;
    let minted = stage.json(&["token", "mint", "--role", "developer", "--purpose", "to try"]).await;
    let file = stage.home.write("developer.token", text(&minted["body"], "secret"));
    let by = ["--token-file", file.to_str().expect("text")];
    let said = stage.hypercode(&[&by[..], &["kill", "tenant", "default"]].concat()).await.refused(3);
    assert!(said.contains("`tenant:kill`") && said.contains("recorded at position"), "{said}");
    let minted = stage.json(&["token", "mint", "--role", "viewer", "--purpose", "to look"]).await;
    let file = stage.home.write("viewer.token", text(&minted["body"], "secret"));
    let by = ["--token-file", file.to_str().expect("text")];
    for target in [["kill", "crew", "troupe"], ["kill", "agent", text(&agent, "id")]] {
        stage.hypercode(&[&by[..], &target].concat()).await.refused(3);
    }
    for (what, name) in
        [("agent", "ag_00000000000000000000000000000000"), ("crew", "nosuch"), ("tenant", "other")]
    {
        stage.hypercode(&["kill", what, name]).await.refused(4);
    }
    stage.home.write("go", "");
    assert_eq!(stage.ended(&task).await["status"], "completed", "nobody was killed");
    stage.leave().await;
}
