//! Tasks, their results, and what is said about them meanwhile.

use events::CommandId;
use hypercode_gateway::{Error, HeldTask, Linked, Withdrawn};
use link::ErrorType;
use serde_json::{Value, json};

use crate::support::{Runner, Seen, World, error, task};

fn result(id: u64, task: &str) -> Value {
    json!({"t": "task.result", "id": id, "taskId": task, "attempt": 1, "fence": 7, "result": {"output": "done"}})
}

async fn results(world: &World, count: usize) -> Vec<CommandId> {
    world
        .host
        .wait(count, |seen| if let Seen::Result(command, _) = seen { Some(command) } else { None })
        .await
}

#[tokio::test]
async fn tasks_wait_for_credit() {
    let world = World::with(|options| options.limits.tasks_queued_max = 2);
    let mut runner = world.agent("m", 0).await;
    for name in ["tk_1", "tk_2", "tk_1"] {
        world.gateway.send_task(runner.sandbox(), task(name, 0), None).await.unwrap();
    }
    let full = world.gateway.send_task(runner.sandbox(), task("tk_3", 0), None).await;
    assert!(matches!(full, Err(Error::Full { waiting: 2, .. })));
    runner.quiet().await;
    runner.credit(1, 0).await;
    assert_eq!(runner.expect("task").await["params"]["taskId"], "tk_1");
    runner.quiet().await;
    runner.credit(5, 0).await;
    assert_eq!(runner.expect("task").await["params"]["taskId"], "tk_2");
    runner.quiet().await;
}

#[tokio::test]
async fn a_task_is_withdrawn_before_it_was_sent_and_cancelled_after() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    let cancel = |name: &str| {
        serde_json::from_value(json!({"taskId": name, "attempt": 1, "reason": "why", "graceMs": 5})).unwrap()
    };
    world.gateway.send_task(runner.sandbox(), task("tk_1", 0), None).await.unwrap();
    let withdrawn = world.gateway.cancel_task(runner.sandbox(), cancel("tk_1")).await.unwrap();
    assert_eq!(withdrawn, Withdrawn::Unsent);
    runner.take(&world, task("tk_2", 0)).await;
    let asked = world.gateway.cancel_task(runner.sandbox(), cancel("tk_2")).await.unwrap();
    assert_eq!(asked, Withdrawn::Asked);
    assert_eq!(runner.expect("task.cancel").await["taskId"], "tk_2");
}

#[tokio::test]
async fn a_task_too_large_for_a_frame_is_refused() {
    let world = World::new();
    let runner = world.agent("m", 0).await;
    let mut huge = task("tk_1", 0);
    huge.params.input = link::Content::text("x".repeat(300_000));
    let refused = world.gateway.send_task(runner.sandbox(), huge, None).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn a_result_is_acknowledged_once_it_is_durable_and_only_then() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    runner.take(&world, task("tk_1", 0)).await;
    world.host.results.lock().unwrap().extend([Err(error(ErrorType::Unavailable)), Ok(())]);
    runner.send(result(1, "tk_1")).await;
    assert_eq!(runner.expect("ack").await["re"], 1);
    let commands = results(&world, 2).await;
    let expected = CommandId::derive(&["link", runner.sandbox().as_str(), "1"]);
    assert_eq!(commands, [expected, expected], "a repeated offer is the same command");
}

#[tokio::test]
async fn a_result_sent_again_after_a_lost_link_gets_its_first_outcome() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    runner.take(&world, task("tk_1", 0)).await;
    runner.send(result(1, "tk_1")).await;
    results(&world, 1).await;
    let mut runner = runner.reconnect().await;
    runner.send(result(1, "tk_1")).await;
    assert_eq!(runner.expect("ack").await["re"], 1);
    assert_eq!(results(&world, 1).await.len(), 1, "the platform was asked once");
}

#[tokio::test]
async fn a_fenced_result_is_refused_with_its_reason() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    world.host.results.lock().unwrap().push(Err(error(ErrorType::Fenced)));
    runner.send(result(1, "tk_1")).await;
    let refused = runner.expect("error").await;
    assert_eq!((&refused["re"], &refused["type"]), (&json!(1), &json!("fenced")));
}

#[tokio::test]
async fn a_task_that_has_ended_is_not_in_hand_any_more() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    runner.take(&world, task("tk_1", 0)).await;
    runner.send(result(100, "tk_1")).await;
    runner.expect("ack").await;
    let late = runner.ask("task/checkpoint", json!({"taskId": "tk_1", "data": 1})).await.unwrap_err();
    assert_eq!(late["data"]["type"], "unknown_task");
}

#[tokio::test]
async fn tasks_in_hand_are_known_again_after_a_restart() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    runner.take(&world, task("tk_1", 0)).await;
    let who = runner.peer.clone().unwrap();
    let world = world.restarted();
    world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    let task = "tk_1".parse().unwrap();
    let held = HeldTask {
        task,
        attempt: 1,
        fence: 1,
        depth: 0,
        context: "cx_1".to_owned(),
        traceparent: None,
        origin: None,
    };
    let dropped = link::TaskRef { task_id: "tk_0".parse().unwrap(), attempt: 3 };
    let linked = Linked { heartbeat_ms: 500, drop: vec![dropped], held: vec![held], ..Linked::default() };
    world.host.linked.lock().unwrap().push(Ok(linked));
    let mut runner = Runner::connect(&runner.path, runner.token.as_deref()).await;
    let welcome = runner.hello().await;
    assert_eq!(welcome["drop"], json!([{"taskId": "tk_0", "attempt": 3}]));
    assert_eq!((&welcome["standby"], &welcome["heartbeatMs"]), (&json!(false), &json!(500)));
    let checkpoint = runner.call("task/checkpoint", json!({"taskId": "tk_1", "data": 1})).await;
    world.host.call().await.answer.send(Ok(json!({"position": 3}))).unwrap();
    assert_eq!(runner.reply(checkpoint).await.unwrap(), json!({"position": 3}));
    let unknown = runner.ask("task/checkpoint", json!({"taskId": "tk_0", "data": 1})).await.unwrap_err();
    assert_eq!(unknown["data"]["type"], "unknown_task");
}

#[tokio::test]
async fn notes_reach_the_host_in_order_and_too_many_are_thrown_away() {
    let world = World::with(|options| options.limits.notes_per_second_max = 5);
    let mut runner = world.agent("m", 0).await;
    runner.take(&world, task("tk_1", 0)).await;
    for number in 0..50 {
        let params = json!({"taskId": "tk_1", "message": number.to_string()});
        runner.send(json!({"t": "note", "method": "task/progress", "params": params})).await;
    }
    runner.quiet().await;
    let progress = |seen| match seen {
        Seen::Note(link::Note::Progress(progress)) => progress.message,
        _ => None,
    };
    let notes = world.host.wait(5, progress).await;
    assert_eq!(notes[..5], ["0", "1", "2", "3", "4"]);
    assert!(notes.len() < 50, "{}", notes.len());
}
