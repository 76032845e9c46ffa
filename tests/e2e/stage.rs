//! A platform with a crew of handlers that do what their tasks say.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{self, Api, Home, Ran, Up, containers, eventually};

/// A home with a running platform.
pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) api: Api,
    pub(crate) up: Up,
}

/// An image with a shell and Python.
pub(crate) const IMAGE: &str = "hypercode/python:latest";

/// A crew of a lead and a worker.
pub(crate) const CREW: &str = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: deeds}
spec:
  handler: {command: [python3, deeds.py], source: ./deeds, concurrency: 4, grace: 2s}
  env: {CONCURRENCY: "4", DIARY: "@DIARY@"}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: troupe}
spec:
  entry: lead
  members:
    - {name: lead, profile: deeds}
    - {name: worker, profile: deeds}
  channels:
    - {from: lead, to: worker, kinds: [task, message]}
  liveness: {heartbeat: 500ms, missed: 60}
"#;

impl Stage {
    /// A platform without a crew.
    pub(crate) async fn empty() -> Self {
        Self::over(Home::new()).await
    }

    /// A platform without a crew, whose agents run in whatever sandbox it takes by itself.
    pub(crate) async fn by_default() -> Self {
        Self::over(Home::by_default()).await
    }

    /// A platform whose agents run in native sandboxes; none, and a line, where they cannot be made.
    pub(crate) async fn native() -> Option<Self> {
        let stage = Self::by_default().await;
        if stage.up.log().contains("isolated from nothing") {
            assert!(std::env::var_os("CI").is_none(), "no native sandboxes can be made here");
            eprintln!("skipped: no native sandboxes can be made here");
            return None;
        }
        Some(stage)
    }

    /// A platform whose agents run in containers, with [`IMAGE`]; none, and a line, without a daemon.
    pub(crate) async fn in_containers() -> Option<Self> {
        if !containers::is_available() {
            return None;
        }
        let home = Home::in_containers();
        containers::with_images(&home).await;
        Some(Self::over(home).await)
    }

    /// A platform without a crew over this home.
    pub(crate) async fn over(home: Home) -> Self {
        let (api, up) = (Api::of(&home), Up::start(&home).await);
        Self { home, api, up }
    }

    /// A platform without a crew that has just been spawned.
    pub(crate) async fn of(home: Home, mut up: Up) -> Self {
        let api = Api::of(&home);
        up.ready(&api).await;
        Self { home, api, up }
    }

    /// A platform with [`CREW`].
    pub(crate) async fn with_crew() -> Self {
        Self::with_crew_at(Home::new()).await
    }

    /// A platform with [`CREW`] in this home.
    pub(crate) async fn with_crew_at(home: Home) -> Self {
        let (api, up) = (Api::of(&home), Up::start(&home).await);
        let stage = Self { home, api, up };
        stage.assemble(CREW).await.ok();
        stage
    }

    /// Assembles the crew of this text.
    pub(crate) async fn assemble(&self, manifests: &str) -> Ran {
        self.home.write("deeds/deeds.py", support::DEEDS);
        let diary = self.home.diary_file();
        let manifests = manifests.replace("@DIARY@", &diary.display().to_string());
        let file = self.home.write("crew.yaml", manifests);
        self.hypercode(&["crew", "assemble", file.to_str().expect("text"), "--output", "json"]).await
    }

    /// Runs a command.
    pub(crate) async fn hypercode(&self, args: &[&str]) -> Ran {
        self.home.hypercode(args).await
    }

    /// Runs a command that prints JSON.
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        self.hypercode(&[args, &["--output", "json"]].concat()).await.json()
    }

    /// Gives the lead a task; its id.
    pub(crate) async fn submit(&self, deed: &Value) -> String {
        let input = deed.to_string();
        let done = self.json(&["task", "submit", "troupe", "--input", &input]).await;
        done["id"].as_str().expect("an id").to_owned()
    }

    /// The task when it has ended.
    pub(crate) async fn ended(&self, task: &str) -> Value {
        self.api.ended(task).await
    }

    /// The process of the handler that has this attempt in hand.
    pub(crate) async fn in_hand(&self, task: &str, attempt: u64) -> i32 {
        eventually(&format!("attempt {attempt} at task {task}"), async || {
            let diary = self.home.diary();
            let entry = diary.iter().find(|entry| entry["task"] == task && entry["attempt"] == attempt)?;
            Some(i32::try_from(entry["pid"].as_i64()?).expect("a process id"))
        })
        .await
    }

    /// The agent of a member, when it is as it is wanted to be.
    pub(crate) async fn agent(&self, member: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("agent of {member}: {what}"), async || {
            let agents = self.api.list("/v1/agents?crew=troupe").await;
            agents.into_iter().find(|agent| agent["member"] == member && is(agent))
        })
        .await
    }

    /// Ends the crew and the platform; nothing is left, and the log verifies without a platform.
    pub(crate) async fn leave(self) {
        let crews = self.api.list("/v1/crews").await;
        for crew in crews.iter().filter(|crew| crew["status"] == "running") {
            let id = crew["id"].as_str().expect("an id");
            self.hypercode(&["crew", "disband", id]).await.ok();
            self.api.crew_gone(id).await;
        }
        let Self { home, up, .. } = self;
        let status = up.stop().await;
        assert!(status.success(), "the platform ended with {status}");
        nothing_is_left(&home).await;
        home.hypercode(&["audit", "verify", "--offline"]).await.ok();
    }
}

/// The one agent of the stage, when its handler is up in this life.
pub(crate) async fn ready(stage: &Stage, incarnation: u64) -> Value {
    eventually(&format!("incarnation {incarnation}"), async || {
        let agents = stage.api.list("/v1/agents").await;
        agents.into_iter().find(|agent| agent["status"] == "ready" && agent["incarnation"] == incarnation)
    })
    .await
}

/// Waits until no process of this home runs, and looks for what else it might have left.
pub(crate) async fn nothing_is_left(home: &Home) {
    home.processes_end().await;
    assert_eq!(home.sockets(), Vec::<PathBuf>::new(), "sockets");
}

/// Waiting for a file that the test writes when it wants the task to go on.
pub(crate) fn wait_for(home: &Home, file: &str) -> Value {
    json!({"do": "wait", "for": home.path(file)})
}
