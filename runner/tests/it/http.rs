//! The http carrier: a handler that is a server.

use serde_json::{Value, json};

use crate::stub::{Sandbox, until};

/// A server of the standard library; `answer(prompt)` gives status, headers and body.
const SERVER: &str = r#"
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(200, {"Content-Type": "application/json"}, json.dumps({"status": "Healthy"}).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer(self, body)

    def json(self, value, status=200, headers={}):
        self.reply(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())

def run():
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

async fn http(answer: &str, more: Value) -> Sandbox {
    let mut sandbox = Sandbox::start().await;
    sandbox.file("server.py", &format!("{SERVER}\n{answer}\nrun()"));
    let mut handler = json!({"protocol": "http", "command": ["python3", "server.py"], "concurrency": 2});
    for (field, value) in more.as_object().unwrap() {
        handler[field] = value.clone();
    }
    sandbox.assign(handler, json!({})).await;
    sandbox.expect("ready").await;
    sandbox
}

#[tokio::test]
async fn a_server_answers_prompts_data_streams_and_statuses() {
    let mut sandbox = http(
        r#"
def answer(self, body):
    prompt = body.get("prompt", "")
    if prompt == "busy":
        self.json({"detail": "later"}, 503, {"Retry-After": "2"})
    elif prompt == "broken":
        self.json({"message": "no"}, 422)
    elif prompt == "text":
        self.reply(200, {"Content-Type": "text/plain"}, b"plain")
    elif prompt == "stream":
        self.reply(200, {"Content-Type": "text/event-stream"}, b'data: "Hel"\n\ndata: "lo"\n\n')
    elif prompt == "object":
        self.reply(200, {"Content-Type": "text/event-stream"}, b'data: "thinking"\n\ndata: {"answer": 42}\n\n')
    else:
        self.json({"got": body, "task": self.headers["Hypercode-Task-Id"], "attempt": self.headers["Hypercode-Attempt"],
                   "session": self.headers["X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"]})
"#,
        json!({}),
    )
    .await;
    let mut number = 0;
    let mut ask = async |sandbox: &mut Sandbox, input: Value| {
        number += 1;
        let task = format!("tk_{number}");
        sandbox.task(&task, input).await;
        sandbox.result(&task).await
    };
    let data =
        ask(&mut sandbox, json!({"question": 1})).await["result"]["output"]["parts"][0]["data"].clone();
    assert_eq!(data, json!({"got": {"question": 1}, "task": "tk_1", "attempt": "1", "session": "cx_1"}));
    let got = ask(&mut sandbox, json!("hello")).await["result"]["output"]["parts"][0]["data"]["got"].clone();
    assert_eq!(got, json!({"prompt": "hello", "input": {"text": "hello", "parts": [{"text": "hello"}]}}));
    assert_eq!(ask(&mut sandbox, json!("text")).await["result"]["output"]["parts"][0]["text"], "plain");
    assert_eq!(ask(&mut sandbox, json!("stream")).await["result"]["output"]["parts"][0]["text"], "Hello");
    let delta = sandbox.expect_where("note", |note| note["method"] == "task/progress").await;
    assert_eq!(delta["params"]["delta"], "Hel");
    assert_eq!(
        ask(&mut sandbox, json!("object")).await["result"]["output"]["parts"][0]["data"],
        json!({"answer": 42})
    );
    let busy = ask(&mut sandbox, json!("busy")).await["error"].clone();
    assert_eq!((&busy["code"], &busy["message"]), (&json!(503), &json!("later")));
    assert_eq!((&busy["data"]["retry"], &busy["data"]["retryAfterMs"]), (&json!("transient"), &json!(2000)));
    let broken = ask(&mut sandbox, json!("broken")).await["error"].clone();
    assert_eq!((&broken["code"], broken["data"].get("retry")), (&json!(422), None));
}

#[tokio::test]
async fn an_answer_that_is_not_what_it_is_called_is_a_failure() {
    let answer = r#"
BODIES = {
    "latin": ("text/plain", b"\xff\xfe"),
    "bad": ("application/json; charset=utf-8", b"{bad"),
    "problem": ("application/x+json", b""),
    "deep": ("application/json", b"[" * 500 + b"]" * 500),
    "stream": ("text/event-stream", b'data: "\xff"\n\n'),
    "deep stream": ("text/event-stream", b'data: {"a": ' + b"[" * 500 + b"]" * 500 + b"}\n\n"),
}
def answer(self, body):
    kind, bytes = BODIES[body["prompt"]]
    self.reply(200, {"Content-Type": kind}, bytes)
"#;
    let mut sandbox = http(answer, json!({})).await;
    for (number, (prompt, said)) in [
        ("latin", "not UTF-8 from byte 0 on"),
        ("bad", "no JSON"),
        ("problem", "no JSON"),
        ("deep", "nested more than 64 deep"),
        ("stream", "not UTF-8"),
        ("deep stream", "nested more than 64 deep"),
    ]
    .into_iter()
    .enumerate()
    {
        let task = format!("tk_{number}");
        sandbox.task(&task, json!(prompt)).await;
        let result = sandbox.result(&task).await;
        let message = result["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(said), "{prompt}: {result}");
    }
}

#[tokio::test]
async fn a_whole_result_may_be_the_answer() {
    let answer = "def answer(self, body):\n    self.json({'state': 'rejected', 'message': 'not mine'})";
    let mut sandbox = http(answer, json!({"stdout": "result"})).await;
    sandbox.task("tk_1", json!("go")).await;
    assert_eq!(sandbox.result("tk_1").await["result"], json!({"state": "rejected", "message": "not mine"}));
}

#[tokio::test]
async fn a_cancelled_request_is_a_closed_connection_and_the_server_serves_on() {
    let mut sandbox = http(
        r#"
def answer(self, body):
    if body["prompt"] == "slow":
        work = os.environ["HYPERCODE_WORK"]
        open(work + "/begun", "w").close()
        self.connection.settimeout(60)
        if self.connection.recv(1) == b"":
            open(work + "/closed", "w").close()
        return
    self.json("quick")
"#,
        json!({}),
    )
    .await;
    sandbox.task("tk_1", json!("slow")).await;
    let work = sandbox.work();
    until("the request came", || work.join("begun").exists()).await;
    sandbox
        .send(
            json!({"t": "task.cancel", "taskId": "tk_1", "attempt": 1, "reason": "asked", "graceMs": 60000}),
        )
        .await;
    assert_eq!(sandbox.result("tk_1").await["result"], json!({"state": "canceled", "message": "asked"}));
    until("the connection is closed", || work.join("closed").exists()).await;
    sandbox.task("tk_2", json!("go")).await;
    assert_eq!(sandbox.result("tk_2").await["result"]["output"]["parts"][0]["text"], "quick");
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_request_has_crashed() {
    let mut sandbox = http("def answer(self, body):\n    os._exit(3)", json!({})).await;
    sandbox.task("tk_1", json!("go")).await;
    let exited = sandbox.expect("exited").await;
    assert_eq!(
        (&exited["exitCode"], &exited["tasks"]),
        (&json!(3), &json!([{"taskId": "tk_1", "attempt": 1}]))
    );
    let result = sandbox.seen.iter().find(|frame| frame["t"] == "task.result");
    assert_eq!(result, None);
}

#[tokio::test]
async fn a_drained_server_is_terminated() {
    let mut sandbox = http("def answer(self, body):\n    pass", json!({})).await;
    sandbox.send(json!({"t": "drain", "id": "f_1", "reason": "drain", "graceMs": 2000})).await;
    sandbox.expect("ack").await;
    assert_eq!(sandbox.expect_exit_after_link().await, 0);
}
