//! Tokens of agents on a running platform: seen by nobody. That their keys change under load, `tests/attacks/keys.rs` tries.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::json;

use crate::stage::Stage;

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
