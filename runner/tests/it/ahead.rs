//! A handler that a pool has started before it is known for whom.

use serde_json::{Value, json};

use crate::stub::{PYTHON, Sandbox, lives, number_in};

/// Says what it is told by `initialize`, and what it was started with.
const WAITS: &str = r#"
open(os.environ["HYPERCODE_WORK"] + "/pid", "w").write(str(os.getpid()))
early = call("state/get", {"key": "k"}) if os.environ.get("EAGER") else None
told = {}
serve({
    "initialize": lambda params: told.update(params) or {"concurrency": 1},
    "task/execute": lambda params: {"output": {"told": told, "environ": dict(os.environ), "early": early}},
})
"#;

const COMMAND: [&str; 2] = ["python3", "handler.py"];

impl Sandbox {
    /// The link is made again, and welcomed with a handler to start ahead.
    async fn starts_ahead(&mut self, script: &str, env: Value) {
        self.file("handler.py", &format!("{PYTHON}\n{script}"));
        let prestart = json!({"handler": {"protocol": "stdio", "command": COMMAND},
            "source": {"path": self.source()}, "env": env});
        self.send(json!({"t": "welcome", "v": 1, "linkId": "ln_2", "heartbeatMs": 50, "frameBytes": 262144,
            "standby": true, "prestart": prestart}))
            .await;
    }
}

#[tokio::test]
async fn sb_2_a_handler_that_is_up_before_the_claim_is_told_all_by_initialize() {
    let mut sandbox = Sandbox::start().await;
    sandbox.starts_ahead(WAITS, json!({"DEPTH": "1", "EAGER": "1"})).await;
    sandbox.expect_where("heartbeat", |beat| beat["handler"] == "idle").await;
    let pid = number_in(&sandbox.work().join("pid")).await;
    assert!(lives(pid), "its process is up before there is an agent");
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    assert!(environ.contains("DEPTH=1") && !environ.contains("HYPERCODE_AGENT"), "{environ}");
    let handler = json!({"protocol": "stdio", "command": COMMAND, "started": true});
    let secrets = json!([{"name": "KEY", "value": "hunter2-key"},
        {"name": "CERT", "value": "hunter2-cert", "as": "file", "path": "certs/own"}]);
    let more = json!({"env": {"DEPTH": "2"}, "secrets": secrets});
    sandbox.assign(handler, more).await;
    let ready = sandbox.expect("ready").await;
    assert_eq!(ready["re"], "as_1");
    sandbox.task("tk_1", json!("go")).await;
    let output = sandbox.result("tk_1").await["result"]["output"]["parts"][0]["data"].clone();
    let told = &output["told"];
    let file = sandbox.work().canonicalize().unwrap().join(".secrets/certs/own");
    let env = json!({"DEPTH": "2", "CERT": file});
    assert_eq!((&told["agent"]["id"], &told["env"]), (&json!("ag_1"), &env), "{output:#}");
    assert_eq!(told["secrets"], json!({"KEY": "***"}), "what it was told is masked in what it says");
    assert!(
        output["environ"]["HYPERCODE_AGENT"].is_null() && output["environ"]["KEY"].is_null(),
        "{output:#}"
    );
    assert_eq!(output["early"]["error"]["data"]["type"], "out_of_order", "{output:#}");
    let cert = std::fs::read_to_string(file).unwrap();
    assert_eq!(cert, "hunter2-cert");
    assert_eq!(number_in(&sandbox.work().join("pid")).await, pid, "it is the process that stood by");
}

#[tokio::test]
async fn a_handler_that_ends_before_the_claim_ends_its_sandbox() {
    let mut sandbox = Sandbox::start().await;
    sandbox.starts_ahead(WAITS, json!({})).await;
    sandbox.expect_where("heartbeat", |beat| beat["handler"] == "idle").await;
    let pid = number_in(&sandbox.work().join("pid")).await;
    let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    let exited = sandbox.expect("exited").await;
    assert_eq!((&exited["signal"], &exited["tasks"]), (&json!(9), &json!([])), "{exited:#}");
    assert_eq!(sandbox.expect_exit_after_link().await, 1);
}

#[tokio::test]
async fn a_handler_that_cannot_be_started_ahead_ends_its_sandbox() {
    let mut sandbox = Sandbox::start().await;
    let prestart = json!({"handler": {"protocol": "stdio", "command": ["no-such-program"]}});
    sandbox
        .send(json!({"t": "welcome", "v": 1, "linkId": "ln_2", "heartbeatMs": 50, "frameBytes": 262144,
            "standby": true, "prestart": prestart}))
        .await;
    let exited = sandbox.expect("exited").await;
    assert!(exited["logTail"].as_str().unwrap().contains("`no-such-program` is neither"), "{exited:#}");
    assert_eq!(sandbox.expect_exit_after_link().await, 1);
}

#[tokio::test]
async fn another_agents_handler_is_not_served_by_what_was_started() {
    let mut sandbox = Sandbox::start().await;
    sandbox.starts_ahead(WAITS, json!({})).await;
    sandbox.expect_where("heartbeat", |beat| beat["handler"] == "idle").await;
    sandbox.assign(json!({"protocol": "stdio", "command": ["python3", "other.py"]}), json!({})).await;
    let failed = sandbox.expect("failed").await;
    assert!(failed["message"].as_str().unwrap().contains("not what was assigned"), "{failed:#}");
}

/// Asks for its identity and for work from its start on.
const PULLS: &str = r#"
import json, os, urllib.request
def ask(method, body=None):
    data = None if body is None else json.dumps(body).encode()
    return json.load(urllib.request.urlopen(os.environ["HYPERCODE_API"] + "/" + method, data))
open(os.environ["HYPERCODE_WORK"] + "/pid", "w").write(str(os.getpid()))
info = ask("info")
while True:
    work = ask("next", {"waitMs": 1000})
    if work["type"] == "task":
        ask("task/result", {"taskId": work["taskId"], "output": [info["agent"]["id"], info["env"]]})
    elif work["type"] == "shutdown":
        break
"#;

#[tokio::test]
async fn a_pull_handler_that_is_up_before_the_claim_waits_for_its_identity() {
    let mut sandbox = Sandbox::start().await;
    sandbox.file("pull.py", PULLS);
    let handler = json!({"protocol": "pull", "command": ["python3", "pull.py"]});
    let prestart = json!({"handler": handler, "source": {"path": sandbox.source()}});
    sandbox
        .send(json!({"t": "welcome", "v": 1, "linkId": "ln_2", "heartbeatMs": 50, "frameBytes": 262144,
            "standby": true, "prestart": prestart}))
        .await;
    let pid = number_in(&sandbox.work().join("pid")).await;
    assert!(lives(pid));
    sandbox.assign(handler, json!({"env": {"DEPTH": "2"}})).await;
    sandbox.expect("ready").await;
    sandbox.task("tk_1", json!("go")).await;
    let result = sandbox.result("tk_1").await;
    assert_eq!(result["result"]["output"]["parts"][0]["data"], json!(["ag_1", {"DEPTH": "2"}]), "{result:#}");
}
