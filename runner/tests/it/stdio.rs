//! The stdio carrier and the link.

use link::transcript::{self, Direction};
use serde_json::{Value, json};

use crate::stub::Sandbox;

#[tokio::test]
async fn a_task_is_executed_with_its_files_and_its_result_is_kept_until_acknowledged() {
    let mut sandbox = Sandbox::start().await;
    let url = sandbox.store(b"quarterly");
    let ready = sandbox
        .python(
            r#"
def execute(params):
    text = open(params["dir"] + "/in/q3.txt").read()
    open(params["dir"] + "/out/extra.txt", "w").write("left behind")
    open(params["dir"] + "/named.md", "w").write("summary text")
    return {"output": text + " " + params["input"]["text"] + " " + params["from"]["name"],
            "artifacts": [{"name": "summary", "path": "named.md", "mediaType": "text/markdown"}]}
serve({"task/execute": execute})
"#,
        )
        .await;
    assert_eq!(
        ready["handler"],
        json!({"protocolVersion": 1, "concurrency": 1, "messages": "idle", "ping": false})
    );
    assert_eq!(sandbox.expect("credit").await["tasks"], 1);
    let input = json!({"parts": [{"text": "Summarise"}, {"url": url, "filename": "q3.txt"}]});
    sandbox.task("tk_9", input).await;
    let result = sandbox.expect("task.result").await;
    assert_eq!(result["result"]["output"]["parts"], json!([{"text": "quarterly Summarise user:ada"}]));
    assert_eq!((&result["fence"], &result["attempt"]), (&json!(1), &json!(1)));
    let artifacts = result["result"]["artifacts"].as_array().unwrap();
    let names: Vec<&Value> = artifacts.iter().map(|artifact| &artifact["name"]).collect();
    assert_eq!(names, ["summary", "extra.txt"]);
    let stored = sandbox.artifact(artifacts[0]["url"].as_str().unwrap().strip_prefix("artifact:").unwrap());
    assert_eq!(stored.as_deref(), Some(b"summary text".as_slice()));
    assert_eq!(sandbox.tokens(), vec![Some("t0ken".to_owned()); 2]);

    // Not acknowledged, so it comes again over the next link, with the same id and the token.
    sandbox.lose_link();
    let hello = sandbox.connected().await;
    assert_eq!(sandbox.token.as_deref(), Some("t0ken"));
    let done = json!([{"taskId": "tk_9", "attempt": 1, "fence": 1, "state": "done", "idleMs": 0}]);
    assert_eq!(hello["resume"]["tasks"], done);
    sandbox.welcome(json!([])).await;
    assert_eq!(sandbox.expect("ready").await["re"], "as_1");
    assert_eq!(sandbox.result("tk_9").await["id"], result["id"]);

    // Acknowledged, so it does not come again.
    sandbox.lose_link();
    let hello = sandbox.connected().await;
    assert_eq!(hello["resume"], json!({"tasks": [], "calls": []}));
}

