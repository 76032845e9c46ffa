//! Erasing a data subject: what was said about it is in no file, no table and no export any more, and the log is whole.

use std::path::Path;

use serde_json::{Value, json};

use crate::stage::{CREW, Stage, wait_for};
use crate::support::{Api, Home, Up, eventually};

/// What is said about the subject, in a word that occurs nowhere else.
const WORDS: &str = "tulip-anaphylaxis-1953";
const SUBJECT: &str = "patient/4711-kowalska";

/// The files under `directory` that have `words` in them.
fn files_with(directory: &Path, words: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(path);
            } else if std::fs::read(&path).is_ok_and(|bytes| has(&bytes, words)) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn has(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

async fn submit(stage: &Stage, subject: &str, deed: &Value) -> String {
    let input = deed.to_string();
    let done = stage.json(&["task", "submit", "troupe", "--subject", subject, "--input", &input]).await;
    done["id"].as_str().expect("an id").to_owned()
}

async fn task(stage: &Stage, id: &str) -> Value {
    stage.api.insist_get(&format!("/v1/tasks/{id}")).await
}

async fn nothing_is_said_any_more(stage: &Stage) {
    for words in [WORDS, SUBJECT] {
        // The sandbox of an agent that ends takes a moment to go.
        eventually(&format!("no file has `{words}`"), async || {
            files_with(&stage.home.data(), words).is_empty().then_some(())
        })
        .await;
        assert!(!stage.up.log().contains(words));
    }
    if stage.home.is_on_postgres() {
        stage.home.no_table_holds(&[WORDS, SUBJECT]).await;
    }
}

/// The message whose body is told by its size alone.
async fn large_message(stage: &Stage) -> String {
    let messages = stage.api.list("/v1/messages").await;
    let large = messages.iter().find(|message| message["body"]["bytes"].is_u64()).expect("a large one");
    large["id"].as_str().expect("an id").to_owned()
}

/// What is about the subject: said, passed on, kept as an artifact, still under way.
async fn work(stage: &Stage) -> [String; 4] {
    let dies =
        submit(stage, SUBJECT, &json!({"do": "say", "on": "stderr", "text": WORDS, "dies": true})).await;
    assert_eq!(stage.ended(&dies).await["status"], "completed");
    stage.agent("lead", "what it wrote is kept", |agent| agent["logs"] == json!([1])).await;
    let says = submit(stage, SUBJECT, &json!({"do": "say", "on": "stderr", "text": WORDS})).await;
    assert_eq!(stage.ended(&says).await["status"], "completed");
    let fails = submit(stage, SUBJECT, &json!({"do": "fail", "text": WORDS})).await;
    assert!(stage.ended(&fails).await.to_string().contains(WORDS), "a failure says why");
    let echo = submit(stage, SUBJECT, &json!({"do": "echo", "text": WORDS})).await;
    let child = json!({"do": "echo", "text": format!("{WORDS} again")});
    let asks = submit(stage, SUBJECT, &json!({"do": "delegate", "to": "worker", "input": child})).await;
    let long = format!("{WORDS} {}", "x".repeat(20_000));
    let large = submit(stage, SUBJECT, &json!({"do": "echo", "text": &long})).await;
    let tells = submit(stage, SUBJECT, &json!({"do": "send", "to": "worker", "text": WORDS})).await;
    let tells_much = submit(stage, SUBJECT, &json!({"do": "send", "to": "worker", "text": long})).await;
    for id in [&echo, &asks, &large, &tells, &tells_much] {
        let ended = stage.ended(id).await;
        assert_eq!(ended["status"], "completed", "{ended:#}");
    }
    assert_eq!(task(stage, &echo).await["subject"], SUBJECT);
    assert!(task(stage, &echo).await["output"].to_string().contains(WORDS));
    assert!(task(stage, &large).await["output"].to_string().contains(WORDS));
    let messages = stage.api.list("/v1/messages").await;
    assert!(json!(messages).to_string().contains(WORDS), "{messages:?}");
    let message = stage.api.insist_get(&format!("/v1/messages/{}", large_message(stage).await)).await;
    assert!(message["body"].to_string().contains(WORDS), "{message:#}");
    let mut deed = wait_for(&stage.home, "never");
    deed["note"] = WORDS.into();
    let waits = submit(stage, SUBJECT, &deed).await;
    stage.in_hand(&waits, 1).await;
    [echo, asks, large, waits]
}

/// What is said about a subject after it was erased has a key of its own.
async fn who_comes_back_is_another(stage: &Stage) {
    let again = submit(stage, SUBJECT, &json!({"do": "echo", "text": "a new beginning"})).await;
    assert_eq!(stage.ended(&again).await["status"], "completed");
    assert!(task(stage, &again).await["output"].to_string().contains("a new beginning"));
    let next = ["audit", "erase", "--subject", SUBJECT, "--reason", "once more"];
    assert_eq!(stage.json(&next).await["body"]["tasks"], 1);
    nothing_is_said_any_more(stage).await;
}

async fn a_subject_is_erased(home: Home) {
    let (api, up) = (Api::of(&home), Up::start(&home).await);
    let stage = Stage { home, api, up };
    stage.assemble(CREW).await.ok();
    let tasks = work(&stage).await;
    let other = submit(&stage, "patient/2", &json!({"do": "echo", "text": "kept-of-another"})).await;
    stage.ended(&other).await;
    for name in ["log.db", "log.db-wal", "views.db", "views.db-wal"] {
        let bytes = std::fs::read(stage.home.data().join(name)).unwrap_or_default();
        assert!(!has(&bytes, WORDS), "{name} has it in clear before anything is erased");
    }
    // Files and logs are in clear, large bodies are not.
    let long = format!("{WORDS} xxx");
    assert_eq!(files_with(&stage.home.data().join("artifacts"), &long), [""; 0]);
    if stage.home.is_on_postgres() {
        stage.home.no_table_holds(&[&long]).await;
    }
    let message = large_message(&stage).await;
    let before = stage.home.path("before.tar");
    let before = before.to_str().expect("text");
    stage.hypercode(&["audit", "export", "--out", before]).await.ok();
    assert!(!has(&std::fs::read(before).expect("a bundle"), WORDS));
    let keys = stage.home.data().join("keys.db");
    let kept = std::fs::read(&keys).unwrap_or_default();

    let erase = ["audit", "erase", "--subject", SUBJECT, "--reason", "asked for", "--idempotency-key", "e1"];
    let done = stage.json(&erase).await;
    assert_eq!(done["body"]["tasks"], 10, "{done:#}");
    assert_eq!(stage.json(&erase).await, done, "the same command has the same answer");
    let [echo, _, large, waits] = &tasks;
    assert_eq!(stage.ended(waits).await["status"], "canceled");
    // What the agent that still runs wrote goes with its sandbox, and is not kept then.
    let keeps_none = |agent: &Value| agent["logs"].as_array().is_none_or(Vec::is_empty);
    let lead = stage.agent("lead", "nothing of its logs is kept", keeps_none).await;
    stage.hypercode(&["agent", "restart", lead["id"].as_str().expect("an id")]).await.ok();
    let is_next = |agent: &Value| agent["incarnation"] == 3 && agent["status"] == "ready";
    assert!(keeps_none(&stage.agent("lead", "the next", is_next).await));
    nothing_is_said_any_more(&stage).await;
    for id in [echo, large] {
        let erased = task(&stage, id).await;
        assert_eq!([&erased["input"], &erased["output"], &erased["subject"]], ["[erased]"; 3], "{erased:#}");
    }
    assert!(task(&stage, &other).await["output"].to_string().contains("kept-of-another"));
    let gone = stage.api.insist_get(&format!("/v1/messages/{message}")).await;
    assert_eq!(gone["body"], "[erased]", "{gone:#}");
    who_comes_back_is_another(&stage).await;

    let tail = stage.hypercode(&["audit", "tail", "--kind", "subject_erased"]).await.ok();
    assert!(tail.contains("asked for") && !tail.contains(SUBJECT), "{tail}");
    stage.hypercode(&["audit", "verify"]).await.ok();
    stage.hypercode(&["audit", "verify", before]).await.ok();
    let after = stage.home.path("after.tar");
    let after = after.to_str().expect("text");
    stage.hypercode(&["audit", "export", "--out", after]).await.ok();
    stage.hypercode(&["audit", "verify", after]).await.ok();
    assert!(!has(&std::fs::read(after).expect("a bundle"), WORDS));
    stage.hypercode(&["audit", "erase", "--subject", SUBJECT, "--reason", "again"]).await.refused(4);
    if !stage.home.is_on_postgres() {
        stage.hypercode(&["replay", "--check"]).await.ok();
    }

    // An older copy of the keys brings nothing back.
    let Stage { home, api, up } = stage;
    assert!(up.stop().await.success());
    if !kept.is_empty() {
        std::fs::write(&keys, &kept).expect("put back");
    }
    let stage = Stage { up: Up::start(&home).await, home, api };
    assert_eq!(task(&stage, echo).await["output"], "[erased]");
    nothing_is_said_any_more(&stage).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_is_erased_from_files() {
    a_subject_is_erased(Home::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_is_erased_from_postgres() {
    a_subject_is_erased(Home::on_postgres("s3cret-of-the-database").await).await;
}

/// Bad input is refused, and nothing is erased by it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_erased_is_said() {
    let stage = Stage::with_crew().await;
    for subject in ["", "with space", "[erased]", "sealed:1:k_1:AAAA", &"x".repeat(129)] {
        let answer =
            stage.api.post("/v1/audit/erase", &json!({"subject": subject, "reason": "r"}), None).await;
        assert_eq!(answer.expect("an answer").status, 400, "{subject}");
        let task = json!({"crew": "troupe", "input": "x", "subject": subject});
        assert_eq!(stage.api.post("/v1/tasks", &task, None).await.expect("an answer").status, 400);
    }
    let unknown = json!({"subject": "nobody", "reason": "r"});
    assert_eq!(stage.api.post("/v1/audit/erase", &unknown, None).await.expect("an answer").status, 404);
    // A task that failed cannot be tried again without what it was about.
    let failed = submit(&stage, "p1", &json!({"do": "fail"})).await;
    stage.ended(&failed).await;
    stage.json(&["audit", "erase", "--subject", "p1", "--reason", "r"]).await;
    let said = stage.hypercode(&["task", "retry", &failed]).await.refused(1);
    assert!(said.contains("erased"), "{said}");
    stage.leave().await;
}
