//! One use, always: whatever an agent leaves behind, no later one finds any of it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::stage::Stage;
use crate::support::eventually;

/// How many agents follow each other; `HYPERCODE_ONE_USE_CYCLES` has more of them.
const CYCLES: usize = 25;

const MANIFESTS: &str = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: canary}
spec:
  handler: {protocol: exec, command: [sh, canary.sh], source: ./canary, stdout: json}
---
apiVersion: hypercode.dev/v1
kind: Pool
metadata: {name: small}
spec:
  size: {min: 0, max: 10, target: 3}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: mine}
spec:
  entry: canary
  members:
    - {name: canary, profile: canary}
  sandbox: {pool: small}
"#;

/// Says which marks it found, makes its own wherever it can write, and leaves a daemon behind.
const CANARY: &str = r#"
found=""
for place in "$HYPERCODE_WORK" ${HOME:+"$HOME"} ${TMPDIR:+"$TMPDIR"}; do
    [ -e "$place/mark" ] && found="$found $place"
done
for place in "$HYPERCODE_WORK" ${HOME:+"$HOME"} ${TMPDIR:+"$TMPDIR"}; do
    echo mark > "$place/mark"
done
setsid sleep 86400 > /dev/null 2>&1 < /dev/null &
random=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
echo "{\"found\": \"$found\", \"random\": \"$random\", \"daemon\": $!}"
"#;

/// SB-1: no mark, no process and no number of an earlier agent is met by a later one, and no sandbox is met twice.
#[tokio::test(flavor = "multi_thread")]
async fn sb_1_nothing_of_a_sandbox_is_met_again() {
    let cycles = std::env::var("HYPERCODE_ONE_USE_CYCLES").ok().and_then(|text| text.parse().ok());
    let cycles: usize = cycles.unwrap_or(CYCLES);
    let stage = Stage::empty().await;
    stage.home.write("canary/canary.sh", CANARY);
    let file = stage.home.write("crew.yaml", MANIFESTS);
    let file = file.to_str().expect("text").to_owned();
    let (mut sandboxes, mut random) = (BTreeSet::new(), BTreeSet::new());
    for cycle in 0..cycles {
        let crew = stage.json(&["crew", "assemble", &file]).await;
        let crew = crew["id"].as_str().expect("an id").to_owned();
        let agents = stage.api.list(&format!("/v1/agents?crew={crew}")).await;
        let sandbox = agents[0]["sandbox"].as_str().expect("a sandbox").to_owned();
        let task = stage.json(&["task", "submit", "mine", "--input", "\"look\""]).await;
        let ended = stage.ended(task["id"].as_str().expect("an id")).await;
        let seen = &ended["output"]["parts"][0]["data"];
        assert_eq!(seen["found"], "", "cycle {cycle}: {ended:#}");
        assert!(sandboxes.insert(sandbox), "cycle {cycle}: a sandbox was met twice");
        assert!(random.insert(seen["random"].to_string()), "cycle {cycle}: a number was met twice: {seen}");
        stage.hypercode(&["crew", "disband", &crew]).await.ok();
        let daemon = i32::try_from(seen["daemon"].as_i64().expect("a process id")).expect("a process id");
        eventually("the end of what it left running", async || {
            stage.home.processes().iter().all(|process| process.pid != daemon).then_some(())
        })
        .await;
    }
    stage.hypercode(&["pool", "drain", "small"]).await.ok();
    let gone = |pool: &Value| pool["created"] == pool["destroyed"];
    let pool = eventually("an empty pool", async || {
        Some(stage.api.insist_get("/v1/pools/small").await).filter(gone)
    })
    .await;
    let cold = pool["live"]["cold"].as_u64().expect("a count");
    assert_eq!(pool["claims"].as_u64().map(|claims| claims + cold), Some(cycles as u64), "{pool:#}");
    stage.leave().await;
}
