//! The crew in containers.

use std::os::unix::net::UnixStream;
use std::process::Command;

use sandbox::conformance::Dockerd;
use serde_json::Value;

pub(crate) use crate::stage::ready;
use crate::stage::{Stage, nothing_is_left};
pub(crate) use crate::support::containers::{
    DAEMON, ECHO, Image, PYTHON, build, containers, containers_of, crew, docker, inspected, is_available,
    with_images,
};
use crate::support::{Api, Home, Up, eventually};

const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/link");

/// A handler that gives back what it is told, and ends some seconds later.
const SLOW_ECHO: &str = "{protocol: exec, command: [sh, -c, 'cat; sleep 5'], timeout: 60s}";

/// The same, where the test besides takes root.
fn is_available_to_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    assert!(is_root || std::env::var_os("CI").is_none(), "this test takes root");
    if !is_root {
        eprintln!("skipped: this test takes root");
    }
    is_root && is_available()
}

/// Waits until the log tells of this tampering.
async fn told(stage: &Stage, what: &str) {
    eventually(&format!("an event `{what}`"), async || {
        let tail = stage.hypercode(&["audit", "tail", "-n", "1000", "--kind", "sandbox_tampered"]).await.ok();
        tail.contains(what).then_some(())
    })
    .await;
}

/// Gives a crew a task, and waits until somebody has it in hand.
pub(crate) async fn in_hand(stage: &Stage, crew: &str, text: &str) -> String {
    let done = stage.json(&["task", "submit", crew, text]).await;
    let task = done["id"].as_str().expect("an id").to_owned();
    eventually("the task in hand", async || {
        let shown = stage.api.insist_get(&format!("/v1/tasks/{task}")).await;
        (shown["status"] == "working").then_some(())
    })
    .await;
    task
}

