//! The word-count example, command by command.

use crate::stage::Stage;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/word-count");

#[tokio::test(flavor = "multi_thread")]
async fn the_word_count_example_works_command_by_command() {
    let stage = Stage::by_default().await;
    let (profiles, crew) = (format!("{EXAMPLE}/profiles.yaml"), format!("{EXAMPLE}/crew.yaml"));

    let applied = stage.hypercode(&["profile", "apply", &profiles]).await.ok();
    assert_eq!(applied.lines().count(), 3, "{applied}");
    let plan = stage.hypercode(&["crew", "plan", &crew]).await.ok();
    assert!(["splitter", "counter", "reporter"].iter().all(|member| plan.contains(member)), "{plan}");
    stage.hypercode(&["crew", "assemble", &crew]).await.ok();

    let agents = stage.hypercode(&["agent", "list"]).await.ok();
    assert!(agents.starts_with("ID"), "a table has a head: {agents}");
    assert_eq!(agents.lines().filter(|line| line.contains(" ready ")).count(), 5, "{agents}");
    let agents = stage.json(&["agent", "list"]).await;
    let agent = agents["items"][0]["id"].as_str().expect("an id").to_owned();
    let shown = stage.json(&["agent", "show", &agent]).await;
    assert_eq!((shown["isolation"].as_str(), shown["status"].as_str()), (Some("namespaces"), Some("ready")));
    assert!(stage.hypercode(&["agent", "show", &agent]).await.ok().contains("namespaces"));

    let text = "the cat and the dog and the bird";
    let result = stage.hypercode(&["task", "submit", "word-count", text, "--wait"]).await.ok();
    assert!(result.contains("| the | 3 |") && result.contains("| and | 2 |"), "{result}");

    with_a_file(&stage).await;

    let tail = stage.hypercode(&["audit", "tail", "-n", "1000"]).await.ok();
    assert!(tail.contains("crew_assembled") && tail.contains("task_completed"), "{tail}");
    let verified = stage.json(&["audit", "verify"]).await;
    assert_eq!(verified["ok"], true);
    assert!(verified["last"].as_u64().is_some_and(|position| position > 20), "{verified}");
    stage.leave().await;
}

/// What goes in as a file comes in as a file, and what is left in `out/` can be fetched.
async fn with_a_file(stage: &Stage) {
    let file = stage.home.write("text.txt", "one two two three three three ".repeat(1_000));
    let file = file.to_str().expect("text");
    let done = stage.json(&["task", "submit", "word-count", "--file", file]).await;
    let task = done["id"].as_str().expect("an id");
    assert_eq!(stage.ended(task).await["status"], "completed");
    let result = stage.hypercode(&["task", "result", task]).await.ok();
    assert!(result.contains("| three | 3000 |"), "{result}");
    let out = stage.home.path("out");
    stage.hypercode(&["task", "result", task, "--out", out.to_str().expect("text")]).await.ok();
    assert!(std::fs::read_to_string(out.join("output.txt")).expect("the output").contains("| two | 2000 |"));
    let watched = stage.hypercode(&["task", "watch", task]).await.ok();
    assert!(watched.contains("task_submitted") && watched.contains("task_completed"), "{watched}");
}
