//! The exec carrier: one process a task.

use serde_json::{Value, json};

use crate::stub::{Sandbox, lives, number_in};

async fn exec(script: &str, more: Value) -> Sandbox {
    let mut sandbox = Sandbox::start().await;
    sandbox.file("tool.sh", &format!("#!/bin/sh\n{script}\n"));
    let mut handler = json!({"protocol": "exec", "command": ["./tool.sh"], "concurrency": 1});
    for (field, value) in more.as_object().unwrap() {
        handler[field] = value.clone();
    }
    sandbox.assign(handler, json!({})).await;
    let ready = sandbox.expect("ready").await;
    assert_eq!(ready["handler"]["messages"], "none");
    sandbox
}

#[tokio::test]
async fn exit_codes_decide_what_becomes_of_the_task() {
    let mut sandbox = exec(
        r#"read word
case $word in
  ok) echo "to upper: $word"; echo "from the log" >&2; echo made > out/made.txt;;
  signal) kill -KILL $$;;
  *) echo "because of $word" >&2; exit $word;;
esac"#,
        json!({}),
    )
    .await;
    sandbox.task("tk_ok", json!("ok")).await;
    let result = sandbox.result("tk_ok").await["result"].clone();
    assert_eq!(result["output"]["parts"], json!([{"text": "to upper: ok"}]));
    assert_eq!(result["artifacts"][0]["name"], "made.txt");

    sandbox.task("tk_65", json!("65")).await;
    let rejected = sandbox.result("tk_65").await["result"].clone();
    assert_eq!(rejected["state"], "rejected");
    assert_eq!(rejected["message"], "the command exited with code 65: because of 65");

    sandbox.task("tk_75", json!("75")).await;
    assert_eq!(sandbox.result("tk_75").await["error"]["data"]["retry"], "transient");
    sandbox.task("tk_9", json!("9")).await;
    assert_eq!(sandbox.result("tk_9").await["error"]["data"]["retry"], "permanent");
    sandbox.task("tk_signal", json!("signal")).await;
    let crash = sandbox.result("tk_signal").await["error"].clone();
    assert_eq!(
        (&crash["data"]["type"], &crash["message"]),
        (&json!("crash"), &json!("the command was ended by SIGKILL"))
    );
    let exited = sandbox.seen.iter().find(|frame| frame["t"] == "exited");
    assert_eq!(exited, None, "the handler is the command, and that is still there");
}

#[tokio::test]
async fn a_failure_has_the_last_words_of_its_own_command_only() {
    let script = r#"read word
case $word in
  says) echo "alice has cancer" >&2;;
  beside) echo "bob is ill" >&2; touch "$HYPERCODE_WORK/beside"; while [ ! -e "$HYPERCODE_WORK/go" ]; do sleep 0.02; done;;
  fails) exit 7;;
esac"#;
    let mut sandbox = exec(script, json!({"concurrency": 2})).await;
    sandbox.task("tk_says", json!("says")).await;
    assert_eq!(sandbox.result("tk_says").await["result"]["state"], "completed");
    sandbox.task("tk_beside", json!("beside")).await;
    let work = sandbox.work();
    crate::stub::until("the other runs", || work.join("beside").exists()).await;
    let log = || std::fs::read_to_string(work.join("handler.log")).unwrap();
    crate::stub::until("both have spoken", || log().contains("alice") && log().contains("bob")).await;
    sandbox.task("tk_fails", json!("fails")).await;
    assert_eq!(sandbox.result("tk_fails").await["error"]["message"], "the command exited with code 7");
    std::fs::write(work.join("go"), "").unwrap();
    sandbox.result("tk_beside").await;
}

#[tokio::test]
async fn output_that_is_no_text_is_refused_rather_than_changed() {
    for stdout in ["text", "json", "result"] {
        let mut sandbox = exec("printf '\\377\\376'", json!({"stdout": stdout})).await;
        sandbox.task("tk_1", json!("go")).await;
        let error = sandbox.result("tk_1").await["error"].clone();
        assert!(error["message"].as_str().unwrap().contains("to a file in `out/`"), "{stdout}: {error}");
    }
}

