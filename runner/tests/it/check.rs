//! `handler check`: good handlers pass, each fault is named.

use std::collections::BTreeMap;

use hypercode_runner::check::{CheckOptions, Finding, Severity, check};
use serde_json::json;

async fn findings(body: &str) -> Vec<Finding> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("handler.py"), format!("{}\n{body}", crate::stub::PYTHON)).unwrap();
    let options = CheckOptions {
        command: vec!["python3".into(), "handler.py".into()],
        cwd: dir.path().to_owned(),
        work: dir.path().to_owned(),
        env: BTreeMap::new(),
        child: link::Content::data(json!({"score": 3})),
        step_ms_max: 10_000,
        grace_ms: 1_000,
    };
    check(&options).await
}

fn faults(findings: &[Finding]) -> Vec<String> {
    findings.iter().filter(|finding| finding.severity != Severity::Info).map(ToString::to_string).collect()
}

const GOOD: &str = r#"
def execute(params):
    write({"method": "task/progress", "params": {"taskId": params["taskId"], "progress": 1}})
    child = call("task/delegate", {"taskId": params["taskId"], "to": "writer", "input": "x"})["result"]
    stored = call("artifact/put", {"text": "x", "name": "x"})["result"]
    score = child["output"]["parts"][0]["data"]["score"]
    return {"output": [params["input"]["text"], child["state"], score, stored["size"]]}
"#;

#[tokio::test]
async fn a_good_handler_has_no_faults() {
    let all = findings(&format!("{GOOD}\nserve({{'initialize': lambda params: {{'ping': True}}, 'ping': lambda params: {{}}, 'task/execute': execute}})")).await;
    assert_eq!(faults(&all), Vec::<String>::new(), "{all:#?}");
    let tasks = all.iter().filter(|finding| finding.found.contains("ended Completed")).count();
    assert!(tasks >= 5, "{all:#?}");
}

#[tokio::test]
async fn a_handler_that_knows_only_tasks_is_good() {
    let all = findings(
        "while (frame := read()) is not None:\n    if frame.get('method') == 'task/execute':\n        write({'id': frame['id'], 'result': {}})\n    elif 'id' in frame:\n        write({'id': frame['id'], 'error': {'code': -32601, 'message': 'no'}})",
    )
    .await;
    assert_eq!(faults(&all), Vec::<String>::new(), "{all:#?}");
}

#[tokio::test]
async fn each_fault_is_named() {
    for (body, expected) in [
        ("sys.exit('no luck')", "error: initialize: the handler exited with code 1 before it was ready"),
        (
            "serve({'initialize': lambda params: {'protocolVersion': 9}})",
            "the handler speaks protocol version 9",
        ),
        (
            "print('hello')\nserve({'task/execute': lambda params: {}})",
            "warning: stdout: handler.stdout_noise: hello",
        ),
        ("serve({})", "error: task/execute: `task/execute` is not known"),
        ("serve({'task/execute': lambda params: {'outptu': 1}})", "unknown field `outptu`"),
        (
            "serve({'task/execute': lambda params: os._exit(3)})",
            "error: task/execute: the handler ended: it exited",
        ),
        (
            "def torn(params):\n    print('out of luck', file=sys.stderr, flush=True)\n    os._exit(3)\nserve({'task/execute': torn})",
            "it exited with code 3; the end of its log: out of luck",
        ),
        (
            "def twice(params):\n    write({'id': 2, 'result': {}})\n    return {}\nserve({'task/execute': twice})",
            "handler.double_answer",
        ),
        (
            "def other(params):\n    write({'method': 'busy', 'params': {'taskId': 'tk_x', 'forMs': 1}})\n    return {}\nserve({'task/execute': other})",
            "the task `tk_x` is not in hand",
        ),
        (
            "serve({'task/execute': lambda params: time.sleep(60) if params['taskId'] == 'tk_cancel' else {}})",
            "error: task/cancel: the cancelled task got no answer",
        ),
        (
            "serve({'task/execute': lambda params: {}})\ntime.sleep(60)",
            "warning: shutdown: the handler went on after the end of its stdin",
        ),
        (
            "serve({'task/execute': lambda params: {}, 'hypercode/no-such-method': lambda params: {}})",
            "warning: unknown method: it was answered with {}",
        ),
    ] {
        // Not to be told to end, so that the end of stdin shows.
        let body = body.replace(
            "serve({'task/execute': lambda params: {}})\ntime",
            "serve({'task/execute': lambda params: {}, 'shutdown': lambda params: {}})\ntime",
        );
        let found = faults(&findings(&body).await).join("\n");
        assert!(found.contains(expected), "{body}\nwanted: {expected}\nfound: {found}");
    }
}

#[tokio::test]
async fn a_command_that_is_not_there_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = CheckOptions {
        command: vec!["no-such-command".into()],
        cwd: dir.path().to_owned(),
        work: dir.path().to_owned(),
        env: BTreeMap::new(),
        child: link::Content::data(json!({"score": 3})),
        step_ms_max: 1_000,
        grace_ms: 1_000,
    };
    assert!(faults(&check(&options).await)[0].contains("no-such-command"));
}