#[tokio::test]
async fn a_delegate_call_survives_the_loss_of_the_link() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    answer = call("task/delegate", {"taskId": params["taskId"], "to": "writer", "input": "draft", "key": "k"})
    denied = call("message/send", {"to": "auditor", "text": "psst"}, "h2")
    return {"output": {"child": answer["result"], "denied": denied["error"]}}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    let call = sandbox.expect_call("task/delegate").await;
    assert_eq!(call["params"], json!({"taskId": "tk_1", "to": "writer", "input": "draft", "key": "k"}));
    sandbox.lose_link();
    let hello = sandbox.connected().await;
    assert_eq!(hello["resume"]["calls"], json!([call["id"]]));
    assert_eq!(hello["resume"]["tasks"][0]["state"], "running");
    sandbox.welcome(json!([])).await;
    assert_eq!(sandbox.expect_call("task/delegate").await, call, "the same call under the same id");
    // The task that is running already is sent again, as the gateway may not know that it arrived.
    sandbox.task("tk_1", json!("go")).await;
    let child = json!({"taskId": "tk_2", "state": "completed", "output": {"text": "edited", "parts": [{"text": "edited"}]}});
    sandbox.send(json!({"t": "reply", "re": call["id"], "result": child})).await;
    sandbox.send(json!({"t": "reply", "re": call["id"], "result": {"late": "second reply"}})).await;
    let send = sandbox.expect_call("message/send").await;
    let error = json!({"code": 403, "message": "no channel", "data": {"type": "channel_denied", "retryable": false, "position": 7}});
    sandbox.send(json!({"t": "reply", "re": send["id"], "error": error})).await;
    let result = sandbox.result("tk_1").await;
    assert_eq!(result["result"]["output"]["parts"][0]["data"], json!({"child": child, "denied": error}));
    let results = sandbox.seen.iter().filter(|frame| frame["t"] == "task.result").count();
    assert_eq!(results, 1, "the task that was sent twice ran once");
}

/// Which of identical delegations one is, is known in an attempt only; with a key it does not matter.
#[tokio::test]
async fn identical_delegations_without_a_key_are_counted() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    for more in ({"input": "a"}, {"input": "b"}, {"input": "a"}, {"input": "a", "key": "k"}):
        call("task/delegate", {"taskId": params["taskId"], "to": "writer", **more})
    return {"output": "done"}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    for repeat in [json!(1), json!(1), json!(2), json!(null)] {
        let call = sandbox.expect_call("task/delegate").await;
        assert_eq!(call["repeat"], repeat, "{call}");
        sandbox
            .send(json!({"t": "reply", "re": call["id"], "result": {"taskId": "tk_2", "state": "completed"}}))
            .await;
    }
    sandbox.result("tk_1").await;
}

/// What the platform could not read is a failure that says so, and not a result that nobody ever hears of.
#[tokio::test]
async fn a_result_that_is_nested_too_deep_is_a_failure() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    nested = 1
    for _ in range(60):
        nested = [nested]
    return {"output": nested}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    let result = sandbox.result("tk_1").await;
    assert_eq!(result["error"]["data"]["type"], "too_large", "{result}");
}

#[tokio::test]
async fn a_fenced_attempt_is_stopped_and_never_heard_of_again() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    if params["attempt"] == 1:
        while read()["method"] != "task/cancel":
            pass
        return {"state": "canceled"}
    return {"output": "second"}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    sandbox.expect_where("heartbeat", |beat| beat["handler"] == "busy").await;
    sandbox.lose_link();
    sandbox.connected().await;
    sandbox.welcome(json!([{"taskId": "tk_1", "attempt": 1}])).await;
    sandbox.task_attempt("tk_1", 2, json!("go")).await;
    let result = sandbox.result("tk_1").await;
    assert_eq!((&result["attempt"], &result["fence"]), (&json!(2), &json!(2)));
    let of_first = sandbox.seen.iter().find(|frame| frame["t"] == "task.result" && frame["attempt"] == 1);
    assert_eq!(of_first, None);
}

#[tokio::test]
async fn a_cancelled_task_may_end_by_itself_and_its_calls_end_with_499() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    answer = call("task/delegate", {"taskId": params["taskId"], "to": "writer", "input": "x"})
    return {"state": "canceled", "message": str(answer["error"]["code"])}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    sandbox.expect_call("task/delegate").await;
    sandbox
        .send(
            json!({"t": "task.cancel", "taskId": "tk_1", "attempt": 1, "reason": "asked", "graceMs": 60000}),
        )
        .await;
    let result = sandbox.result("tk_1").await;
    assert_eq!(result["result"], json!({"state": "canceled", "message": "499"}));
    // The handler lives on.
    sandbox.task("tk_2", json!("go")).await;
    sandbox.expect_call("task/delegate").await;
}

