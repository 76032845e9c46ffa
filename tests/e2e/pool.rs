//! Warm pools: what stands by is claimed once, used once, and gone after that.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::stage::{CREW, Stage};
use crate::support::eventually;

/// A pool that always has three.
pub(crate) const POOL: &str = r#"
apiVersion: hypercode.dev/v1
kind: Pool
metadata: {name: small}
spec:
  size: {min: 0, max: 10, target: 3}
  refill: {concurrency: 3}
"#;

/// A crew of a lead and workers who claim from the pool.
fn crew(workers: u32) -> String {
    CREW.replace(
        "name: worker, profile: deeds",
        &format!("name: worker, profile: deeds, replicas: {workers}"),
    )
    .replace("  liveness:", "  sandbox: {pool: small}\n  liveness:")
}

/// The same with handlers that are ready without a process of theirs.
pub(crate) fn light(workers: u32) -> String {
    crew(workers).replace(
        "{command: [python3, deeds.py], source: ./deeds, concurrency: 4, grace: 2s}",
        "{protocol: exec, command: [cat]}",
    )
}

/// The sandboxes of a pool that are in a phase.
pub(crate) fn sandboxes(pool: &Value, phase: &str) -> BTreeSet<String> {
    let all = pool["sandboxes"].as_array().into_iter().flatten();
    let found = all.filter(|standby| standby["phase"] == phase);
    found.map(|standby| standby["sandbox"].as_str().expect("an id").to_owned()).collect()
}

impl Stage {
    pub(crate) async fn with_pool(manifest: &str) -> Self {
        let stage = Self::empty().await;
        stage.apply(manifest).await;
        stage
    }

    pub(crate) async fn apply(&self, manifest: &str) {
        let file = self.home.write("pool.yaml", manifest);
        self.hypercode(&["pool", "apply", file.to_str().expect("text")]).await.ok();
    }

    /// The pool, when it is as it is wanted to be.
    pub(crate) async fn pool(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("pool: {what}"), async || {
            Some(self.api.insist_get("/v1/pools/small").await).filter(|pool| is(pool))
        })
        .await
    }

    /// The sandboxes of all agents that live.
    pub(crate) async fn agents(&self) -> BTreeSet<String> {
        let agents = self.api.list("/v1/agents?status=ready").await;
        agents.iter().map(|agent| agent["sandbox"].as_str().expect("a sandbox").to_owned()).collect()
    }

    /// Empties the pool, so that nothing of it outlives the test; every sandbox that it ever had is gone.
    pub(crate) async fn leave_pool(self) {
        for crew in self.api.list("/v1/crews?status=running").await {
            self.hypercode(&["crew", "disband", crew["id"].as_str().expect("an id")]).await.ok();
        }
        self.hypercode(&["pool", "drain", "small", "--reason", "the test is over"]).await.ok();
        let pool = self.pool("empty", |pool| pool["created"] == pool["destroyed"]).await;
        assert_eq!((&pool["status"], &pool["sandboxes"]), (&json!("drained"), &Value::Null), "{pool:#}");
        self.leave().await;
    }
}

/// SB-1 and SB-2: agents claim what stands by, each its own, get a new one when they die, and leave none behind.
#[tokio::test(flavor = "multi_thread")]
async fn sb_1_agents_claim_from_their_pool_and_again_when_they_die() {
    let stage = Stage::with_pool(POOL).await;
    let before = stage.pool("filled", |pool| pool["ready"] == 3).await;
    let standing = sandboxes(&before, "ready");
    stage.assemble(&crew(1)).await.ok();
    let first = stage.agents().await;
    assert!(first.len() == 2 && first.is_subset(&standing), "{first:?} of {standing:?}");
    let pool = stage.pool("filled again", |pool| pool["ready"] == 3 && pool["claimed"] == 2).await;
    assert_eq!(sandboxes(&pool, "claimed"), first);
    let task = stage.submit(&json!({"do": "die"})).await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    let second = stage.agents().await;
    let fresh: Vec<_> = second.difference(&first).collect();
    assert_eq!(fresh.len(), 1, "{second:?} after {first:?}");
    let pool = stage.pool("rid of what was used", |pool| pool["destroyed"] == 1 && pool["claims"] == 3).await;
    assert_eq!(sandboxes(&pool, "claimed"), second, "the new incarnation claims from the pool too");
    assert_eq!(pool["live"]["cold"], 0, "{pool:#}");
    let metrics = stage.api.insist_get("/metrics").await;
    let line = r#"hypercode_pool_claims_warm_total{tenant="default",pool="small"} 3"#;
    assert!(metrics.as_str().is_some_and(|text| text.contains(line)), "{metrics}");
    stage.leave_pool().await;
}

