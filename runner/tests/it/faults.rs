//! Handlers that do what they should not.

use serde_json::{Value, json};

use crate::stub::{Sandbox, lives, number_in, until};

#[tokio::test]
async fn a_crash_in_the_middle_of_a_task_names_the_task_and_shows_the_log() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            "def execute(params):\n    raise RuntimeError('out of luck')\nserve({'task/execute': execute})",
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    let exited = sandbox.expect("exited").await;
    assert_eq!(
        (&exited["exitCode"], &exited["tasks"]),
        (&json!(1), &json!([{"taskId": "tk_1", "attempt": 1}]))
    );
    assert!(exited["logTail"].as_str().unwrap().contains("out of luck"));
    assert_eq!(sandbox.expect_exit_after_link().await, 1);
}

#[tokio::test]
async fn a_crash_while_the_link_is_down_is_told_on_the_next_one() {
    let mut sandbox = Sandbox::start().await;
    sandbox.python("open('pid', 'w').write(str(os.getpid()))\nserve({'task/execute': lambda params: time.sleep(600)})").await;
    sandbox.task("tk_1", json!("go")).await;
    sandbox.expect_where("heartbeat", |beat| beat["handler"] == "busy").await;
    let pid = number_in(&sandbox.source().join("pid")).await;
    sandbox.lose_link();
    kill(pid, "KILL");
    until("the handler is gone", || !lives(pid)).await;
    sandbox.connected().await;
    sandbox.welcome(json!([])).await;
    let exited = sandbox.expect("exited").await;
    assert_eq!(exited["signal"], 9);
}

#[tokio::test]
async fn a_handler_that_ends_before_it_is_ready_has_failed() {
    let mut sandbox = Sandbox::start().await;
    sandbox.file("bad.sh", "#!/bin/sh\necho 'no such module' >&2\nexit 3\n");
    sandbox.assign(json!({"protocol": "stdio", "command": ["./bad.sh"]}), json!({})).await;
    let failed = sandbox.expect("failed").await;
    assert_eq!(
        (&failed["stage"], &failed["exitCode"], &failed["re"]),
        (&json!("initialize"), &json!(3), &json!("as_1"))
    );
    assert!(failed["logTail"].as_str().unwrap().contains("no such module"));
}

#[tokio::test]
async fn a_command_that_is_not_there_and_a_start_too_slow_have_failed() {
    let mut sandbox = Sandbox::start().await;
    sandbox.assign(json!({"protocol": "stdio", "command": ["no-such-command"]}), json!({})).await;
    let failed = sandbox.expect("failed").await;
    assert_eq!(failed["stage"], "spawn");
    assert!(failed["message"].as_str().unwrap().contains("no-such-command"));

    let mut sandbox = Sandbox::start().await;
    let command = json!({"protocol": "stdio", "command": ["sleep", "600"], "startTimeoutMs": 100});
    sandbox.assign(command, json!({})).await;
    assert_eq!(sandbox.expect("failed").await["stage"], "initialize");
}

#[tokio::test]
async fn a_hanging_handler_is_seen_to_be_silent_unless_a_call_or_a_lease_speaks_for_it() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    write({"method": "busy", "params": {"taskId": params["taskId"], "forMs": 500}})
    call("state/get", {"key": "k"})
    time.sleep(600)
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    let call = sandbox.expect_call("state/get").await;
    let leased = |beat: &Value| beat["tasks"][0]["leaseMs"].as_u64().is_some_and(|ms| ms > 0 && ms <= 500);
    sandbox.expect_where("heartbeat", leased).await;
    sandbox
        .expect_where("heartbeat", |beat| beat["tasks"][0]["leaseMs"] == 0 && beat["tasks"][0]["idleMs"] == 0)
        .await;
    sandbox.send(json!({"t": "reply", "re": call["id"], "result": {"value": 1, "version": 1}})).await;
    let beat =
        sandbox.expect_where("heartbeat", |beat| beat["tasks"][0]["idleMs"].as_u64().unwrap() > 300).await;
    assert_eq!((&beat["handler"], beat.get("stopped")), (&json!("busy"), None));
    assert!(beat["memoryBytes"].as_u64().unwrap() > 1_000_000);
}

#[tokio::test]
async fn a_stopped_handler_is_reported_and_can_still_be_ended() {
    let mut sandbox = Sandbox::start().await;
    sandbox.python("open('pid', 'w').write(str(os.getpid()))\nserve({})").await;
    let pid = number_in(&sandbox.source().join("pid")).await;
    kill(pid, "STOP");
    sandbox.expect_where("heartbeat", |beat| beat["stopped"] == true).await;
    sandbox.send(json!({"t": "drain", "id": "f_1", "reason": "restart", "graceMs": 100})).await;
    sandbox.expect("ack").await;
    assert!(!lives(pid));
}

