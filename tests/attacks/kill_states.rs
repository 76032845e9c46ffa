//! The kill switch, whatever state who is killed is in: paused, draining, scaled down, asleep, waiting for a sandbox, in a container.

use std::time::Instant;

use serde_json::json;

use crate::kill::{GONE, SILENT, chattering, in_sandboxes, silent};
use crate::stage::{CREW, IMAGE, Stage, ready};
use crate::support::containers::{containers_of, crew};
use crate::support::{eventually, eventually_within};
use crate::told::{head, recorded, text, told};

/// A pool that holds so many, and has whoever finds none wait.
fn pool(most: u32) -> String {
    format!(
        "apiVersion: hypercode.dev/v1\nkind: Pool\nmetadata: {{name: small}}\nspec:\n  \
         size: {{min: 0, max: {most}, target: {most}}}\n  queue: {{whenEmpty: wait, length: 50, deadline: 120s}}\n"
    )
}

async fn apply(stage: &Stage, manifest: &str) {
    let file = stage.home.write("pool.yaml", manifest);
    stage.hypercode(&["pool", "apply", file.to_str().expect("text")]).await.ok();
}

/// How many of the pool's sandboxes stand by, once they are so many.
async fn standing(stage: &Stage, count: u64) {
    eventually(&format!("{count} stand by"), async || {
        let pool = stage.api.insist_get("/v1/pools/small").await;
        (pool["ready"] == count).then_some(())
    })
    .await;
}

/// Nothing of the pool outlives the test.
async fn empty_pool(stage: &Stage) {
    stage.hypercode(&["pool", "drain", "small", "--reason", "the test is over"]).await.ok();
    eventually("the pool is empty", async || {
        (stage.api.insist_get("/v1/pools/small").await["ready"] == 0).then_some(())
    })
    .await;
}