/// The report, and what follows it.
async fn demo(args: &[&str]) -> (String, String) {
    let home = Home::new();
    let data = home.path("data");
    let data = data.to_str().expect("UTF-8").to_owned();
    let out = home.run(&[&["--data-dir", &data, "demo", "--path", TREE], args].concat()).await.ok();
    assert_eq!(containers_of(&home), Vec::<String>::new());
    nothing_is_left(&home).await;
    let (report, rest) = out.split_once("## Timeline").expect("a timeline follows the report");
    (report.to_owned(), rest.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crew_reports_the_same_from_containers_whoever_is_killed() {
    if !is_available() {
        return;
    }
    let (plain, _) = demo(&["--sandbox", "process"]).await;
    let (report, rest) = demo(&["--sandbox", "docker", "--chaos"]).await;
    assert_eq!(plain, report);
    assert!(rest.contains("recovered as incarnation 2"), "{rest}");
}

/// T28, T40: what an agent runs in is said, holds no secret, and is not changed behind the platform's back unseen.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_shows_its_container_and_who_tampers_with_it_is_told_of() {
    if !is_available() {
        return;
    }
    let home = Home::in_containers();
    with_images(&home).await;
    let secret = home.write("secret", "a-secret-that-nobody-else-has");
    let stage = Stage::over(home).await;
    let secrets = format!("spec:\n  secrets: [{{name: KEY, from: {{file: {}}}}}]\n  image", secret.display());
    let manifest = crew("one", PYTHON, "{protocol: exec, command: [sh, -c, 'printf %s $KEY | wc -c']}");
    stage.assemble(&manifest.replacen("spec:\n  image", &secrets, 1)).await.ok();
    let before = ready(&stage, 1).await;
    let container = before["container"].as_str().expect("a container").to_owned();
    assert_eq!(containers_of(&stage.home), std::slice::from_ref(&container));
    assert_eq!(before["image"], inspected(&stage.home, "{{.Image}}")[0].as_str());
    let shown = stage.hypercode(&["agent", "show", before["id"].as_str().expect("an id")]).await.ok();
    assert!(shown.contains(&container) && shown.contains("namespaces"), "{shown}");
    let counted = stage.hypercode(&["task", "submit", "one", "count", "--wait"]).await.ok();
    assert!(counted.contains("29"), "the handler has its secret: {counted}");
    let known_to_docker = docker(&["inspect", &container]) + &docker(&["logs", &container]);
    assert!(!known_to_docker.contains("a-secret"), "Docker has it too");

    for socket in stage.home.sockets() {
        let stranger = UnixStream::connect(&socket).expect("root may connect");
        let _ = std::io::Read::read_to_end(&mut &stranger, &mut Vec::new());
    }
    told(&stage, "foreign_peer").await;
    let _ = Command::new("docker").args(["exec", &container, "true"]).output().expect("docker");
    told(&stage, "executed").await;
    let after = ready(&stage, 2).await;
    assert_ne!(after["container"], before["container"]);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_in_containers_outlive_a_platform_that_is_killed() {
    if !is_available() {
        return;
    }
    let home = Home::in_containers();
    with_images(&home).await;
    let mut stage = Stage::over(home).await;
    stage.assemble(&crew("slow", PYTHON, SLOW_ECHO)).await.ok();
    let container = ready(&stage, 1).await["container"].clone();
    let task = in_hand(&stage, "slow", "said before the end").await;
    stage.up.restart(&stage.home).await;
    let ended = stage.ended(&task).await;
    assert_eq!((&ended["status"], &ended["attempts"]), (&"completed".into(), &1.into()), "{ended:#}");
    assert_eq!(ready(&stage, 1).await["container"], container);
    stage.leave().await;
}

/// A platform whose daemon may be ended, and what the daemon keeps; none, and a line, where none can be started.
async fn at_a_daemon_of_its_own() -> Option<(tempfile::TempDir, Dockerd, Stage)> {
    if !is_available_to_root() {
        return None;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = Dockerd::start(directory.path(), &[]);
    let home = Home::at_daemon(&daemon.socket());
    build(&home).await;
    Some((directory, daemon, Stage::over(home).await))
}

/// The daemon ends all containers when it comes back; the agent is recovered, and its task is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_docker_daemon_that_is_killed_costs_no_task() {
    let Some((_directory, mut daemon, stage)) = at_a_daemon_of_its_own().await else { return };
    stage.assemble(&crew("slow", PYTHON, SLOW_ECHO)).await.ok();
    ready(&stage, 1).await;
    let task = in_hand(&stage, "slow", "said before the end").await;
    daemon.kill();
    daemon.begin();
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let agent = ready(&stage, 2).await;
    assert_eq!(daemon.docker(&["ps", "--quiet", "--no-trunc"]), agent["container"].as_str().expect("one"));
    stage.leave().await;
    assert_eq!(daemon.docker(&["ps", "--all", "--quiet"]), "");
}

/// A daemon that is away is waited for: that no sandbox can be made meanwhile is charged to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_waits_for_a_docker_daemon_that_is_away() {
    let Some((_directory, mut daemon, stage)) = at_a_daemon_of_its_own().await else { return };
    stage.assemble(&crew("patient", PYTHON, ECHO)).await.ok();
    let agent = ready(&stage, 1).await;
    let container = agent["container"].as_str().expect("one");
    let runner = daemon.docker(&["inspect", "--format", "{{.State.Pid}}", container]);
    daemon.kill();
    let runner = nix::unistd::Pid::from_raw(runner.trim().parse().expect("a process id"));
    nix::sys::signal::kill(runner, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    eventually("the agent waits", async || {
        stage.up.log().contains("agent waits until its sandbox can be made").then_some(())
    })
    .await;
    daemon.begin();
    ready(&stage, 2).await;
    assert_eq!(stage.api.list("/v1/audit?kind=restart_scheduled").await.len(), 1);
    stage.leave().await;
    assert_eq!(daemon.docker(&["ps", "--all", "--quiet"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sandboxes_than_before_leave_no_containers_behind() {
    if !is_available() {
        return;
    }
    let home = Home::in_containers();
    with_images(&home).await;
    let stage = Stage::over(home).await;
    stage.assemble(&crew("moved", PYTHON, ECHO)).await.ok();
    ready(&stage, 1).await;
    let Stage { mut home, api, up } = stage;
    up.stop().await;
    assert_eq!(containers_of(&home).len(), 1, "it outlives the platform");
    home.change_sandbox("process");
    let up = Up::start(&home).await;
    assert_eq!(containers_of(&home), Vec::<String>::new());
    let stage = Stage { home, api, up };
    ready(&stage, 2).await;
    stage.leave().await;
}

/// Whoever may talk to the daemon need not be root.
#[tokio::test(flavor = "multi_thread")]
async fn a_platform_of_another_user_than_root_runs_agents_in_containers() {
    use std::os::unix::fs::MetadataExt as _;
    if !is_available_to_root() {
        return;
    }
    let home = Home::in_containers();
    with_images(&home).await;
    let group = std::fs::metadata(DAEMON).expect("a socket").gid();
    let owner = format!("65534:{group}");
    assert!(Command::new("chown").args(["-R", &owner]).arg(home.path("")).status().expect("chown").success());
    let line = format!(
        "export HOME=/nonexistent; exec setpriv --reuid=65534 --regid={group} --clear-groups \"$0\" \"$@\""
    );
    let (api, mut up) = (Api::of(&home), Up::spawn_after(&line, &home));
    up.ready(&api).await;
    let stage = Stage { home, api, up };
    stage.assemble(&crew("humble", PYTHON, ECHO)).await.ok();
    let said = stage.hypercode(&["task", "submit", "humble", "as nobody", "--wait"]).await.ok();
    assert!(said.contains("as nobody"), "{said}");
    stage.leave().await;
}

/// T26: want of memory is the reason that is given.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_takes_too_much_memory_is_said_to_have() {
    if !is_available() {
        return;
    }
    let home = Home::in_containers();
    with_images(&home).await;
    let stage = Stage::over(home).await;
    let greedy = "{command: [python3, -c, 'held = [b\"x\" * 1000000 for _ in range(100000)]']}";
    let greedy =
        crew("greedy", PYTHON, greedy).replacen("  image", "  resources: {memory: 64Mi}\n  image", 1);
    let said = stage.assemble(&greedy).await.refused(1);
    assert!(said.contains("out of memory"), "{said}");
    stage.leave().await;
}

/// T30: a runtime class is one that the daemon lists; any other is refused where it stands, before anything is begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_class_is_used_where_the_daemon_lists_it_and_refused_elsewhere() {
    if !is_available() {
        return;
    }
    let home = Home::in_containers();
    with_images(&home).await;
    let stage = Stage::over(home).await;
    let with = |runtime: &str| {
        crew("classy", PYTHON, ECHO).replace("  image:", &format!("  runtimeClass: {runtime}\n  image:"))
    };
    let refused = stage.assemble(&with("kata")).await;
    assert!(
        refused.code != 0 && refused.err.contains("profile `classy`, `spec.runtimeClass`"),
        "{refused:?}"
    );
    assert!(refused.err.contains("`kata`") && refused.err.contains("runc"), "{refused:?}");
    let pool = stage.home.write(
        "pool.yaml",
        "apiVersion: hypercode.dev/v1\nkind: Pool\nmetadata: {name: small}\nspec: {runtimeClass: kata}\n",
    );
    let refused = stage.hypercode(&["pool", "apply", pool.to_str().expect("text")]).await;
    assert!(refused.code != 0 && refused.err.contains("pool `small`, `spec.runtimeClass`"), "{refused:?}");
    assert_eq!(stage.api.list("/v1/agents").await, [] as [Value; 0]);

    stage.assemble(&with("runc")).await.ok();
    ready(&stage, 1).await;
    assert_eq!(inspected(&stage.home, "{{.HostConfig.Runtime}}"), ["runc"]);
    let shown = stage.json(&["profile", "show", "classy"]).await;
    assert_eq!(shown["spec"]["runtimeClass"], "runc", "{shown:#}");
    stage.leave().await;

    let stage = Stage::empty().await;
    let refused = stage.assemble(&with("runc").replace("  image: hypercode/python\n", "")).await;
    let says_why =
        refused.err.contains("`spec.runtimeClass`") && refused.err.contains("process sandboxes cannot");
    assert!(refused.code != 0 && says_why, "{refused:?}");
    stage.leave().await;
}
