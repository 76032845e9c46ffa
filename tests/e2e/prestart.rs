//! A pool that starts a profile's handler ahead: its process is up before the claim, and is told by `initialize` for whom.

use events::domain::DomainEvent;
use events::domain::{agent, pool};
use events::{Position, Recorded};
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::standby::{attempts, is_no_storm};
use crate::support::{Process, eventually};

const MANIFESTS: &str = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: early}
spec:
  handler: {command: [python3, early.py], source: ./early}
  env: {DIARY: "@DIARY@"}
  secrets: [{name: KEY, from: {file: "@KEY@"}}]
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: birds}
spec:
  entry: early
  members:
    - {name: early, profile: early, env: {NEST: north}}
  sandbox: {pool: small}
"#;

const POOL: &str = r#"
apiVersion: hypercode.dev/v1
kind: Pool
metadata: {name: small}
spec:
  size: {min: 0, max: 5, target: 2}
  prestart: early
"#;

/// Writes down when its process came up and when it was told for whom.
const EARLY: &str = r#"
import json, os, sys, time

def note(**entry):
    with open(os.environ["DIARY"], "a") as file:
        file.write(json.dumps({"pid": os.getpid(), "ms": time.time() * 1000, **entry}) + "\n")

note(what="up", agent=os.environ.get("HYPERCODE_AGENT"), key=os.environ.get("KEY"))
for line in sys.stdin:
    frame = json.loads(line)
    method, params = frame.get("method"), frame.get("params")
    if method == "initialize":
        note(what="told", agent=params["agent"]["id"], env=params.get("env"), secrets=params.get("secrets"))
    if "id" in frame:
        print(json.dumps({"jsonrpc": "2.0", "id": frame["id"], "result": {}}), flush=True)
    if method == "shutdown":
        break
"#;

/// The secret that only an agent's handler may see.
const KEY: &str = "hunter2-key";

/// A platform with the pool filled, and the file that has the crew.
async fn stage() -> (Stage, String) {
    let stage = Stage::empty().await;
    stage.home.write("early/early.py", EARLY);
    let key = stage.home.write("key", KEY);
    let diary = stage.home.diary_file();
    let manifests = MANIFESTS
        .replace("@DIARY@", diary.to_str().expect("text"))
        .replace("@KEY@", key.to_str().expect("text"));
    let file = stage.home.write("crew.yaml", manifests).to_str().expect("text").to_owned();
    stage.hypercode(&["profile", "apply", &file]).await.ok();
    stage.apply(POOL).await;
    let pool = stage.pool("filled", |pool| pool["ready"] == 2).await;
    assert_eq!(pool["prestart"]["profile"], "early", "{pool:#}");
    (stage, file)
}

/// What handlers have written down of this kind.
fn noted(stage: &Stage, what: &str) -> Vec<Value> {
    stage.home.diary().into_iter().filter(|entry| entry["what"] == what).collect()
}

fn pid(entry: &Value) -> i32 {
    i32::try_from(entry["pid"].as_i64().expect("a process id")).expect("a process id")
}

async fn events(stage: &Stage) -> Vec<Recorded> {
    stage.home.log().await.read(Position(0), 10_000).await.expect("the log can be read")
}

/// The events of a kind of entity that `wanted` picks, with what was recorded of them.
async fn picked<E: DomainEvent, T>(stage: &Stage, wanted: impl Fn(E) -> Option<T>) -> Vec<(Recorded, T)> {
    let decode = |event: Recorded| {
        let decoded = E::decode(&event.kind, event.schema, &event.payload).ok()?;
        Some((event, wanted(decoded)?))
    };
    events(stage).await.into_iter().filter_map(decode).collect()
}

/// SB-2: the process exists before the claim and knows nobody; identity, environment and secrets come after it.
#[tokio::test(flavor = "multi_thread")]
async fn sb_2_a_handler_is_up_before_the_claim_and_told_after_it() {
    let (stage, file) = stage().await;
    let up = eventually("two handlers", async || Some(noted(&stage, "up")).filter(|up| up.len() == 2)).await;
    assert_eq!(noted(&stage, "told"), Vec::<Value>::new());
    for entry in &up {
        assert_eq!((&entry["agent"], &entry["key"]), (&Value::Null, &Value::Null), "{entry}");
        let environ = std::fs::read(format!("/proc/{}/environ", pid(entry))).expect("it runs");
        let environ = String::from_utf8_lossy(&environ).into_owned();
        assert!(!environ.contains(KEY) && !environ.contains("HYPERCODE_AGENT"), "{environ}");
    }
    stage.hypercode(&["crew", "assemble", &file]).await.ok();
    let agent = &stage.api.list("/v1/agents?status=ready").await[0];
    let told = noted(&stage, "told");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["agent"], &told[0]["env"]["NEST"]), (&agent["id"], &json!("north")), "{told:?}");
    assert_eq!(told[0]["secrets"], json!({"KEY": KEY}));
    let own =
        up.iter().find(|entry| entry["pid"] == told[0]["pid"]).expect("the process that stood by serves");
    let claims = picked(&stage, |event| match event {
        agent::Event::SandboxClaimed(claimed) => Some(claimed),
        _ => None,
    })
    .await;
    let [(claim, claimed)] = &claims[..] else { panic!("one claim: {claims:?}") };
    let readies = picked(&stage, |event| match event {
        pool::Event::Ready(ready) if ready.sandbox == claimed.sandbox => Some(ready),
        _ => None,
    })
    .await;
    assert!(readies[0].0.position < claim.position, "it stood by before it was claimed");
    let claimed_ms = claim.recorded_at.millis() as f64;
    let (up_ms, told_ms) = (own["ms"].as_f64().expect("a time"), told[0]["ms"].as_f64().expect("a time"));
    assert!(up_ms < claimed_ms && claimed_ms <= told_ms, "up {up_ms}, claimed {claimed_ms}, told {told_ms}");
    let log: String = events(&stage).await.iter().map(|event| event.payload.to_string()).collect();
    assert!(!log.contains(KEY), "no secret is in the log");
    stage.leave_pool().await;
}

