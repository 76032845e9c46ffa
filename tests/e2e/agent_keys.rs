//! Keys and tokens of agents on a running platform: changed under load, and seen by nobody.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::support::Api;

/// Workers that ask the platform something, and how often each does.
const WORKERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// The key that signs.
async fn active(stage: &Stage) -> String {
    let keys = stage.json(&["key", "list"]).await;
    let key = keys["items"].as_array().expect("keys").iter().find(|key| key["state"] == "active");
    key.expect("one signs")["id"].as_str().expect("an id").to_owned()
}

/// A task in which the agent goes through the artifact door.
async fn put(stage: &Stage, text: &str) -> String {
    let params = json!({"text": text, "name": text, "mediaType": "text/plain"});
    stage.submit(&json!({"do": "call", "method": "artifact/put", "params": params})).await
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

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_under_load_and_nothing_is_lost() {
    let stage = Stage::with_crew().await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = (0..WORKERS)
        .map(|_| tokio::spawn(ask(Api::of(&stage.home), Arc::clone(&stop), Arc::clone(&asked))))
        .collect::<Vec<_>>();
    let first = active(&stage).await;
    let mut tasks = Vec::new();
    for round in 0..6 {
        for number in 0..3 {
            tasks.push(put(&stage, &format!("artifact {round} {number}")).await);
        }
        match round % 2 {
            0 => stage.hypercode(&["key", "rotate", "--reason", "a test"]).await.ok(),
            _ => stage.hypercode(&["key", "revoke", &active(&stage).await, "--reason", "leaked"]).await.ok(),
        };
    }
    for task in &tasks {
        let ended = stage.ended(task).await;
        assert_eq!(ended["status"], "completed", "{ended}");
        assert!(ended["output"]["parts"][0]["data"]["result"]["url"].is_string(), "{ended}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut failed = Vec::new();
    for worker in load {
        failed.extend(worker.await.expect("it asked to the end"));
    }
    assert_eq!(failed, Vec::<String>::new(), "of {asked:?} requests");

    let lead = stage.agent("lead", "still in its first life", |agent| agent["incarnation"] == 1).await;
    assert_eq!(lead["status"], "ready", "{lead}");
    let keys = stage.json(&["key", "list"]).await;
    let state = |id: &str| {
        let found = keys["items"].as_array().expect("keys").iter().find(|key| key["id"] == id);
        found.expect("it is still known")["state"].clone()
    };
    assert_eq!(state(&first), "retiring");
    let jwks = stage.api.get("/.well-known/jwks.json").await.expect("an answer").done();
    let public: Vec<&Value> = jwks["keys"].as_array().expect("keys").iter().map(|key| &key["kid"]).collect();
    assert!(public.contains(&&json!(active(&stage).await)) && public.contains(&&json!(first)));
    let revoked = stage.api.list("/v1/audit?kind=agent_key_revoked").await;
    let revoked: Vec<&Value> = revoked.iter().map(|event| &event["principal"]).collect();
    assert_eq!(revoked, ["user:admin"; 3]);
    stage.hypercode(&["key", "revoke", "no-such-key"]).await.refused(4);
    stage.leave().await;
}

/// Whatever is below a directory has none of these texts in it.
fn search(directory: &Path, texts: &[String], searched: &mut usize) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        if kind.is_dir() {
            search(&path, texts, searched);
        } else if kind.is_file() {
            is_free_of(&std::fs::read(&path).unwrap_or_default(), texts, &path.display().to_string());
            *searched += 1;
        }
    }
}

fn is_free_of(bytes: &[u8], texts: &[String], place: &str) {
    for text in texts {
        let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!found, "a token is in {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_2_nobody_sees_an_agents_token() {
    let stage = Stage::with_crew().await;
    let first = active(&stage).await;
    let task = put(&stage, "an artifact").await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    stage.hypercode(&["key", "rotate"]).await.ok();
    let task = put(&stage, "another").await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    // Every token of a key begins with the same header.
    let header = |kid: &str| BASE64.encode(format!(r#"{{"alg":"EdDSA","typ":"agent+jwt","kid":"{kid}"}}"#));
    let tokens = [header(&first), header(&active(&stage).await)];

    let processes = stage.home.processes();
    assert!(processes.len() >= 5, "the platform, its runners and handlers: {processes:?}");
    for process in processes {
        for file in ["environ", "cmdline"] {
            let place = format!("/proc/{}/{file}", process.pid);
            is_free_of(&std::fs::read(&place).unwrap_or_default(), &tokens, &place);
        }
    }
    is_free_of(stage.up.log().as_bytes(), &tokens, "the platform's log");
    let events = stage.api.list("/v1/audit").await;
    is_free_of(json!(events).to_string().as_bytes(), &tokens, "the log");
    let mut searched = 0;
    search(&stage.home.path(""), &tokens, &mut searched);
    assert!(searched > 10, "only {searched} files were looked at");
    stage.leave().await;
}