#[tokio::test]
async fn a_task_that_ignores_its_cancellation_is_killed_after_its_grace() {
    let mut sandbox = Sandbox::start().await;
    sandbox.python("serve({'task/execute': lambda params: time.sleep(600)})").await;
    sandbox.task("tk_1", json!("go")).await;
    sandbox.expect_where("heartbeat", |beat| beat["handler"] == "busy").await;
    sandbox
        .send(json!({"t": "task.cancel", "taskId": "tk_1", "attempt": 1, "reason": "asked", "graceMs": 100}))
        .await;
    // Nothing says before that there is room for another task: it would go down with the handler.
    let exited = sandbox.expect_where("exited", |_| true).await;
    assert!(sandbox.seen.iter().all(|frame| frame["t"] != "task.result"), "{:#?}", sandbox.seen);
    assert_eq!(exited["signal"], 9);
    assert_eq!(exited["reason"], "it did not stop task tk_1 within its grace (asked)");
    assert_eq!(exited["tasks"], json!([{"taskId": "tk_1", "attempt": 1}]));
}

#[tokio::test]
async fn messages_are_delivered_in_order_between_tasks_and_acknowledged_once() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
got = []
def execute(params):
    call("state/get", {"key": "k"})
    return {"output": got}
serve({"task/execute": execute, "message/deliver": lambda params: got.append(params["text"]) or {}})
"#,
        )
        .await;
    let message = |number: u32| {
        let params = json!({"messageId": format!("ms_{number}"), "from": {"member": "writer", "agent": "ag_2"},
            "parts": [{"text": number.to_string()}], "text": number.to_string(), "delivery": 1});
        json!({"t": "message", "id": format!("f_{number}"), "messageId": format!("ms_{number}"), "delivery": 1, "params": params})
    };
    for number in [1, 2, 1] {
        sandbox.send(message(number)).await;
    }
    for re in ["f_1", "f_2"] {
        let ack = sandbox.expect("message.ack").await;
        assert_eq!((&ack["re"], &ack["error"]), (&json!(re), &Value::Null));
    }
    sandbox.task("tk_1", json!("what came?")).await;
    let call = sandbox.expect_call("state/get").await;
    // Busy now: this one waits.
    sandbox.send(message(3)).await;
    sandbox.send(json!({"t": "reply", "re": call["id"], "result": {"value": null, "version": 0}})).await;
    let result = sandbox.result("tk_1").await;
    assert_eq!(result["result"]["output"]["parts"][0]["data"], json!(["1", "2"]));
    sandbox.expect_where("message.ack", |ack| ack["re"] == "f_3").await;
}

#[tokio::test]
async fn a_handler_that_knows_no_messages_says_so() {
    let mut sandbox = Sandbox::start().await;
    sandbox.python("serve({})").await;
    let params =
        json!({"messageId": "ms_1", "from": {"member": "writer"}, "parts": [], "text": "", "delivery": 1});
    sandbox
        .send(json!({"t": "message", "id": "f_1", "messageId": "ms_1", "delivery": 1, "params": params}))
        .await;
    assert_eq!(sandbox.expect("message.ack").await["error"]["data"]["type"], "method_not_found");
}

#[tokio::test]
async fn a_handler_asks_for_input_and_goes_on_with_the_answers() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    if "answers" not in params:
        return {"state": "input_required", "checkpoint": {"step": 1},
                "requests": {"go": {"kind": "approval", "title": "Send it?"}}}
    return {"output": [params["checkpoint"], params["answers"]["go"]["action"]]}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    let result = sandbox.result("tk_1").await;
    assert_eq!(result["result"]["state"], "input_required");
    let params = json!({"taskId": "tk_1", "attempt": 1, "contextId": "cx_1", "input": "go", "checkpoint": {"step": 1},
        "from": {"kind": "principal", "name": "u"}, "answers": {"go": {"action": "accept"}}});
    sandbox.send(json!({"t": "task", "id": "f_2", "attempt": 1, "fence": 1, "params": params})).await;
    let result = sandbox.result("tk_1").await;
    assert_eq!(result["result"]["output"]["parts"][0]["data"], json!([{"step": 1}, "accept"]));
}