async fn paused_or_draining(verb: &str, again: Option<&str>) {
    let (stage, task, worker) = chattering().await;
    stage.hypercode(&["crew", verb, "troupe"]).await.ok();
    let before = in_sandboxes(&stage).len();
    let after = head(&stage).await;
    stage.hypercode(&["kill", "agent", text(&worker, "id"), "--reason", "it chatters"]).await.ok();
    let since = Instant::now();
    assert_eq!(stage.ended(&task).await["status"], "failed");
    eventually_within(GONE.saturating_sub(since.elapsed()), "its sandbox is gone", async || {
        (in_sandboxes(&stage).len() < before).then_some(())
    })
    .await;
    tokio::time::sleep(SILENT).await;
    let position = silent(&stage, &[text(&worker, "id")]).await;
    assert!(position > after);
    if let Some(again) = again {
        stage.hypercode(&["crew", again, "troupe"]).await.ok();
        stage.hypercode(&["agent", "restart", text(&worker, "id")]).await.refused(1);
    } else {
        // What it had in hand was the last that the crew waited for.
        eventually("the crew has drained", async || {
            let crews = stage.api.list("/v1/crews").await;
            (crews[0]["status"] == "disbanded").then_some(())
        })
        .await;
    }
    told("T47", &format!("to go on after being killed in a crew at `{verb}`"), "as above", position);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_a_paused_crew_is_killed() {
    paused_or_draining("pause", Some("resume")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_a_draining_crew_is_killed() {
    paused_or_draining("drain", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_member_was_scaled_down_is_killed() {
    let (stage, first, _) = chattering().await;
    let deed = json!({"do": "chatter", "to": "lead", "for": stage.home.path("never")});
    let body = json!({"crew": "troupe", "to": "worker[1]", "input": deed});
    let task = text(&stage.api.insist("/v1/tasks", &body, "more").await.done(), "id").to_owned();
    stage.in_hand(&task, 1).await;
    let worker = stage.agent("worker", "the second", |agent| agent["replica"] == 1).await;
    stage.hypercode(&["crew", "scale", "troupe", "worker=1"]).await.ok();
    stage
        .agent("worker", "at its last task", |it| it["id"] == worker["id"] && it["status"] == "draining")
        .await;
    stage.hypercode(&["kill", "agent", text(&worker, "id"), "--reason", "it chatters"]).await.ok();
    let since = Instant::now();
    assert_eq!(stage.ended(&task).await["status"], "failed");
    eventually_within(
        GONE.saturating_sub(since.elapsed()),
        "its sandbox is gone, and no other",
        async || {
            let handlers = stage.home.processes().into_iter().filter(|it| it.command.contains("deeds.py"));
            (handlers.count() == 2).then_some(())
        },
    )
    .await;
    tokio::time::sleep(SILENT).await;
    let position = silent(&stage, &[text(&worker, "id")]).await;
    stage.home.write("never", "");
    assert_eq!(stage.ended(&first).await["status"], "completed", "its sibling goes on");
    told("T47", "to finish what it has after its member was scaled down", "killed as any other", position);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_asleep_is_killed_and_nothing_wakes_it() {
    let stage = Stage::empty().await;
    let member = "{name: worker, profile: deeds, hibernate: {after: 1s, wakeEvery: 2s}}";
    stage.assemble(&CREW.replace("{name: worker, profile: deeds}", member)).await.ok();
    let sleeper = stage.agent("worker", "asleep", |agent| agent["status"] == "hibernating").await;
    let after = head(&stage).await;
    stage.hypercode(&["kill", "agent", text(&sleeper, "id"), "--reason", "in its sleep"]).await.ok();
    let position = recorded(&stage, after, "agent_killed", |_| true).await;
    let incarnation =
        stage.agent("worker", "killed", |it| it["status"] == "terminated").await["incarnation"].clone();

    // Neither a task for it, nor its timer, nor a restart of the platform.
    let body = json!({"crew": "troupe", "to": "worker", "input": {"do": "echo"}});
    let task = stage.api.insist("/v1/tasks", &body, "wake-up").await.done();
    tokio::time::sleep(3 * SILENT).await;
    let mut stage = stage;
    stage.up.restart(&stage.home).await;
    stage.up.ready(&stage.api).await;
    let still = stage.agent("worker", "dead", |it| it["id"] == sleeper["id"]).await;
    assert_eq!((&still["status"], &still["incarnation"]), (&json!("terminated"), &incarnation), "{still:#}");
    let waits = stage.api.insist_get(&format!("/v1/tasks/{}", text(&task, "id"))).await;
    assert_eq!(waits["isTerminal"], false, "it waits for another: {waits:#}");
    stage.hypercode(&["crew", "scale", "troupe", "worker=1"]).await.ok();
    assert_eq!(stage.ended(text(&task, "id")).await["status"], "completed");
    told(
        "T47",
        "to be woken after being killed asleep",
        "nothing wakes it; another takes its seat",
        position,
    );
    stage.leave().await;
}

/// A crew that waits for a sandbox of an empty pool is killed: it never comes up, and takes nothing when something stands by.
#[tokio::test(flavor = "multi_thread")]
async fn a_crew_that_waits_for_a_sandbox_is_killed() {
    let stage = Stage::empty().await;
    apply(&stage, &pool(1)).await;
    standing(&stage, 1).await;
    let waiting = CREW.replace("  liveness:", "  sandbox: {pool: small}\n  liveness:");
    let killing = async {
        let crew = eventually("the crew is being assembled", async || {
            let crews = stage.api.list("/v1/crews").await;
            let agents = stage.api.list("/v1/agents").await;
            // One of the two has the only sandbox, and the other waits for it to be free.
            (!agents.is_empty()).then(|| crews.first().cloned()).flatten()
        })
        .await;
        let after = head(&stage).await;
        stage.hypercode(&["kill", "crew", text(&crew, "id"), "--reason", "not wanted"]).await.ok();
        let since = Instant::now();
        (recorded(&stage, after, "crew_killed", |_| true).await, since, crew)
    };
    let stalled = pool(1).replace("max: 1, target: 1", "max: 1, target: 0");
    apply(&stage, &stalled).await;
    let (ran, (position, since, crew)) = tokio::join!(stage.assemble(&waiting), killing);
    assert!(ran.code != 0, "{ran:?}");
    eventually_within(GONE.saturating_sub(since.elapsed()), "nothing of it runs", async || {
        let agents = stage.api.list("/v1/agents").await;
        agents
            .iter()
            .all(|agent| agent["status"] == "terminated" || agent["status"] == "failed")
            .then_some(())
    })
    .await;
    stage.api.crew_gone(text(&crew, "id")).await;
    apply(&stage, &pool(2)).await;
    standing(&stage, 2).await;
    told(
        "T47",
        "to come up after being killed while waiting for a sandbox",
        "no agent of it ever does",
        position,
    );
    empty_pool(&stage).await;
    stage.leave().await;
}

/// The same of an agent that died before, and waits for its next life.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_waits_for_its_next_sandbox_is_killed() {
    let stage = Stage::empty().await;
    apply(&stage, &pool(2)).await;
    standing(&stage, 2).await;
    let pooled = CREW.replace("  liveness:", "  sandbox: {pool: small}\n  liveness:");
    stage.assemble(&pooled).await.ok();
    apply(&stage, &pool(2).replace("target: 2", "target: 0")).await;
    eventually("nothing stands by", async || {
        (stage.api.insist_get("/v1/pools/small").await["ready"] == 0).then_some(())
    })
    .await;
    let body = json!({"crew": "troupe", "to": "worker", "input": {"do": "die", "attempts": 9}});
    stage.api.insist("/v1/tasks", &body, "die").await.done();
    let dead =
        stage.agent("worker", "dead", |it| it["status"] == "unhealthy" || it["status"] == "recovering").await;
    let after = head(&stage).await;
    stage.hypercode(&["kill", "agent", text(&dead, "id"), "--reason", "it dies"]).await.ok();
    let position = recorded(&stage, after, "agent_killed", |_| true).await;
    // It may have had its next sandbox just before.
    let killed = stage.agent("worker", "killed", |it| it["status"] == "terminated").await;
    apply(&stage, &pool(2)).await;
    standing(&stage, 2).await;
    let still = stage.agent("worker", "as it was", |it| it["id"] == dead["id"]).await;
    let (status, found) = (&still["status"], &still["incarnation"]);
    assert_eq!((status, found), (&json!("terminated"), &killed["incarnation"]), "{still:#}");
    told(
        "T47",
        "to come back after being killed while waiting for a sandbox",
        "it has no next life",
        position,
    );
    stage.hypercode(&["crew", "disband", "troupe"]).await.ok();
    empty_pool(&stage).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_crews_in_containers_are_killed() {
    let Some(stage) = Stage::in_containers().await else { return };
    let deaf = "{protocol: exec, command: [sh, -c, 'trap \"\" TERM; sleep 600 & wait; wait'], timeout: 10m, grace: 5m}";
    stage.assemble(&crew("deaf", IMAGE, deaf)).await.ok();
    let agent = ready(&stage, 1).await;
    let task = stage.json(&["task", "submit", "deaf", "hear me"]).await;
    let is_working = async || {
        let shown = stage.api.insist_get(&format!("/v1/tasks/{}", text(&task, "id"))).await;
        (shown["status"] == "working").then_some(())
    };
    eventually("it is at work", is_working).await;
    let after = head(&stage).await;
    stage.hypercode(&["kill", "agent", text(&agent, "id"), "--reason", "enough"]).await.ok();
    eventually_within(GONE, "its container is gone", async || {
        containers_of(&stage.home).is_empty().then_some(())
    })
    .await;
    assert_eq!(stage.ended(text(&task, "id")).await["status"], "failed");
    let position = recorded(&stage, after, "agent_killed", |_| true).await;
    told("T47", "to go on in a container after being killed", "the container is gone", position);

    stage.hypercode(&["crew", "scale", "deaf", "deaf=1"]).await.ok();
    ready(&stage, 1).await;
    let task = stage.json(&["task", "submit", "deaf", "and now"]).await;
    let after = head(&stage).await;
    stage.hypercode(&["kill", "crew", "deaf", "--reason", "enough"]).await.ok();
    eventually_within(GONE, "no container is left", async || {
        containers_of(&stage.home).is_empty().then_some(())
    })
    .await;
    let ended = stage.ended(text(&task, "id")).await;
    assert!(matches!(text(&ended, "status"), "failed" | "canceled"), "{ended:#}");
    let position = recorded(&stage, after, "crew_killed", |_| true).await;
    told("T47", "to go on in containers of a killed crew", "they are gone", position);
    stage.leave().await;
}