/// The pool and what has been claimed from it outlive the platform.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_by_is_adopted_by_the_next_platform() {
    let mut stage = Stage::with_pool(POOL).await;
    stage.pool("filled", |pool| pool["ready"] == 3).await;
    stage.assemble(&crew(1)).await.ok();
    let before = stage.pool("filled", |pool| pool["ready"] == 3 && pool["claimed"] == 2).await;
    stage.up.restart(&stage.home).await;
    stage.up.ready(&stage.api).await;
    let task = stage.submit(&json!({"do": "die"})).await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    let after = stage.pool("filled", |pool| pool["ready"] == 3 && pool["claims"] == 3).await;
    let stood = sandboxes(&before, "ready");
    let kept: BTreeSet<_> =
        sandboxes(&after, "ready").union(&sandboxes(&after, "claimed")).cloned().collect();
    assert_eq!(kept.intersection(&stood).count(), 3, "those that stood by still do, or serve: {after:#}");
    stage.leave_pool().await;
}

/// A pool is resized, drained and filled again; another template replaces what stands by.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_resized_replaced_and_drained() {
    let stage = Stage::with_pool(POOL).await;
    let first = sandboxes(&stage.pool("filled", |pool| pool["ready"] == 3).await, "ready");
    stage.hypercode(&["pool", "resize", "small", "--target", "1"]).await.ok();
    let pool = stage.pool("smaller", |pool| pool["ready"] == 1 && pool["destroyed"] == 2).await;
    assert!(sandboxes(&pool, "ready").is_subset(&first));
    stage.apply(&POOL.replace("spec:", "spec:\n  resources: {memory: 128Mi}")).await;
    let pool = stage.pool("replaced", |pool| pool["ready"] == 3 && pool["destroyed"] == 3).await;
    assert!(sandboxes(&pool, "ready").is_disjoint(&first), "{pool:#}");
    stage.hypercode(&["pool", "resize", "small", "--max", "4"]).await.ok();
    let pool = stage.pool("resized", |pool| pool["size"]["max"] == 4).await;
    assert_eq!(pool["size"]["target"], 3, "what is not named stays: {pool:#}");
    stage.hypercode(&["pool", "resize", "small", "--target", "auto"]).await.ok();
    stage.pool("of its own size", |pool| pool["size"]["target"].is_null()).await;
    stage.hypercode(&["pool", "resize", "small", "--min", "5", "--max", "4"]).await.refused(2);
    stage.hypercode(&["pool", "resize", "large", "--min", "1"]).await.refused(4);
    stage.hypercode(&["pool", "drain", "small"]).await.ok();
    stage.pool("empty", |pool| pool["status"] == "drained" && pool["created"] == pool["destroyed"]).await;
    // Without anything that stands by, agents start cold.
    stage.assemble(&crew(1)).await.ok();
    let list = stage.json(&["pool", "list"]).await;
    assert_eq!((&list["items"][0]["claims"], &list["items"][0]["live"]["cold"]), (&json!(0), &json!(2)));
    stage.leave_pool().await;
}

/// More agents than sandboxes: all get one, in their turn; and whom the pool cannot serve is told so at once.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_claimers_share_what_stands_by() {
    let ten = POOL.replace("target: 3", "target: 10").replace("max: 10", "max: 50");
    let waits = format!("{}  queue: {{whenEmpty: wait, length: 50, deadline: 60s}}\n", ten.trim_start());
    let stage = Stage::with_pool(&waits).await;
    stage.pool("filled", |pool| pool["ready"] == 10).await;
    stage.assemble(&light(49)).await.ok();
    let agents = stage.agents().await;
    assert_eq!(agents.len(), 50);
    let pool = stage.pool("filled again", |pool| pool["claimed"] == 50 && pool["ready"] == 10).await;
    assert_eq!(sandboxes(&pool, "claimed"), agents, "each has one of its own");
    assert_eq!((&pool["live"]["warm"], &pool["live"]["cold"]), (&json!(50), &json!(0)), "{pool:#}");
    // Ten that stand by and fifty that may wait are not enough for more than sixty.
    let more = light(70).replace("name: troupe", "name: army");
    let said = stage.assemble(&more).await.refused(5);
    assert!(said.contains("is drained"), "{said}");
    let unknown = light(1).replace("pool: small", "pool: none").replace("name: troupe", "name: other");
    assert!(stage.assemble(&unknown).await.refused(2).contains("pool `none` does not exist"));
    stage.leave_pool().await;
}