#[tokio::test]
async fn noise_long_lines_second_answers_and_half_lines_are_recorded_and_the_work_goes_on() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    text = params["input"]["text"]
    if text == "noise":
        print("hello from print()"); print("and more"); print("[1, 2]")
    if text == "long":
        print("x" * (1 << 20), flush=True)
        return None
    if text == "twice":
        write({"id": 4, "result": {"output": "first"}})
        write({"id": 4, "result": {"output": "second"}})
        write({"id": 77, "result": {}})
        write({"id": "mine", "result": {}})
        return None
    if text == "broken":
        write({"id": 1.5, "method": "log"})
        write({"method": "log", "params": {"massage": "x"}})
        write({"method": "task/progress", "params": {"taskId": "tk_foreign"}})
    if text == "half":
        sys.stdout.write('{"jsonrpc": "2.0", "id": 6, "resu'); sys.stdout.flush()
        os._exit(0)
    return {"output": text}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("noise")).await;
    assert_eq!(sandbox.result("tk_1").await["result"]["output"]["parts"][0]["text"], "noise");
    let noise = sandbox.expect_oddity("handler.stdout_noise").await;
    assert_eq!(noise["params"]["fields"]["detail"], "hello from print()");

    sandbox.task("tk_2", json!("long")).await;
    assert_eq!(sandbox.result("tk_2").await["error"]["data"]["type"], "too_large");

    sandbox.task("tk_3", json!("twice")).await;
    assert_eq!(sandbox.result("tk_3").await["result"]["output"]["parts"][0]["text"], "first");
    sandbox.expect_oddity("handler.double_answer").await;
    sandbox.expect_oddity("handler.unknown_answer").await;
    sandbox.expect_oddity("handler.unknown_answer").await;

    sandbox.task("tk_4", json!("broken")).await;
    assert_eq!(sandbox.result("tk_4").await["result"]["output"]["parts"][0]["text"], "broken");
    sandbox.expect_oddity("handler.invalid_line").await;
    sandbox.expect_oddity("handler.invalid_note").await;
    sandbox.expect_oddity("handler.invalid_note").await;

    sandbox.task("tk_5", json!("half")).await;
    sandbox.expect_oddity("handler.half_line").await;
    assert_eq!(sandbox.expect("exited").await["tasks"], json!([{"taskId": "tk_5", "attempt": 1}]));
    let noises =
        sandbox.seen.iter().filter(|frame| frame["params"]["message"] == "handler.stdout_noise").count();
    assert_eq!(noises, 1, "one warning per incarnation");
    let log = std::fs::read_to_string(sandbox.work().join("handler.log")).unwrap();
    assert!(log.contains("and more") && log.contains("[1, 2]"));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_fails_the_task_and_says_why() {
    let mut sandbox = Sandbox::start().await;
    sandbox.python("serve({'task/execute': lambda params: {'outptu': 1}})").await;
    sandbox.task("tk_1", json!("go")).await;
    let error = &sandbox.result("tk_1").await["error"];
    assert_eq!((&error["code"], &error["data"]["field"]), (&json!(-32602), &json!("output")));
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_the_task_at_once_and_is_not_answered() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
ANSWERS = {
    "nothing": '{"jsonrpc": "2.0", "id": %d}',
    "both": '{"jsonrpc": "2.0", "id": %d, "result": {}, "error": {"code": 1}}',
    "boo": '{"jsonrpc": "2.0", "id": %d, "error": "boo"}',
    "deep": '{"jsonrpc": "2.0", "id": %d, "result": {"output": ' + "[" * 80 + "]" * 80 + '}}',
    "deeper": '{"jsonrpc": "2.0", "id": %d, "result": {"output": ' + "[" * 3000 + "]" * 3000 + '}}',
    "nan": '{"jsonrpc": "2.0", "id": %d, "result": {"output": NaN}}',
    "latin": '{"jsonrpc": "2.0", "id": %d, "result": {"output": "\xff"}}',
    "nameless": '{"jsonrpc": "2.0", "id": [%d], "result": {}}',
    "null": '{"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "line %d"}}',
}
while (frame := read()) is not None:
    if frame.get("method") == "task/execute":
        line = ANSWERS[frame["params"]["input"]["text"]] % frame["id"]
        sys.stdout.buffer.write(line.encode("latin-1") + b"\n")
        sys.stdout.flush()
    elif "method" not in frame:
        sys.exit("an answer to my answer: " + str(frame))
    elif "id" in frame:
        write({"id": frame["id"], "result": {}})
"#,
        )
        .await;
    for (number, (answer, said)) in [
        ("nothing", "has none"),
        ("both", "not both"),
        ("boo", "an object, not the text \"boo\""),
        ("deep", "nested more than 64 deep"),
        ("deeper", "nested more than 64 deep"),
        ("nan", "not JSON"),
        ("latin", "not UTF-8"),
        ("nameless", "an `id` is"),
        ("null", "the handler could not read a line"),
    ]
    .into_iter()
    .enumerate()
    {
        let task = format!("tk_{number}");
        sandbox.task(&task, json!(answer)).await;
        let result = sandbox.result(&task).await;
        let message = result["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(said), "{answer}: {result}");
        sandbox.expect_oddity("handler.invalid_line").await;
    }
}