#[tokio::test]
async fn input_and_output_may_be_json() {
    let mut sandbox = exec("cat", json!({"stdin": "json", "stdout": "json"})).await;
    sandbox.task("tk_1", json!({"n": 1})).await;
    let data = sandbox.result("tk_1").await["result"]["output"]["parts"][0]["data"].clone();
    assert_eq!((&data["taskId"], &data["input"]["parts"][0]["data"]), (&json!("tk_1"), &json!({"n": 1})));

    let mut sandbox = exec("cat", json!({"stdout": "result"})).await;
    sandbox.task("tk_1", json!(r#"{"state": "rejected", "message": "not mine"}"#)).await;
    assert_eq!(sandbox.result("tk_1").await["result"], json!({"state": "rejected", "message": "not mine"}));
    sandbox.task("tk_2", json!("no json")).await;
    assert_eq!(sandbox.result("tk_2").await["error"]["code"], -32602);
}

#[tokio::test]
async fn output_without_end_is_refused_and_a_program_of_the_path_finds_its_script() {
    let mut sandbox = exec("head -c 1000000 /dev/zero", json!({})).await;
    sandbox.task("tk_1", json!("go")).await;
    assert_eq!(sandbox.result("tk_1").await["error"]["data"]["type"], "too_large");

    let mut sandbox = Sandbox::start().await;
    sandbox.file(
        "tool.py",
        "import os, sys\nprint(sys.stdin.read(), os.path.exists('out'), os.environ['HYPERCODE_TASK'])",
    );
    sandbox.assign(json!({"protocol": "exec", "command": ["python3", "tool.py"]}), json!({})).await;
    sandbox.expect("ready").await;
    sandbox.task("tk_1", json!("in")).await;
    assert_eq!(sandbox.result("tk_1").await["result"]["output"]["parts"][0]["text"], "in True tk_1");
}

#[tokio::test]
async fn a_cancelled_command_is_terminated_then_killed_with_its_children() {
    let script = r#"read word
sleep 600 & echo $! > "$HYPERCODE_WORK/child-$word"
[ "$word" = deaf ] && trap '' TERM
echo $$ > "$HYPERCODE_WORK/pid-$word"
wait; wait; sleep 600"#;
    let mut sandbox = exec(script, json!({})).await;
    for (word, grace) in [("polite", 60_000), ("deaf", 100)] {
        sandbox.task(word, json!(word)).await;
        let work = sandbox.work();
        let pids = [
            number_in(&work.join(format!("pid-{word}"))).await,
            number_in(&work.join(format!("child-{word}"))).await,
        ];
        assert!(pids.iter().all(|pid| lives(*pid)));
        let cancel =
            json!({"t": "task.cancel", "taskId": word, "attempt": 1, "reason": "asked", "graceMs": grace});
        sandbox.send(cancel).await;
        assert_eq!(sandbox.result(word).await["result"], json!({"state": "canceled", "message": "asked"}));
        crate::stub::until("the command and its child are gone", || !pids.iter().any(|pid| lives(*pid)))
            .await;
    }
}

#[tokio::test]
async fn commands_run_side_by_side_up_to_the_concurrency() {
    let script = r#"read word; touch "$HYPERCODE_WORK/started-$word"; while [ ! -e "$HYPERCODE_WORK/go" ]; do sleep 0.02; done; echo $word"#;
    let mut sandbox = exec(script, json!({"concurrency": 2})).await;
    for word in ["a", "b", "c"] {
        sandbox.task(word, json!(word)).await;
    }
    let work = sandbox.work();
    crate::stub::until("two run", || work.join("started-a").exists() && work.join("started-b").exists())
        .await;
    assert!(!work.join("started-c").exists(), "the third waits, although it came without credit");
    std::fs::write(work.join("go"), "").unwrap();
    for word in ["a", "b", "c"] {
        assert_eq!(sandbox.result(word).await["result"]["output"]["parts"][0]["text"], word);
    }
}