/// A handler that follows a transcript to the letter: each line that it gets must be the next one, ids included.
const PUPPET: &str = r#"
import json, sys
for line in open("transcript.jsonl"):
    entry = json.loads(line)
    if entry["dir"] == "→":
        got, want = json.loads(sys.stdin.readline()), entry["frame"]
        same = got.get("id") == want.get("id") and got.get("method") == want.get("method")
        if not same or ("result" in want and got.get("result") != want["result"]):
            sys.exit("wanted %s, got %s" % (want, got))
    else:
        print(json.dumps(entry["frame"]), flush=True)
sys.stdin.read()
"#;

/// Plays the gateway's part of a transcript of stdio.
async fn replay(transcript: &str) {
    let mut sandbox = Sandbox::start().await;
    sandbox.file("puppet.py", PUPPET);
    sandbox.file("transcript.jsonl", transcript);
    sandbox.assign(json!({"protocol": "stdio", "command": ["python3", "puppet.py"]}), json!({})).await;
    sandbox.expect("ready").await;
    let mut calls = std::collections::VecDeque::new();
    let mut open = std::collections::HashMap::new();
    for entry in transcript::entries(transcript).unwrap() {
        let frame = entry.frame;
        let params = &frame["params"];
        match (entry.dir, frame["method"].as_str()) {
            (Direction::Right, Some("task/execute")) => {
                open.insert(frame["id"].clone(), params["taskId"].clone());
                let mut params = params.clone();
                params.as_object_mut().unwrap().remove("dir");
                let attempt = params["attempt"].clone();
                sandbox
                    .send(json!({"t": "task", "id": "f_1", "attempt": attempt, "fence": 1, "params": params}))
                    .await;
            }
            (Direction::Right, Some("task/cancel")) => {
                sandbox.expect_where("heartbeat", |beat| beat["handler"] == "busy").await;
                let cancel = json!({"t": "task.cancel", "taskId": params["taskId"], "attempt": 2, "reason": params["reason"], "graceMs": 10000});
                sandbox.send(cancel).await;
            }
            (Direction::Right, Some("message/deliver")) => {
                let id = &params["messageId"];
                sandbox.send(json!({"t": "message", "id": "f_2", "messageId": id, "delivery": 1, "params": params})).await;
                sandbox.expect("message.ack").await;
            }
            (Direction::Right, Some("shutdown")) => {
                sandbox.send(json!({"t": "drain", "id": "f_3", "reason": params["reason"], "graceMs": params["graceMs"]})).await;
                sandbox.expect_where("ack", |ack| ack["re"] == "f_3").await;
            }
            (Direction::Left, Some(method)) if frame.get("id").is_some() => {
                calls.push_back(sandbox.expect_call(method).await["id"].clone());
            }
            (Direction::Left, Some(method)) => {
                sandbox.expect_where("note", |note| note["method"] == method).await;
            }
            (Direction::Right, None) => {
                let re = calls.pop_front().unwrap();
                sandbox.send(json!({"t": "reply", "re": re, "result": frame["result"]})).await;
            }
            (Direction::Left, None) => {
                if let Some(task) = open.remove(&frame["id"]) {
                    // The transcript's file is not there to be uploaded.
                    let has_file = frame["result"].get("artifacts").is_some();
                    let result = sandbox.result(task.as_str().unwrap()).await;
                    assert_eq!(
                        result.get("error").is_some(),
                        has_file || frame.get("error").is_some(),
                        "{result}"
                    );
                }
            }
            (Direction::Right, _) => {}
        }
    }
}

#[tokio::test]
async fn the_transcripts_of_stdio_are_followed() {
    for (name, transcript) in transcript::STDIO {
        println!("{name}");
        replay(transcript).await;
    }
}