/// A handler that dies on the shelf takes its sandbox along: nobody claims it, and another stands by in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_dies_while_it_stands_by_spoils_its_sandbox() {
    let (stage, file) = stage().await;
    let up = eventually("two handlers", async || Some(noted(&stage, "up")).filter(|up| up.len() == 2)).await;
    let killed = pid(&up[0]);
    Process { pid: killed, command: String::new() }.kill();
    let pool = stage.pool("rid of it", |pool| pool["destroyed"] == 1 && pool["ready"] == 2).await;
    assert_eq!((&pool["created"], &pool["claims"], &pool["failed"]), (&json!(3), &json!(0), &json!(1)));
    let failed = picked(&stage, |event| match event {
        pool::Event::Failed(failed) => Some(failed.detail),
        _ => None,
    })
    .await;
    assert!(
        matches!(&failed[..], [(_, detail)] if detail.contains("handler ended by signal 9")),
        "{failed:?}"
    );
    stage.hypercode(&["crew", "assemble", &file]).await.ok();
    let told = noted(&stage, "told");
    assert!(told.len() == 1 && pid(&told[0]) != killed, "{told:?}");
    stage.leave_pool().await;
}

/// A handler that comes up and ends soon after, again and again: the pool tries ever more slowly, says so, and is mended.
#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_do_not_last_make_no_storm() {
    let stage = Stage::empty().await;
    let profile = |command: &str| {
        format!(
            "apiVersion: hypercode.dev/v1\nkind: Profile\nmetadata: {{name: early}}\nspec:\n  handler: {{command: {command}}}\n"
        )
    };
    let file = stage.home.write("profile.yaml", profile("[sh, -c, 'sleep 0.3; exit 3']"));
    let file = file.to_str().expect("text").to_owned();
    stage.hypercode(&["profile", "apply", &file]).await.ok();
    stage.apply(POOL).await;
    let is_degraded = |pool: &Value| pool["status"] == "degraded" && pool["failed"].as_u64() >= Some(4);
    let pool = stage.pool("degraded", is_degraded).await;
    assert!(pool["reason"].as_str().is_some_and(|reason| reason.contains("exit code 3")), "{pool:#}");
    let readies = picked(&stage, |event| match event {
        pool::Event::Ready(ready) => Some(ready),
        _ => None,
    })
    .await;
    assert!(readies.len() >= 4, "they did come up: {readies:?}");
    is_no_storm(&attempts(&stage).await);
    stage.home.write("profile.yaml", profile("[cat]"));
    stage.hypercode(&["profile", "apply", &file]).await.ok();
    stage.apply(POOL).await;
    stage.pool("mended", |pool| pool["status"] == "active" && pool["ready"] == 2).await;
    stage.leave_pool().await;
}

/// What cannot be told later for whom it works is not started ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_refuses_to_start_ahead_what_could_not_be_told_later() {
    let stage = Stage::empty().await;
    let profile = "apiVersion: hypercode.dev/v1\nkind: Profile\nmetadata: {name: early}\nspec:\n  \
                   handler: {protocol: exec, command: [cat]}\n";
    let file = stage.home.write("profile.yaml", profile);
    let pool = stage.home.write("pool.yaml", POOL);
    let unknown = stage.hypercode(&["pool", "apply", pool.to_str().expect("text")]).await.refused(2);
    assert!(unknown.contains("profile `early` does not exist"), "{unknown}");
    stage.hypercode(&["profile", "apply", file.to_str().expect("text")]).await.ok();
    let said = stage.hypercode(&["pool", "apply", pool.to_str().expect("text")]).await.refused(2);
    assert!(said.contains("cannot be started ahead"), "{said}");
    stage.leave().await;
}
