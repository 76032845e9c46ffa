//! Evidence as an auditor gets it, and replay beside what runs.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::stage::Stage;

fn python(program: &Path, arguments: &[&str]) -> Output {
    Command::new("python3").arg(program).args(arguments).output().expect("python3 runs")
}

async fn key(stage: &Stage) -> String {
    stage.json(&["audit", "checkpoint", "--cut"]).await["keys"][0].as_str().expect("a key").to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a test is text")
}

/// An auditor with only the bundle, the public key and a checkpoint of an earlier day.
#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_verifies_evidence_without_us() {
    let stage = Stage::with_crew().await;
    let (kept, bundle) = (stage.home.path("kept"), stage.home.path("evidence.tar"));
    let (kept, bundle) = (text(&kept), text(&bundle));
    stage.hypercode(&["audit", "checkpoint", "--cut", "--save", kept]).await.ok();
    let key = key(&stage).await;
    let done = stage.json(&["task", "submit", "troupe", "--input", r#"{"do":"echo"}"#]).await;
    stage.ended(done["id"].as_str().expect("an id")).await;

    stage.hypercode(&["audit", "export", "--out", bundle]).await.ok();
    let tail = stage.hypercode(&["audit", "tail", "--kind", "audit_exported"]).await.ok();
    assert!(tail.contains("evidence from position 1 on"), "an export is an event: {tail}");
    stage.hypercode(&["audit", "export", "--out", bundle]).await.refused(2);
    let report = stage.json(&["audit", "verify", bundle, "--key", &key, "--against", kept]).await;
    assert_eq!(report["ok"], true, "{report:#}");

    let unpacked = stage.home.path("evidence");
    let tar =
        Command::new("tar").args(["-xf", bundle, "-C", text(unpacked.parent().expect("a home"))]).status();
    assert!(tar.expect("tar runs").success());
    let verifier = unpacked.join("verify.py");
    let verified = python(&verifier, &["--key", &key, "--against", kept]);
    assert!(verified.status.success(), "{verified:?}");
    assert!(python(&verifier, &[bundle, "--key", &key]).status.success(), "the tar as it is");

    // One changed byte.
    let events = unpacked.join("events.jsonl");
    let changed = std::fs::read_to_string(&events).expect("events").replacen("user:admin", "user:edmin", 1);
    std::fs::write(&events, changed).expect("written");
    let found = python(&verifier, &["--key", &key]);
    assert_eq!(found.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&found.stdout).contains("position 1: event_changed"), "{found:?}");
    let ran = stage.hypercode(&["audit", "verify", text(&unpacked)]).await;
    assert!(ran.code == 1 && ran.out.contains("position 1: event_changed"), "{ran:?}");

    let proof = stage.home.path("3.tlog-proof");
    stage.hypercode(&["audit", "prove", "3", "--out", text(&proof)]).await.ok();
    assert!(python(&verifier, &["--proof", text(&proof), "--key", &key]).status.success());
    stage.hypercode(&["audit", "verify", text(&proof), "--key", &key]).await.ok();
    stage.hypercode(&["audit", "prove", "99999"]).await.refused(4);
    stage.leave().await;
}

/// What is replayed at the end of the log is what the API says now.
#[tokio::test(flavor = "multi_thread")]
async fn replay_shows_what_was_beside_what_runs() {
    let stage = Stage::with_crew().await;
    let done = stage.json(&["task", "submit", "troupe", "--input", r#"{"do":"echo"}"#]).await;
    let task = done["id"].as_str().expect("an id").to_owned();
    stage.ended(&task).await;
    let now = stage.json(&["replay"]).await;
    for (list, path) in [("crews", "/v1/crews"), ("tasks", "/v1/tasks")] {
        assert_eq!(now[list], Value::from(stage.api.list(path).await), "{list}");
    }
    let mut agents = stage.api.list("/v1/agents").await;
    for agent in &mut agents {
        let fields = agent.as_object_mut().expect("an agent");
        fields.retain(|name, _| name != "sandboxKind" && name != "isolation");
    }
    assert_eq!(now["agents"], Value::from(agents));

    let submitted = now["tasks"][0]["created"].as_u64().expect("a position");
    let before = (submitted - 1).to_string();
    assert_eq!(stage.json(&["replay", "--to", &before]).await["tasks"], json!([]));
    let server = std::fs::read_to_string(stage.home.data().join("http.address")).expect("an address");
    let server = format!("http://{}", server.trim());
    let online = stage.json(&["replay", "--to", &before, "--server", &server]).await;
    assert_eq!(online, stage.json(&["replay", "--to", &before]).await, "over HTTP as from the file");

    let end = now["position"].to_string();
    let diff = stage.json(&["replay", "--diff", &before, &end]).await;
    let is_new = |change: &&Value| change["change"] == "added" && change["id"] == task.as_str();
    assert!(diff["changes"].as_array().expect("changes").iter().any(|change| is_new(&change)), "{diff:#}");
    let life = stage.hypercode(&["replay", "--entity", &task]).await.ok();
    assert!(life.contains("task_submitted") && life.contains("task_completed"), "{life}");
    stage.hypercode(&["replay", "--entity", "task/nobody"]).await.refused(4);
    stage.hypercode(&["replay", "--to", "999999"]).await.refused(4);
    let checked = stage.json(&["replay", "--check"]).await;
    assert_eq!(checked["ok"], true, "{checked:#}");

    // A view that says something else than the log is found.
    let views = execute(&stage.home.data().join("views.db"), "UPDATE tasks SET status = 'failed'");
    assert!(views.status.success(), "{views:?}");
    let ran = stage.hypercode(&["replay", "--check"]).await;
    assert!(ran.code == 1 && ran.out.contains("table tasks differs"), "{ran:?}");
    stage.leave().await;
}

/// Changes a database as somebody does who has its file.
fn execute(file: &Path, sql: &str) -> Output {
    let program =
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()";
    Command::new("python3").args(["-c", program, text(file), sql]).output().expect("python3 runs")
}
