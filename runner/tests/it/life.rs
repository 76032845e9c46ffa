//! The life of a sandbox from standby to its end.

use std::time::Duration;

use serde_json::json;

use crate::stub::{Sandbox, lives, number_in, until};

/// A handler with a child that leaves its session, and a grandchild that is nobody's any more.
const FAMILY: &str = r#"
work = os.environ["HYPERCODE_WORK"]
def leave(name):
    open(work + "/" + name, "w").write(str(os.getpid()))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        leave("double")
    leave("session")
serve({})
"#;

async fn family(sandbox: &mut Sandbox) -> [i64; 2] {
    sandbox.python(FAMILY).await;
    let work = sandbox.work();
    let pids = [number_in(&work.join("session")).await, number_in(&work.join("double")).await];
    assert!(pids.iter().all(|pid| lives(*pid)));
    pids
}

#[tokio::test]
async fn a_drained_runner_acknowledges_closes_and_leaves_no_descendant() {
    let mut sandbox = Sandbox::start().await;
    let pids = family(&mut sandbox).await;
    sandbox.send(json!({"t": "drain", "id": "f_1", "reason": "disband", "graceMs": 5000})).await;
    assert_eq!(sandbox.expect("ack").await["re"], "f_1");
    sandbox.expect_end_of_link().await;
    assert_eq!(sandbox.expect_exit().await, 0);
    assert!(!pids.iter().any(|pid| lives(*pid)));
}

#[tokio::test]
async fn a_terminated_runner_leaves_no_descendant() {
    let mut sandbox = Sandbox::start().await;
    let pids = family(&mut sandbox).await;
    let runner = sandbox.runner.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &runner]).status().unwrap().success());
    sandbox.expect_end_of_link().await;
    assert_eq!(sandbox.expect_exit().await, 0);
    assert!(!pids.iter().any(|pid| lives(*pid)));
}

#[tokio::test]
async fn an_orphaned_runner_ends_after_its_grace_with_everything_that_it_started() {
    let mut sandbox = Sandbox::start().await;
    sandbox.file("handler.py", &format!("{}\n{FAMILY}", crate::stub::PYTHON));
    let more = json!({"orphanGraceMs": 300, "graceMs": 200});
    sandbox.assign(json!({"protocol": "stdio", "command": ["python3", "handler.py"]}), more).await;
    sandbox.expect("ready").await;
    let work = sandbox.work();
    let pids = [number_in(&work.join("session")).await, number_in(&work.join("double")).await];
    std::fs::remove_file(sandbox.dir.path().join("s")).unwrap();
    sandbox.lose_link();
    assert_eq!(sandbox.expect_exit().await, 3);
    assert!(!pids.iter().any(|pid| lives(*pid)));
}

#[tokio::test]
async fn a_standby_waits_is_drained_and_refuses_work() {
    let mut sandbox = Sandbox::start().await;
    sandbox.expect_where("heartbeat", |beat| beat["handler"] == "none").await;
    sandbox.task("tk_1", json!("go")).await;
    assert_eq!(sandbox.expect("error").await["type"], "out_of_order");
    sandbox.send(json!({"t": "hallo"})).await;
    assert_eq!(sandbox.expect("error").await["type"], "unknown_frame");
    sandbox.send(json!({"t": "drain", "id": "f_1", "reason": "scale_down", "graceMs": 1000})).await;
    sandbox.expect("ack").await;
    assert_eq!(sandbox.expect_exit_after_link().await, 0);
}

#[tokio::test]
async fn a_sandbox_is_one_agent_once_and_for_ever() {
    let mut sandbox = Sandbox::start().await;
    sandbox.python("serve({})").await;
    sandbox.assign(json!({"protocol": "stdio", "command": ["true"]}), json!({"id": "as_2"})).await;
    let error = sandbox.expect("error").await;
    assert_eq!((&error["type"], &error["re"]), (&json!("out_of_order"), &json!("as_2")));
}

