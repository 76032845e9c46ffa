//! Bad input: a clear error, the exit code or status for it, and a platform that goes on.

use std::process::Stdio;

use serde_json::json;

use crate::stage::Stage;
use crate::support::{Home, Ran, program};

/// Files that are no manifests, and what must be said of each.
fn bad_manifests() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned()
        + &('b'..='j')
            .map(|name| {
                let before = (name as u8 - 1) as char;
                format!(
                    "{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}]\n"
                )
            })
            .collect::<String>();
    vec![
        ("empty.yaml", Vec::new(), "empty.yaml"),
        ("noise.yaml", b"\x00\x01\x02 what\x07".to_vec(), "noise.yaml"),
        ("latin1.yaml", b"apiVersion: hypercode.dev/v1\nkind: Cr\xe9w\n".to_vec(), "UTF-8"),
        ("utf16.yaml", b"\xff\xfea\x00p\x00i\x00".to_vec(), "UTF-8"),
        ("half.yaml", b"apiVersion: hypercode.dev/v1\nkind: Crew\nspec: {members: [".to_vec(), "half.yaml:"),
        ("kind.yaml", b"apiVersion: hypercode.dev/v1\nkind: Crow\n".to_vec(), "Crew"),
        ("deep.yaml", b"[".repeat(200_000), "deep.yaml"),
        ("deep.json", b"{\"a\":".repeat(100_000), "deep.json"),
        ("bomb.yaml", bomb.into_bytes(), "bomb.yaml"),
        ("huge.yaml", b"# nothing\n".repeat(1 << 20), "huge.yaml"),
    ]
}

fn is_clear(name: &str, ran: &Ran, code: i32, word: &str) {
    let said = format!("{}{}", ran.out, ran.err);
    assert_eq!(ran.code, code, "{name}: {}", said.chars().take(2_000).collect::<String>());
    assert!(
        said.contains(word),
        "{name}: `{word}` is not in: {}",
        said.chars().take(2_000).collect::<String>()
    );
    assert!(said.len() < 64 << 10, "{name}: {} bytes are said", said.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_manifests_are_refused_with_file_and_reason() {
    let home = Home::new();
    for (name, bytes, word) in bad_manifests() {
        home.write(name, bytes);
        is_clear(name, &home.run(&["validate", name]).await, 1, word);
    }
    std::fs::File::create(home.path("giant.yaml")).expect("a file").set_len(1 << 40).expect("a hole");
    is_clear("giant", &home.run(&["validate", "giant.yaml"]).await, 2, "giant.yaml");
    is_clear("missing", &home.run(&["validate", "missing.yaml"]).await, 2, "missing.yaml");
    let all = home.run(&["validate", "bomb.yaml", "missing.yaml", "gone.yaml", "huge.yaml"]).await;
    for name in ["bomb.yaml", "missing.yaml", "gone.yaml", "huge.yaml"] {
        is_clear("all faults at once", &all, 2, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_there_is_a_fault_with_its_place() {
    let home = Home::new();
    let profile = "apiVersion: hypercode.dev/v1\nkind: Profile\nmetadata: {name: p}\nspec:\n  handler:\n    command: [sh]\n    source: ./gone\n    cwd: /\n";
    home.write("p.yaml", profile);
    let ran = home.run(&["validate", "p.yaml"]).await;
    is_clear("p", &ran, 1, "p.yaml:7:13: error: spec.handler.source: missing file or directory \"./gone\"");
    assert!(ran.out.contains("p.yaml:8:10: error: spec.handler.cwd"), "all faults at once: {ran:?}");
    home.write("gone/main.sh", "");
    home.write("p.yaml", profile.replace("    cwd: /\n", ""));
    home.run(&["validate", "p.yaml"]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_a_failure_and_a_reader_who_left_is_none() {
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("a full device");
    let run = async |args: &[&str], stdout: Stdio| {
        let child = program().args(args).stdout(stdout).stderr(Stdio::piped()).spawn().expect("it starts");
        child.wait_with_output().await.expect("it ends")
    };
    for args in [&["schema", "crew"][..], &["--help"]] {
        let ran = run(args, full().into()).await;
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.code() == Some(5) && said.contains("standard output"), "{args:?}: {ran:?}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ran = run(args, writer.into()).await;
        assert!(ran.status.success() && ran.stderr.is_empty(), "{args:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_refuses_bad_manifests_and_goes_on() {
    let stage = Stage::empty().await;
    for (name, bytes, word) in bad_manifests() {
        let file = stage.home.write(name, bytes);
        let file = file.to_str().expect("text");
        is_clear(name, &stage.hypercode(&["crew", "assemble", file]).await, 2, word);
        is_clear(name, &stage.hypercode(&["profile", "apply", file]).await, 2, word);
    }
    stage.hypercode(&["crew", "list"]).await.ok();
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_problems_and_the_platform_goes_on() {
    let stage = Stage::empty().await;
    let json = "application/json";
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    for (what, path, media_type, body, status) in [
        ("half", "/v1/tasks", json, b"{\"crew\":".to_vec(), 400),
        ("not UTF-8", "/v1/tasks", json, b"{\"crew\":\"\xe9\"}".to_vec(), 400),
        ("deep", "/v1/tasks", json, deep, 400),
        ("huge", "/v1/tasks", json, vec![b' '; 3 << 20], 413),
        ("an unknown field", "/v1/tasks", json, b"{\"crew\":\"c\",\"input\":1,\"inptu\":2}".to_vec(), 400),
        ("a wrong type", "/v1/tasks", json, b"{\"crew\":7,\"input\":1}".to_vec(), 400),
        ("a wrong media type", "/v1/tasks", "text/plain", b"{}".to_vec(), 415),
        ("nothing there", "/v1/nothing", json, b"{}".to_vec(), 404),
        ("a wrong method", "/v1/agents", json, b"{}".to_vec(), 405),
        (
            "a manifest of the wrong kind",
            "/v1/profiles",
            json,
            b"{\"manifest\":{\"kind\":\"Crew\"}}".to_vec(),
            400,
        ),
    ] {
        let answer = stage.api.post_bytes(path, media_type, body).await.expect("an answer");
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(answer.body["status"], status, "{what}: {answer:?}");
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{what}: {answer:?}");
    }
    for ms in [0, u64::MAX] {
        let late = json!({"crew": "c", "input": 1, "deadlineMs": ms});
        let answer = stage.api.post("/v1/tasks", &late, None).await.expect("an answer");
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(answer.status == 400 && detail.contains("`deadlineMs`"), "{answer:?}");
    }
    let long = "k".repeat(10_000);
    let answer = stage.api.post("/v1/tasks", &json!({"crew": "c", "input": 1}), Some(&long)).await;
    assert_eq!(answer.expect("an answer").status, 400);
    assert!(stage.api.get("/readyz").await.expect("an answer").is_ok());
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_commands_without_the_token() {
    let stage = Stage::empty().await;
    let wrong = stage.home.write("wrong.token", "not-the-token");
    let wrong = wrong.to_str().expect("text");
    stage.hypercode(&["crew", "list", "--token-file", wrong]).await.refused(3);
    stage.hypercode(&["crew", "disband", "troupe", "--token-file", wrong]).await.refused(3);
    stage.leave().await;
}
