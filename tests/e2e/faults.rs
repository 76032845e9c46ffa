//! Handlers that die, hang or never come up.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::stage::{CREW, Stage, wait_for};
use crate::support::{eventually, send};

/// The first attempt of a task is ended as `outcome` by `harm`; the next one brings the result.
async fn survives(outcome: &str, harm: impl FnOnce(&Stage, i32)) {
    let stage = Stage::with_crew().await;
    let task = stage.submit(&wait_for(&stage.home, "go")).await;
    let handler = stage.in_hand(&task, 1).await;
    harm(&stage, handler);
    let next = stage.in_hand(&task, 2).await;
    assert_ne!(handler, next, "another handler has it in hand");
    stage.home.write("go", "");
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    assert_eq!(ended["history"][0]["outcome"], outcome, "{ended:#}");
    let recovered = |agent: &Value| agent["incarnation"] == 2 && agent["status"] == "ready";
    let agent = stage.agent("lead", "recovered", recovered).await;
    assert_eq!(agent["lastExit"]["incarnation"], 1, "{agent:#}");
    assert!(!stage.home.processes().iter().any(|process| process.pid == handler), "the first handler lives");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_survives_its_handler_s_sigkill() {
    survives("crash", |_, handler| send(handler, Signal::SIGKILL)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_survives_its_handler_s_sigstop() {
    survives("hung", |_, handler| send(handler, Signal::SIGSTOP)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_survives_its_runner_s_sigkill() {
    survives("crash", |stage, handler| {
        let status = std::fs::read_to_string(format!("/proc/{handler}/status")).expect("the handler lives");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("it has a parent");
        let runner = parent.trim().parse().expect("a process id");
        let ours = stage.home.processes();
        assert!(ours.iter().any(|process| process.pid == runner && process.command.contains("runner")));
        send(runner, Signal::SIGKILL);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crew_whose_handler_exits_at_once_is_not_assembled_and_leaves_nothing() {
    let stage = Stage::empty().await;
    let broken = CREW.replace("{name: worker, profile: deeds}", "{name: worker, profile: broken}");
    let profile = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: broken}
spec:
  handler: {command: [sh, -c, "echo no such luck >&2; exit 3"]}
---"#;
    let said = stage.assemble(&format!("{profile}{broken}")).await.refused(1);
    assert!(said.contains("worker") && said.contains("no such luck"), "the reason is not said: {said}");
    let only_the_platform = || stage.home.processes().iter().all(|process| process.command.contains(" up "));
    eventually("the end of every agent", async || only_the_platform().then_some(())).await;
    let crews = stage.json(&["crew", "list"]).await;
    assert!(
        crews["items"].as_array().into_iter().flatten().all(|crew| crew["status"] != "running"),
        "{crews}"
    );
    // Its name is free again.
    stage.assemble(CREW).await.ok();
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crew_of_an_unknown_profile_is_refused() {
    let stage = Stage::empty().await;
    let said = stage.assemble(&CREW.replace("profile: deeds", "profile: deed")).await.refused(2);
    assert!(said.contains("profile `deed` does not exist"), "{said}");
    // All at once, each where it stands.
    assert!(said.contains("crew.yaml:15:29: error: spec.members[0].profile: unknown profile"), "{said}");
    assert!(said.contains("crew.yaml:16:31: error: spec.members[1].profile: unknown profile"), "{said}");
    let file = stage.home.path("crew.yaml");
    let ran = stage.hypercode(&["crew", "plan", file.to_str().expect("text")]).await;
    assert!(ran.code == 1 && ran.out.contains("crew.yaml:16:31: error: spec.members[1].profile"), "{ran:?}");
    assert!(stage.home.diary().is_empty());
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_s_noise_and_second_answers_do_no_harm() {
    let stage = Stage::with_crew().await;
    let task = stage.submit(&json!({"do": "noise", "answers": 3})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["output"]["parts"][0]["text"], "heard in spite of the noise", "{ended:#}");
    let agent = stage.agent("lead", "as before", |agent| agent["status"] == "ready").await;
    assert_eq!(agent["incarnation"], 1, "{agent:#}");
    stage.leave().await;
}

/// A server whose health stands still has stopped working at what it has in hand, whatever it answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_gets_no_further_is_hung() {
    const SERVER: &str = r#"
import http.server, json, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        body = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"status": "Healthy", "time_of_last_update": 1})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Hypercode-Attempt"] == "1":
            time.sleep(600)
        self.answer({"said": "in the next attempt"})

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;
    let stage = Stage::empty().await;
    stage.home.write("deeds/server.py", SERVER);
    let handler = "{command: [python3, server.py], source: ./deeds, protocol: http, grace: 2s}";
    let crew = CREW
        .replace("{command: [python3, deeds.py], source: ./deeds, concurrency: 4, grace: 2s}", handler)
        .replace(
            "liveness: {heartbeat: 500ms, missed: 60}",
            "liveness: {heartbeat: 500ms, missed: 20, progress: 11s}",
        );
    stage.assemble(&crew).await.ok();
    let ended = stage.ended(&stage.submit(&json!({})).await).await;
    assert_eq!(
        (&ended["status"], &ended["history"][0]["outcome"]),
        (&json!("completed"), &json!("hung")),
        "{ended:#}"
    );
    stage.leave().await;
}

/// A handler that works at several tasks is judged by each of them; a lease excuses one that is slow, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_tasks_only_the_silent_one_is_hung_and_a_lease_excuses_slowness() {
    let stage = Stage::empty().await;
    let liveness = "liveness: {heartbeat: 500ms, missed: 20, progress: 11s}";
    stage.assemble(&CREW.replace("liveness: {heartbeat: 500ms, missed: 60}", liveness)).await.ok();
    let slow = json!({"do": "lease", "ms": 600_000, "for": stage.home.path("go")});
    let slow = stage.submit(&slow).await;
    stage.in_hand(&slow, 1).await;
    let silent = stage.submit(&wait_for(&stage.home, "never")).await;
    stage.in_hand(&silent, 2).await;
    let shown = stage.json(&["task", "show", &silent]).await;
    assert_eq!(shown["history"][0]["outcome"], "hung", "{shown:#}");
    stage.home.write("go", "");
    let ended = stage.ended(&slow).await;
    assert_eq!((&ended["status"], &ended["attempts"]), (&json!("completed"), &json!(1)), "{ended:#}");
    let agent = stage.agent("lead", "the same incarnation", |agent| agent["incarnation"] == 1).await;
    assert!(agent["lastExit"].is_null(), "{agent:#}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_said_to_be_a_crew_s() {
    let stage = Stage::with_crew().await;
    let crew = stage.json(&["crew", "show", "troupe"]).await;
    let said = stage.assemble(CREW).await.refused(1);
    assert!(said.contains("a crew named `troupe` exists already"), "{said}");
    assert!(said.contains(crew["id"].as_str().expect("an id")), "{said}");
    stage.leave().await;
}