#[tokio::test]
async fn floods_of_stderr_and_notes_are_bounded_and_harm_nobody() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    for _ in range(200):
        sys.stderr.write("e" * 65536 + "\n")
    for number in range(5000):
        write({"method": "log", "params": {"message": "line %d" % number}})
        write({"method": "task/progress", "params": {"taskId": params["taskId"], "progress": number}})
    return {"output": "done"}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    assert_eq!(sandbox.result("tk_1").await["result"]["output"]["parts"][0]["text"], "done");
    let dropped = |beat: &Value| {
        beat["dropped"]["log"].as_u64() > Some(0) && beat["dropped"]["progress"].as_u64() > Some(0)
    };
    let beat = sandbox.seen.iter().find(|frame| frame["t"] == "heartbeat" && dropped(frame)).cloned();
    if beat.is_none() {
        sandbox.expect_where("heartbeat", dropped).await;
    }
    let notes = sandbox.seen.iter().filter(|frame| frame["t"] == "note").count();
    assert!(notes < 10_000, "{notes} notes came through");
    let size = |name: &str| std::fs::metadata(sandbox.work().join(name)).map_or(0, |meta| meta.len());
    assert!(size("handler.log") + size("handler.log.1") < 3 * 1024 * 1024);
    // The runner's memory stays small: 10,000 notes and 13 MB of log went through it.
    let beat = sandbox.expect_where("heartbeat", |beat| beat["handler"] == "idle").await;
    assert!(beat["memoryBytes"].as_u64().unwrap() < 100 * 1024 * 1024);
}

#[tokio::test]
async fn a_handler_that_calls_without_end_is_answered_429() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
def execute(params):
    for number in range(70):
        write({"id": "c%d" % number, "method": "state/get", "params": {"key": "k"}})
    refused = 0
    while refused < 6:
        frame = read()
        refused += frame.get("error", {}).get("code") == 429
    return {"output": refused}
serve({"task/execute": execute})
"#,
        )
        .await;
    sandbox.task("tk_1", json!("go")).await;
    assert_eq!(sandbox.result("tk_1").await["result"]["output"]["parts"][0]["data"], 6);
    let calls = sandbox.seen.iter().filter(|frame| frame["t"] == "call").count();
    assert_eq!(calls, 64);
}

#[tokio::test]
async fn secrets_reach_the_handler_and_nothing_else() {
    let mut sandbox = Sandbox::start().await;
    let body = r#"
def execute(params):
    key, file = os.environ["KEY"], open(os.environ["F"]).read()
    sys.stderr.write("using " + key + " and " + file + "\n")
    write({"method": "log", "params": {"message": "using " + key}})
    print("noise " + key, flush=True)
    assert "t0ken" not in str(os.environ)
    return {"output": [len(key), len(file)]}
serve({"task/execute": execute})
"#;
    sandbox.file(
        "handler.py",
        &format!("{}{body}", "import sys\nsys.path.insert(0, '.')\nfrom prelude import *\n"),
    );
    sandbox.file("prelude.py", crate::stub::PYTHON);
    let secrets = json!([{"name": "KEY", "value": "hunter2-env"}, {"name": "F", "value": "hunter2-file", "as": "file", "path": "keys/api"}]);
    sandbox
        .assign(
            json!({"protocol": "stdio", "command": ["python3", "handler.py"]}),
            json!({"secrets": secrets}),
        )
        .await;
    sandbox.expect("ready").await;
    sandbox.task("tk_1", json!("go")).await;
    assert_eq!(sandbox.result("tk_1").await["result"]["output"]["parts"][0]["data"], json!([11, 12]));
    sandbox.expect_oddity("handler.stdout_noise").await;
    sandbox.expect_where("note", |note| note["params"]["message"] == "using ***").await;
    let log = || std::fs::read_to_string(sandbox.work().join("handler.log")).unwrap();
    until("the log is written", || log().contains("using *** and ***")).await;
    assert!(!log().contains("hunter2"));
    assert!(!format!("{:?}", sandbox.seen).contains("hunter2"));
}

fn kill(pid: i64, signal: &str) {
    assert!(
        std::process::Command::new("kill")
            .args([&format!("-{signal}"), &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}
