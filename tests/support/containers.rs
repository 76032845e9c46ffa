//! Docker, as tests see it.

use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::Value;

use super::Home;

pub(crate) const DAEMON: &str = "/var/run/docker.sock";
pub(crate) const PYTHON: &str = "hypercode/python";
/// A handler that gives back what it is told.
pub(crate) const ECHO: &str = "{protocol: exec, command: [cat]}";

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

/// Of every container of this home's platform, what `format` says.
pub(crate) fn inspected(home: &Home, format: &str) -> Vec<String> {
    let ids = containers_of(home);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    docker(&[&["inspect", "--format", format], &ids[..]].concat()).lines().map(str::to_owned).collect()
}

/// An image of a test's own, built as a user builds one.
pub(crate) struct Image(pub(crate) String);

impl Image {
    /// The files of the context are in the home's directory `context`.
    pub(crate) fn build(home: &Home, name: &str, dockerfile: &str) -> Self {
        let file = home.write(&format!("{name}.Dockerfile"), dockerfile);
        let name = format!("hypercode-tests/{name}:{}", std::process::id());
        let context = home.path("context");
        let (file, context) = (file.to_str().expect("text"), context.to_str().expect("text"));
        docker(&["build", "--quiet", "--network", "none", "--file", file, "--tag", &name, context]);
        Self(name)
    }

    pub(crate) fn id(&self) -> String {
        docker(&["image", "inspect", "--format", "{{.Id}}", &self.0])
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", &self.0]).output();
    }
}

/// A crew of one agent, without files of its own: all is in its image.
pub(crate) fn crew(name: &str, image: &str, handler: &str) -> String {
    format!(
        r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {{name: {name}}}
spec:
  image: {image}
  handler: {handler}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {{name: {name}}}
spec:
  entry: {name}
  members: [{{name: {name}, profile: {name}}}]
"#
    )
}
