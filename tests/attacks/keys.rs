//! Keys that sign agents' tokens: changed and revoked while everybody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::links::{claims, closed, hello, is_root, stolen_if};
use crate::stage::Stage;
use crate::support::{Api, eventually};
use crate::told::{head, recorded, says, told};

/// Workers that ask the platform something, and how often each does: together 200 times a second.
const WORKERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
/// Tasks of each agent that go through its door with the agent's token, and how often a second each does.
const KEEPERS: usize = 2;
const KEPT_PER_SECOND: u32 = 50;

/// The key that signs.
async fn active(stage: &Stage) -> String {
    let keys = stage.json(&["key", "list"]).await;
    let key = keys["items"].as_array().expect("keys").iter().find(|key| key["state"] == "active");
    key.expect("one signs")["id"].as_str().expect("an id").to_owned()
}

/// Asks until it is stopped; what was not answered with 200.
async fn ask(api: Api, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) -> Vec<String> {
    let (mut failed, mut ticks) = (Vec::new(), tokio::time::interval(PAUSE));
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        asked.fetch_add(1, Ordering::Relaxed);
        match api.get("/v1/whoami").await {
            Ok(answer) if answer.status == 200 => {}
            other => failed.push(format!("{other:?}")),
        }
    }
    failed
}

/// Tasks of both agents that keep one artifact after the other until there is the file `enough`.
async fn keepers(stage: &Stage) -> Vec<String> {
    let mut tasks = Vec::new();
    for number in 0..KEEPERS {
        for to in ["lead", "worker"] {
            let deed = json!({"do": "keep", "rate": KEPT_PER_SECOND, "for": stage.home.path("enough")});
            let body = json!({"crew": "troupe", "to": to, "input": deed});
            let task = stage.api.insist("/v1/tasks", &body, &format!("{to}-{number}")).await.done();
            tasks.push(task["id"].as_str().expect("an id").to_owned());
        }
    }
    tasks
}

/// Waits until all agents have tokens of this key; the first one's.
async fn renewed(stage: &Stage, agents: &[&Value], key: &str) -> String {
    eventually("the agents have tokens of the new key", async || {
        // Two tokens of the same second cannot be told apart by their times.
        let is_of_it = |token: &str| link_key(token).is_some_and(|kid| kid == key);
        let found: Option<Vec<_>> = agents.iter().map(|agent| stolen_if(stage, agent, is_of_it)).collect();
        found?.into_iter().next().map(|(_, token)| token)
    })
    .await
}

/// The name of the key that has signed a token.
fn link_key(token: &str) -> Option<String> {
    use base64::Engine as _;
    let head = token.split('.').next()?;
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).ok()?;
    Some(serde_json::from_slice::<Value>(&head).ok()?["kid"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_under_load_and_only_the_revoked_ones_token_is_lost() {
    let stage = Stage::with_crew().await;
    let lead = stage.agent("lead", "ready", |agent| agent["status"] == "ready").await;
    let worker = stage.agent("worker", "ready", |agent| agent["status"] == "ready").await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = (0..WORKERS)
        .map(|_| tokio::spawn(ask(Api::of(&stage.home), Arc::clone(&stop), Arc::clone(&asked))))
        .collect::<Vec<_>>();
    let keepers = keepers(&stage).await;
    let is_root = is_root();
    let (first, after) = (active(&stage).await, head(&stage).await);
    let mut revoked = Vec::new();
    for round in 0..6 {
        if round % 2 == 0 {
            stage.hypercode(&["key", "rotate", "--reason", "a test"]).await.ok();
            continue;
        }
        let key = active(&stage).await;
        if is_root {
            revoked.push(renewed(&stage, &[&lead, &worker], &key).await);
        }
        stage.hypercode(&["key", "revoke", &key, "--reason", "leaked"]).await.ok();
    }
    // What was signed with a key that is revoked opens nothing any more, though it has not expired.
    for token in &revoked {
        assert!(claims(token).is_some_and(|claims| claims["exp"].as_i64() > Some(0)));
        for socket in stage.home.sockets() {
            assert_eq!(closed(&socket, Some(token), &hello()).await, Some(4003));
        }
    }
    stage.home.write("enough", "");
    let mut kept = 0;
    for task in &keepers {
        let ended = stage.ended(task).await;
        let told = &ended["output"]["parts"][0]["data"];
        assert_eq!((&ended["status"], &told["refused"]), (&json!("completed"), &json!([])), "{ended:#}");
        kept += told["kept"].as_u64().expect("a count");
    }
    stop.store(true, Ordering::Relaxed);
    let mut failed = Vec::new();
    for worker in load {
        failed.extend(worker.await.expect("it asked to the end"));
    }
    let asked = asked.load(Ordering::Relaxed);
    assert_eq!(failed, Vec::<String>::new(), "of {asked} requests");
    assert!(kept > 0 && asked > 0, "there was load");
    as_it_was(&stage, &first).await;

    let tried = "to lose requests of 200 a second, and an agent's, by three rotations and three revocations";
    let refused = format!("none of {asked} and {kept} failed; tokens of a revoked key: 4003");
    let position = match is_root {
        true => recorded(&stage, after, "sandbox_tampered", |event| says(event, "foreign_token")).await,
        false => recorded(&stage, after, "agent_key_revoked", |_| true).await,
    };
    told("T63", tried, &refused, position);
    stage.leave().await;
}

/// The agents live their first life; the keys are told of as what they are.
async fn as_it_was(stage: &Stage, first: &str) {
    let lead = stage.agent("lead", "still in its first life", |agent| agent["incarnation"] == 1).await;
    assert_eq!(lead["status"], "ready", "{lead}");
    let keys = stage.json(&["key", "list"]).await;
    let found = keys["items"].as_array().expect("keys").iter().find(|key| key["id"] == first);
    assert_eq!(found.expect("it is still known")["state"], "retiring");
    let jwks = stage.api.get("/.well-known/jwks.json").await.expect("an answer").done();
    let public: Vec<&Value> = jwks["keys"].as_array().expect("keys").iter().map(|key| &key["kid"]).collect();
    assert!(public.contains(&&json!(active(stage).await)) && public.contains(&&json!(first)));
    let revoked = stage.api.list("/v1/audit?kind=agent_key_revoked").await;
    let revoked: Vec<&Value> = revoked.iter().map(|event| &event["principal"]).collect();
    assert_eq!(revoked, ["user:admin"; 3]);
    stage.hypercode(&["key", "revoke", "no-such-key"]).await.refused(4);
}
