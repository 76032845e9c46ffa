//! The crew in containers.

use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::stage::nothing_is_left;
use crate::support::Home;

const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/link");
const DAEMON: &str = "/var/run/docker.sock";

/// Whether a daemon is there; one line is said where it is not.
pub(crate) fn is_available() -> bool {
    let is_there = UnixStream::connect(DAEMON).is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "no Docker daemon listens at {DAEMON}");
    if !is_there {
        eprintln!("skipped: no Docker daemon listens at {DAEMON}");
    }
    is_there
}

/// The containers of all platforms that were given no agent's name, and those of agents.
pub(crate) fn containers(filter: &str) -> Vec<String> {
    let listed = Command::new("docker").args(["ps", "--all", "--quiet", "--filter", filter]).output();
    let listed = String::from_utf8(listed.expect("docker").stdout).expect("ids");
    listed.lines().map(str::to_owned).collect()
}

/// The report, and what follows it.
async fn demo(args: &[&str]) -> (String, String) {
    let home = Home::new();
    let data = home.path("data");
    let data = data.to_str().expect("UTF-8").to_owned();
    let out = home.run(&[&["--data-dir", &data, "demo", "--path", TREE], args].concat()).await.ok();
    let instance = std::fs::read_to_string(home.path("data/instance")).expect("an instance");
    assert_eq!(containers(&format!("label=hypercode.instance={}", instance.trim())), Vec::<String>::new());
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
