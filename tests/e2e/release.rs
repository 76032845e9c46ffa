//! SB-3: no sandbox outlives what it is for, however its platform fares.

use serde_json::json;

use crate::stage::{Stage, nothing_is_left};
use crate::support::{Api, Home, Up, eventually};

/// A crew of many agents without a process of their own.
const MANY: &str = "
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: idle}
spec:
  handler: {protocol: exec, command: [cat]}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: many}
spec:
  entry: one
  members:
    - {name: one, profile: idle, replicas: 40}
";

fn keepers(home: &Home) -> usize {
    home.processes().iter().filter(|process| process.command.contains("keeper")).count()
}

/// The system has too few descriptors for all of them: who is told so finds nothing of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_crew_that_the_system_has_no_room_for_is_released_whole() {
    let home = Home::new();
    let (api, mut up) = (Api::of(&home), Up::spawn_after("ulimit -n 100", &home));
    up.ready(&api).await;
    let stage = Stage { home, api, up };
    let said = stage.assemble(MANY).await.refused(1);
    assert!(said.contains("one["), "{said}");
    assert_eq!(keepers(&stage.home), 0);
    // What fits is assembled as ever.
    stage.assemble(&MANY.replace("40", "2")).await.ok();
    stage.leave().await;
}

/// What has begun to be taken away is taken away, though the platform is told to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_crew_that_disbands_while_the_platform_ends_leaves_nothing() {
    let stage = Stage::empty().await;
    let done = stage.assemble(MANY).await.ok();
    let crew = done.lines().find_map(|line| line.trim().strip_prefix("\"id\": \"")).expect("an id");
    let path = format!("/v1/crews/{}/disband", crew.trim_end_matches("\","));
    let api = stage.api.clone();
    let disband = tokio::spawn(async move { api.post(&path, &json!({}), None).await });
    eventually("the first is gone", async || (keepers(&stage.home) < 40).then_some(())).await;
    let Stage { home, up, .. } = stage;
    assert!(up.stop().await.success());
    nothing_is_left(&home).await;
    let _ = disband.await;
}

/// Nobody can adopt a sandbox whose files are gone, so it waits for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_do_not_outlive_their_data_directory() {
    let Stage { home, mut up, .. } = Stage::with_crew().await;
    assert_eq!(keepers(&home), 2);
    up.kill().await;
    std::fs::remove_dir_all(home.data()).expect("a directory");
    home.processes_end().await;
}
