//! Warm pools in sandboxes that isolate: native ones, and containers.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use events::Position;
use events::domain::{DomainEvent, pool};
use serde_json::{Value, json};

use crate::docker::{self, Image};
use crate::pool::{light, sandboxes};
use crate::stage::{IMAGE, Stage};

/// A pool that always has so many, of this image where there are images.
fn pool(target: u32, image: Option<&str>, more: &str) -> String {
    let image = image.map(|image| format!("  image: {image}\n")).unwrap_or_default();
    format!(
        "apiVersion: hypercode.dev/v1\nkind: Pool\nmetadata: {{name: small}}\nspec:\n{image}{more}  \
         size: {{min: 0, max: 50, target: {target}}}\n  refill: {{concurrency: 3}}\n"
    )
}

/// What Docker says of the container of a sandbox.
fn inspect(sandbox: &str, format: &str) -> String {
    let filter = format!("label=hypercode.sandbox={sandbox}");
    let ids = docker::containers(&filter);
    let output = Command::new("docker").args(["inspect", "--format", format]).args(&ids).output();
    String::from_utf8(output.expect("docker").stdout).expect("text").trim().to_owned()
}

/// Agents claim what stands by, and claim again when they begin anew; nothing of it is left.
async fn agents_claim_what_stands_by(stage: Stage, image: Option<&str>) {
    stage.apply(&pool(3, image, "")).await;
    let standing = sandboxes(&stage.pool("filled", |pool| pool["ready"] == 3).await, "ready");
    stage.assemble(&light(1)).await.ok();
    let first = stage.agents().await;
    assert!(first.len() == 2 && first.is_subset(&standing), "{first:?} of {standing:?}");
    stage.pool("filled again", |pool| pool["ready"] == 3 && pool["claimed"] == 2).await;
    let agent = stage.agent("worker", "ready", |agent| agent["status"] == "ready").await;
    stage.hypercode(&["agent", "restart", agent["id"].as_str().expect("an id")]).await.ok();
    let again =
        stage.agent("worker", "back", |agent| agent["incarnation"] == 2 && agent["status"] == "ready").await;
    assert!(!first.contains(again["sandbox"].as_str().expect("a sandbox")), "{again:#}");
    let pool = stage.pool("rid of what was used", |pool| pool["destroyed"] == 1 && pool["claims"] == 3).await;
    assert_eq!(pool["live"]["cold"], 0, "{pool:#}");
    stage.leave_pool().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sb_1_agents_claim_native_sandboxes_that_stand_by() {
    let Some(stage) = Stage::native().await else { return };
    agents_claim_what_stands_by(stage, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sb_1_agents_claim_containers_that_stand_by() {
    let Some(stage) = Stage::in_containers().await else { return };
    agents_claim_what_stands_by(stage, Some(IMAGE)).await;
}

/// More agents than sandboxes: each gets one of its own, in its turn, and none is started cold.
async fn claimers_share(stage: Stage, image: Option<&str>, claimers: u32, standing: u32) {
    let queue = "  queue: {whenEmpty: wait, length: 50, deadline: 120s}\n";
    stage.apply(&pool(standing, image, queue)).await;
    stage.pool("filled", |pool| pool["ready"] == standing).await;
    stage.assemble(&light(claimers - 1)).await.ok();
    let agents = stage.agents().await;
    assert_eq!(agents.len(), claimers as usize);
    let pool = stage.pool("filled again", |pool| pool["claimed"] == claimers).await;
    assert_eq!(sandboxes(&pool, "claimed"), agents, "each has one of its own");
    assert_eq!((&pool["live"]["warm"], &pool["live"]["cold"]), (&json!(claimers), &json!(0)), "{pool:#}");
    stage.leave_pool().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_claimers_share_ten_native_sandboxes() {
    let Some(stage) = Stage::native().await else { return };
    claimers_share(stage, None, 50, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claimers_share_fewer_containers() {
    let Some(stage) = Stage::in_containers().await else { return };
    claimers_share(stage, Some(IMAGE), 12, 4).await;
}

/// Another image replaces what stands by, and leaves alone what serves an agent.
#[tokio::test(flavor = "multi_thread")]
async fn another_image_replaces_what_stands_by() {
    let Some(stage) = Stage::in_containers().await else { return };
    stage.apply(&pool(2, Some(IMAGE), "")).await;
    stage.pool("filled", |pool| pool["ready"] == 2).await;
    stage.assemble(&light(1)).await.ok();
    let serving = stage.agents().await;
    let first = sandboxes(&stage.pool("filled again", |pool| pool["ready"] == 2).await, "ready");
    let image_of = |sandbox: &str| inspect(sandbox, "{{.Image}}");
    let before: BTreeSet<String> = first.iter().map(|sandbox| image_of(sandbox)).collect();
    stage.apply(&pool(2, Some("hypercode/base:latest"), "")).await;
    let replaced = |pool: &Value| pool["ready"] == 2 && pool["destroyed"] == 2;
    let second = sandboxes(&stage.pool("replaced", replaced).await, "ready");
    assert!(second.is_disjoint(&first), "{second:?} after {first:?}");
    let after: BTreeSet<String> = second.iter().map(|sandbox| image_of(sandbox)).collect();
    assert!(before.len() == 1 && after.len() == 1 && before != after, "{before:?} and {after:?}");
    assert_eq!(stage.agents().await, serving);
    stage.leave_pool().await;
}

/// T31: what a pool's image stands for is asked once, when the pool is applied; applied anew, it replaces what stands by.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_what_it_was_when_its_pool_was_applied() {
    let Some(stage) = Stage::in_containers().await else { return };
    let build = |version: &str| {
        stage.home.write("context/version", version);
        Image::build(&stage.home, "pool", "FROM hypercode/python\nCOPY version .\n")
    };
    let image = build("1");
    let first = image.id();
    let manifest = pool(1, Some(&image.0), "");
    stage.apply(&manifest).await;
    let before = stage.pool("filled", |pool| pool["ready"] == 1).await;
    assert_eq!(before["image"], first.as_str());
    let moved = build("2");
    let second = moved.id();
    assert_ne!(first, second);

    stage.hypercode(&["pool", "resize", "small", "--target", "2"]).await.ok();
    let grown = sandboxes(&stage.pool("grown", |pool| pool["ready"] == 2).await, "ready");
    for sandbox in &grown {
        assert_eq!(inspect(sandbox, "{{.Image}}"), first, "{sandbox}");
    }
    stage.apply(&manifest).await;
    let replaced = stage.pool("replaced", |pool| pool["ready"] == 1 && pool["destroyed"] == 2).await;
    assert_eq!(replaced["image"], second.as_str());
    for sandbox in sandboxes(&replaced, "ready") {
        assert_eq!(inspect(&sandbox, "{{.Image}}"), second, "{sandbox}");
    }
    let unknown = manifest.replace(&image.0, "hypercode-tests/unknown:1");
    let unknown = stage.home.write("pool.yaml", unknown);
    let said = stage.hypercode(&["pool", "apply", unknown.to_str().expect("text")]).await.refused(2);
    assert!(said.contains("`spec.image`") && said.contains("hypercode-tests/unknown:1"), "{said}");
    stage.leave_pool().await;
}

/// What stands by stands still, and goes on at the claim.
#[tokio::test(flavor = "multi_thread")]
async fn containers_that_stand_by_may_stand_still() {
    let Some(stage) = Stage::in_containers().await else { return };
    stage.apply(&pool(2, Some(IMAGE), "  standby: paused\n")).await;
    let pool = stage.pool("filled", |pool| pool["ready"] == 2).await;
    for sandbox in sandboxes(&pool, "ready") {
        assert_eq!(inspect(&sandbox, "{{.State.Paused}}"), "true", "{sandbox}");
    }
    stage.assemble(&light(1)).await.ok();
    let pool = stage.pool("claimed", |pool| pool["claimed"] == 2).await;
    for sandbox in sandboxes(&pool, "claimed") {
        assert_eq!(inspect(&sandbox, "{{.State.Paused}}"), "false", "{sandbox}");
    }
    assert_eq!(pool["live"]["cold"], 0, "{pool:#}");
    let task = stage.submit(&json!("hello")).await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    stage.leave_pool().await;
}

/// Where a kind cannot stand still, what stands by runs.
#[tokio::test(flavor = "multi_thread")]
async fn native_sandboxes_that_cannot_stand_still_run() {
    let Some(stage) = Stage::native().await else { return };
    stage.apply(&pool(2, None, "  standby: paused\n")).await;
    stage.pool("filled", |pool| pool["ready"] == 2).await;
    stage.assemble(&light(1)).await.ok();
    let pool = stage.pool("claimed", |pool| pool["claimed"] == 2).await;
    assert_eq!(pool["live"]["cold"], 0, "{pool:#}");
    stage.leave_pool().await;
}

/// The failures and the requests of the pool, in the order of the log.
pub(crate) async fn attempts(stage: &Stage) -> Vec<pool::Event> {
    let log = stage.home.log().await.read(Position(0), 10_000).await.expect("the log can be read");
    let decoded =
        log.iter().filter_map(|event| pool::Event::decode(&event.kind, event.schema, &event.payload).ok());
    decoded.filter(|event| matches!(event, pool::Event::Requested(_) | pool::Event::Failed(_))).collect()
}

/// After each failure one other is made, and not before the pool's backoff is over.
pub(crate) fn is_no_storm(attempts: &[pool::Event]) {
    let failures: Vec<usize> =
        (0..attempts.len()).filter(|&at| matches!(attempts[at], pool::Event::Failed(_))).collect();
    let [first, .., last] = failures[..] else { panic!("failures: {attempts:#?}") };
    for pair in attempts[first..=last].windows(2) {
        match pair {
            [pool::Event::Failed(failed), pool::Event::Requested(next)] => {
                assert!(next.at_ms >= failed.retry_at_ms, "too early: {pair:#?}");
            }
            // Those that were made at once at the beginning fail one after the other.
            [_, pool::Event::Failed(_)] => {}
            pair => panic!("two at once after a failure: {pair:#?}"),
        }
    }
}

/// A container that ends as it comes up, again and again: the pool tries ever more slowly, says so, and is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_containers_never_come_up_is_degraded_and_makes_no_storm() {
    let Some(stage) = Stage::in_containers().await else { return };
    let empty = "hypercode-tests/empty:1";
    let mut import = Command::new("docker").args(["import", "-", empty]).stdin(Stdio::piped()).spawn();
    let tar = vec![0; 10_240];
    let import = import.as_mut().expect("docker");
    std::io::Write::write_all(&mut import.stdin.take().expect("its input"), &tar).expect("an empty archive");
    assert!(import.wait().expect("docker").success());
    stage.apply(&pool(2, Some(empty), "")).await;
    let pool =
        stage.pool("degraded", |pool| pool["status"] == "degraded" && pool["failed"].as_u64() >= Some(4));
    let pool = pool.await;
    assert!(pool["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{pool:#}");
    is_no_storm(&attempts(&stage).await);
    stage.apply(&self::pool(2, Some(IMAGE), "")).await;
    stage.pool("mended", |pool| pool["status"] == "active" && pool["ready"] == 2).await;
    stage.leave_pool().await;
}