#[tokio::test]
async fn a_handler_gets_a_bundle_a_clean_environment_and_its_own_directory() {
    let mut sandbox = Sandbox::start().await;
    let script = format!(
        "{}\nserve({{'task/execute': lambda params: {{'output': [dict(os.environ), os.getcwd()]}}}})",
        crate::stub::PYTHON
    );
    let mut bundle = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(script.len() as u64);
    header.set_mode(0o644);
    bundle.append_data(&mut header, "lib/handler.py", script.as_bytes()).unwrap();
    let url = sandbox.store(&bundle.into_inner().unwrap());
    let digest = url.strip_prefix("artifact:").unwrap().to_owned();
    let more = json!({"source": {"url": url, "digest": digest}, "env": {"DEPTH": "2", "HOME": "/evil"}, "models": ["gpt"]});
    sandbox
        .assign(json!({"protocol": "stdio", "command": ["python3", "handler.py"], "cwd": "lib"}), more)
        .await;
    sandbox.expect("ready").await;
    sandbox.task("tk_1", json!("go")).await;
    let result = sandbox.result("tk_1").await;
    let [env, cwd] = result["result"]["output"]["parts"][0]["data"].as_array().unwrap().as_slice() else {
        panic!()
    };
    let work = sandbox.work();
    assert_eq!(cwd, &json!(work.join("source/lib")));
    let given = env.as_object().unwrap();
    assert!(!given.contains_key("RUNNERS_OWN") && !given.contains_key("PORT"), "nothing of the runner's own");
    for name in ["CREW", "MEMBER", "AGENT", "INCARNATION", "WORK", "API"] {
        assert!(given.contains_key(&format!("HYPERCODE_{name}")), "{name}");
    }
    let api = env["HYPERCODE_API"].as_str().unwrap();
    assert_eq!(env["OPENAI_BASE_URL"], format!("{api}/model/v1"));
    assert_eq!(
        (&env["PYTHONUNBUFFERED"], &env["NO_PROXY"]),
        (&json!("1"), &json!("127.0.0.1,localhost,::1"))
    );
    assert_eq!((&env["HOME"], &env["DEPTH"]), (&json!(work), &json!("2")));
}

#[tokio::test]
async fn a_bundle_that_is_not_what_it_should_be_fails_at_source() {
    let mut sandbox = Sandbox::start().await;
    let absent = format!("artifact:sha256:{}", "0".repeat(64));
    sandbox
        .assign(json!({"protocol": "stdio", "command": ["true"]}), json!({"source": {"url": absent}}))
        .await;
    assert_eq!(sandbox.expect("failed").await["stage"], "source");
    let mut sandbox = Sandbox::start().await;
    let garbage = sandbox.store(b"not a tar at all");
    sandbox
        .assign(json!({"protocol": "stdio", "command": ["true"]}), json!({"source": {"url": garbage}}))
        .await;
    assert_eq!(sandbox.expect("failed").await["stage"], "source");
}

#[tokio::test]
async fn the_runners_memory_cannot_be_read_by_its_handler() {
    let mut sandbox = Sandbox::start().await;
    let runner = sandbox.runner.id().unwrap();
    let status = std::fs::metadata(format!("/proc/{runner}/environ")).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(status.uid(), 0, "what is not dumpable belongs to root");
    sandbox.python("serve({})").await;
}

#[tokio::test]
async fn orphans_are_reaped() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .python(
            r#"
if os.fork() == 0:
    if os.fork() == 0:
        open(os.environ["HYPERCODE_WORK"] + "/orphan", "w").write(str(os.getpid()))
        os._exit(0)
    os._exit(0)
os.wait()
serve({})
"#,
        )
        .await;
    let orphan = number_in(&sandbox.work().join("orphan")).await;
    until("the orphan is no zombie", || !std::path::Path::new(&format!("/proc/{orphan}")).exists()).await;
    tokio::time::timeout(Duration::from_secs(20), sandbox.expect("credit")).await.unwrap();
}
