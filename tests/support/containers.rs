//! Docker, as tests see it.

use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::Value;

use super::Home;

pub(crate) const DAEMON: &str = "/var/run/docker.sock";
pub(crate) const PYTHON: &str = "hypercode/python";

/// Whether a daemon is there; one line is said where it is not.
pub(crate) fn is_available() -> bool {
    let is_there = UnixStream::connect(DAEMON).is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "no Docker daemon listens at {DAEMON}");
    if !is_there {
        eprintln!("skipped: no Docker daemon listens at {DAEMON}");
    }
    is_there
}

/// What the command line of Docker answers.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// The containers, whether they run or not, that have what the filter says.
pub(crate) fn containers(filter: &str) -> Vec<String> {
    let listed = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", filter]);
    listed.lines().map(str::to_owned).collect()
}

/// The containers of this home's platform.
pub(crate) fn containers_of(home: &Home) -> Vec<String> {
    let instance = std::fs::read_to_string(home.path("data/instance")).expect("an instance");
    containers(&format!("label=hypercode.instance={}", instance.trim()))
}

/// Has the platform's own images made anew.
pub(crate) async fn build(home: &Home) -> Vec<Value> {
    let built = home.hypercode(&["image", "build", "--output", "json"]).await.json();
    built.as_array().expect("a list").clone()
}

/// Has the platform's own images made where they are missing.
pub(crate) async fn with_images(home: &Home) {
    let is_there = |name| {
        let found = Command::new("docker").args(["image", "inspect", name]).output().expect("docker");
        found.status.success()
    };
    if !["hypercode/base", PYTHON].into_iter().all(is_there) {
        build(home).await;
    }
}
