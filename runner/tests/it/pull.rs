//! The pull carrier: a handler with a loop of its own.

use serde_json::{Value, json};

use crate::stub::Sandbox;

/// What pull handlers begin with: nothing but the standard library.
const PULL: &str = r#"
import json, os, sys, time, urllib.request, urllib.error
API = os.environ["HYPERCODE_API"]

def post(method, params, headers={}):
    request = urllib.request.Request(API + "/" + method, json.dumps(params).encode(), headers)
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return {"status": error.code, **json.loads(error.read() or b"{}")}
"#;

async fn pull(body: &str, handler: Value) -> Sandbox {
    let mut sandbox = Sandbox::start().await;
    sandbox.file("loop.py", &format!("{PULL}\n{body}"));
    let mut spec = json!({"protocol": "pull", "command": ["python3", "loop.py"]});
    for (field, value) in handler.as_object().unwrap() {
        spec[field] = value.clone();
    }
    sandbox.assign(spec, json!({})).await;
    sandbox.expect("ready").await;
    sandbox
}

#[tokio::test]
async fn a_loop_takes_tasks_and_messages_makes_calls_and_ends_when_told() {
    let mut sandbox = pull(
        r#"
heard = []
info = json.load(urllib.request.urlopen(API + "/info"))
while (work := post("next", {"waitMs": 60000}))["type"] != "shutdown":
    if work["type"] == "message":
        heard.append(work["text"])
        post("message/ack", {"messageId": work["messageId"]})
    elif work["type"] == "task" and work["input"]["text"] == "fail":
        post("task/result", {"taskId": work["taskId"], "error": {"message": "busy", "retry": "transient", "retryAfterMs": 5}})
    elif work["type"] == "task":
        post("task/progress", {"taskId": work["taskId"], "progress": 1, "total": 2})
        child = post("task/delegate", {"taskId": work["taskId"], "to": "writer", "input": heard})
        post("task/result", {"taskId": work["taskId"], "output": [child["state"], heard, info["agent"]["member"]]})
        late = post("task/result", {"taskId": work["taskId"], "output": 2})
        heard = [late["status"], late["type"]]
sys.exit(0)
"#,
        json!({}),
    )
    .await;
    let params = json!({"messageId": "ms_1", "from": {"member": "writer"}, "parts": [{"text": "hi"}], "text": "hi", "delivery": 1});
    sandbox
        .send(json!({"t": "message", "id": "f_1", "messageId": "ms_1", "delivery": 1, "params": params}))
        .await;
    assert_eq!(sandbox.expect("message.ack").await.get("error"), None);

    for (task, heard) in [("tk_1", json!(["hi"])), ("tk_2", json!([409, "fenced"]))] {
        sandbox.task(task, json!("go")).await;
        let call = sandbox.expect_call("task/delegate").await;
        assert_eq!(call["params"]["input"], heard);
        sandbox
            .send(json!({"t": "reply", "re": call["id"], "result": {"taskId": "c", "state": "completed"}}))
            .await;
        let result = sandbox.result(task).await;
        assert_eq!(result["result"]["output"]["parts"][0]["data"], json!(["completed", heard, "m"]));
    }
    sandbox.task("tk_3", json!("fail")).await;
    let error = sandbox.result("tk_3").await["error"].clone();
    assert_eq!((&error["data"]["retry"], &error["data"]["retryAfterMs"]), (&json!("transient"), &json!(5)));

    sandbox.send(json!({"t": "drain", "id": "f_2", "reason": "drain", "graceMs": 60000})).await;
    sandbox.expect("ack").await;
    assert_eq!(sandbox.expect_exit_after_link().await, 0);
}

#[tokio::test]
async fn a_loop_that_forgets_its_task_has_abandoned_it() {
    let mut sandbox = pull(
        r#"
while True:
    try:
        work = post("next", {"waitMs": 60000, "accept": ["task"]})
        raise KeyError("swallowed")
    except KeyError:
        pass
"#,
        json!({}),
    )
    .await;
    sandbox.task("tk_1", json!("go")).await;
    assert_eq!(sandbox.result("tk_1").await["error"]["data"]["type"], "abandoned");
}

#[tokio::test]
async fn a_cancelled_loop_learns_of_it_from_its_calls() {
    let mut sandbox = pull(
        r#"
while True:
    work = post("next", {"waitMs": 60000})
    while post("task/progress", {"taskId": work["taskId"], "progress": 1}) == {}:
        time.sleep(0.02)
    post("task/result", {"taskId": work["taskId"], "state": "canceled", "message": "by itself"})
"#,
        json!({}),
    )
    .await;
    sandbox.task("tk_1", json!("go")).await;
    sandbox.expect("note").await;
    sandbox
        .send(
            json!({"t": "task.cancel", "taskId": "tk_1", "attempt": 1, "reason": "asked", "graceMs": 60000}),
        )
        .await;
    assert_eq!(sandbox.result("tk_1").await["result"], json!({"state": "canceled", "message": "by itself"}));
}

#[tokio::test]
async fn a_loop_without_work_is_told_so_and_a_crash_names_its_task() {
    let mut sandbox = pull(
        r#"
nothing = post("next", {"waitMs": 1, "accept": ["message"]})
wrong = post("next", {"wait": 1})
work = post("next", {"waitMs": 60000})
post("task/result", {"taskId": work["taskId"], "output": [nothing, wrong["status"], post("no/such", {})["status"]]})
post("next", {"waitMs": 60000})
os._exit(7)
"#,
        json!({}),
    )
    .await;
    sandbox.task("tk_1", json!("go")).await;
    assert_eq!(
        sandbox.result("tk_1").await["result"]["output"]["parts"][0]["data"],
        json!([{"type": "none"}, 400, 404])
    );
    sandbox.task("tk_2", json!("go")).await;
    let exited = sandbox.expect("exited").await;
    assert_eq!(
        (&exited["exitCode"], &exited["tasks"]),
        (&json!(7), &json!([{"taskId": "tk_2", "attempt": 1}]))
    );
}
