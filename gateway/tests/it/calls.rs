//! Calls: judged once, answered once, whatever becomes of the link.

use events::CommandId;
use events::domain::message::{Denial, Event};
use hypercode_gateway::{Activity, CrewPolicy, HeldTask, HostCall, Kind, Linked};
use serde_json::json;

use crate::support::{Runner, Seen, World, agent_id, channel, crew, policy, task};

async fn scout(world: &World, policy: CrewPolicy) -> Runner {
    world.gateway.set_crew(&crew(), policy);
    let mut runner = world.agent("scout", 0).await;
    runner.take(world, task("tk_1", 0)).await;
    runner
}

fn scout_to_analyst() -> CrewPolicy {
    policy(&[("scout", 1), ("analyst", 2), ("editor", 1)], vec![channel("scout", "analyst", Kind::Task)])
}

#[tokio::test]
async fn a_call_that_waits_survives_a_lost_link_and_is_asked_once() {
    let world = World::new();
    let mut runner = scout(&world, scout_to_analyst()).await;
    let delegate = json!({"taskId": "tk_1", "to": "analyst", "input": "count"});
    let id = runner.call("task/delegate", delegate.clone()).await;
    let asked = world.host.call().await;
    assert_eq!(asked.command, CommandId::derive(&["link", runner.sandbox().as_str(), &id.to_string()]));
    assert_eq!(Some(&asked.peer), runner.peer.as_ref());
    let again = json!({"t": "call", "id": id, "method": "task/delegate", "params": delegate});
    world.host.linked.lock().unwrap().extend([Ok(still_held()), Ok(still_held())]);
    let mut runner = runner.reconnect().await;
    runner.send(again.clone()).await;
    runner.quiet().await;
    asked.answer.send(Ok(json!({"taskId": "tk_2", "state": "completed"}))).unwrap();
    assert_eq!(runner.reply(id).await.unwrap()["taskId"], "tk_2");
    let mut runner = runner.reconnect().await;
    runner.send(again).await;
    assert_eq!(runner.reply(id).await.unwrap()["taskId"], "tk_2", "the first answer, once more");
    let count = |wanted| world.host.seen().iter().filter(|seen| **seen == Seen::Activity(wanted)).count();
    assert_eq!(count(Activity::CallStarted), count(Activity::CallEnded));
}

fn still_held() -> Linked {
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
    Linked { heartbeat_ms: 1_000, held: vec![held], ..Linked::default() }
}

#[tokio::test]
async fn only_so_many_calls_are_in_flight() {
    let world = World::with(|options| options.limits.calls_in_flight_max = 2);
    let mut runner = scout(&world, scout_to_analyst()).await;
    let input = json!({"taskId": "tk_1", "key": "k", "kind": "text", "title": "?"});
    let first = runner.call("input/request", input.clone()).await;
    let asked = world.host.call().await;
    runner.call("input/request", input.clone()).await;
    let refused = runner.ask("input/request", input).await.unwrap_err();
    assert_eq!((&refused["code"], &refused["data"]["retryAfterMs"]), (&json!(429), &json!(100)));
    let HostCall::InputRequest(request) = asked.call else { panic!("another call: {:?}", asked.call) };
    assert_eq!(request.title, "?");
    asked.answer.send(Ok(json!({"action": "accept"}))).unwrap();
    assert_eq!(runner.reply(first).await.unwrap(), json!({"action": "accept"}));
    runner.quiet().await;
}

#[tokio::test]
async fn malformed_calls_are_answered_and_name_what_is_wrong() {
    let world = World::new();
    let mut runner = scout(&world, scout_to_analyst()).await;
    for (method, params, kind) in [
        ("task/dance", json!({}), "method_not_found"),
        ("task/delegate", json!({"taskId": "tk_1", "to": "analyst", "inptu": 1}), "invalid_params"),
        ("task/delegate", json!({"taskId": "tk_9", "to": "analyst", "input": 1}), "unknown_task"),
        ("state/put", json!({"key": "k", "value": "x".repeat(70_000)}), "too_large"),
        ("tool/call", json!({"taskId": "tk_1", "server": "s", "name": "n"}), "tool_denied"),
    ] {
        let refused = runner.ask(method, params).await.unwrap_err();
        assert_eq!(refused["data"]["type"], kind, "{refused}");
    }
}

#[tokio::test]
async fn an_answer_too_large_for_a_frame_becomes_an_error() {
    let world = World::new();
    let mut runner = scout(&world, scout_to_analyst()).await;
    let id = runner.call("task/await", json!({"taskIds": ["tk_2"]})).await;
    world.host.call().await.answer.send(Ok(json!("x".repeat(300_000)))).unwrap();
    assert_eq!(runner.reply(id).await.unwrap_err()["code"], 413);
}

#[tokio::test]
async fn a_delegation_goes_over_a_channel_only_and_its_denial_is_recorded() {
    let world = World::new();
    let mut runner = scout(&world, scout_to_analyst()).await;
    for (to, reason, code) in [
        ("editor", Denial::NoChannel, 403),
        ("scout", Denial::NoChannel, 403),
        ("nobody", Denial::UnknownMember, 404),
        ("analyst[7]", Denial::UnknownMember, 404),
        ("analyst[*]", Denial::FanOut, -32602),
    ] {
        let call = json!({"taskId": "tk_1", "to": to, "input": 1});
        let refused = runner.ask("task/delegate", call).await.unwrap_err();
        assert_eq!(
            (&refused["code"], &refused["data"]["retryable"]),
            (&json!(code), &json!(false)),
            "{refused}"
        );
        let (position, event) = world.events::<Event>().await.pop().unwrap();
        let Event::DelegateDenied(denied) = event else { panic!("{event:?}") };
        assert_eq!((denied.reason, denied.to.as_str(), denied.task.as_str()), (reason, to, "tk_1"));
        assert_eq!(denied.from.agent, agent_id("scout", 0));
        assert_eq!(refused["data"]["position"], position.0);
    }
    let id = runner.call("task/delegate", json!({"taskId": "tk_1", "to": "analyst[1]", "input": 1})).await;
    let asked = world.host.call().await;
    let HostCall::Delegate { member, agent, depth, .. } = asked.call else { panic!("another call") };
    assert_eq!((member.as_str(), agent, depth), ("analyst", Some(agent_id("analyst", 1)), 1));
    asked.answer.send(Ok(json!({}))).unwrap();
    runner.reply(id).await.unwrap();
}

#[tokio::test]
async fn depth_fan_out_and_rate_bound_a_channel() {
    let world = World::new();
    let mut narrow = channel("scout", "analyst", Kind::Task);
    (narrow.max_depth, narrow.fan_out, narrow.rate_per_second) = (3, 1, 3.0);
    let mut runner = scout(&world, policy(&[("scout", 1), ("analyst", 1)], vec![narrow])).await;
    runner.take(&world, task("tk_deep", 3)).await;
    let call = |task: &str| json!({"taskId": task, "to": "analyst", "input": 1});
    let refused = runner.ask("task/delegate", call("tk_deep")).await.unwrap_err();
    assert_eq!(refused["data"]["type"], "channel_denied");
    let first = runner.call("task/delegate", call("tk_1")).await;
    let asked = world.host.call().await;
    let refused = runner.ask("task/delegate", call("tk_1")).await.unwrap_err();
    assert_eq!(refused["data"]["type"], "fanout_limited");
    asked.answer.send(Ok(json!({}))).unwrap();
    runner.reply(first).await.unwrap();
    loop {
        let id = runner.call("task/delegate", call("tk_1")).await;
        tokio::select! {
            asked = world.host.call() => asked.answer.send(Ok(json!({}))).unwrap(),
            refused = runner.reply(id) => {
                let refused = refused.unwrap_err();
                assert_eq!(refused["data"]["type"], "rate_limited");
                assert!(refused["data"]["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{refused}");
                break;
            }
        }
        runner.reply(id).await.unwrap();
    }
    let reason = |event| if let Event::DelegateDenied(denied) = event { Some(denied.reason) } else { None };
    assert_eq!(world.log(3, reason).await, [Denial::Depth, Denial::FanOut, Denial::Rate]);
}

#[tokio::test]
async fn a_frame_that_names_its_own_sender_is_refused_and_recorded() {
    let world = World::with(|options| options.limits.denials_recorded_per_second = 2);
    let mut runner = scout(&world, scout_to_analyst()).await;
    for number in 0..10 {
        let params = json!({"to": "analyst", "text": "hi", "from": "editor"});
        runner
            .send(json!({"t": "call", "id": 100 + number, "method": "message/send", "params": params}))
            .await;
    }
    for _ in 0..10 {
        let refused = runner.expect("error").await;
        assert_eq!((&refused["type"], &refused["code"]), (&json!("identity_field"), &json!(403)));
    }
    let refused = |event| if let Event::FrameRefused(refused) = event { Some(refused) } else { None };
    let refused = world.log(3, refused).await;
    assert_eq!(refused.iter().map(|refused| refused.count).sum::<u64>(), 10, "a flood is counted, not lost");
    assert!(refused.iter().all(|refused| refused.field == "from"));
    runner.quiet().await;
}

#[tokio::test]
async fn a_denial_that_cannot_be_recorded_is_a_denial_still() {
    let world = World::with(|options| options.limits.append_tries_max = 1);
    let mut runner = scout(&world, scout_to_analyst()).await;
    world.faults.set_down(true);
    let call = json!({"taskId": "tk_1", "to": "editor", "input": 1});
    let refused = runner.ask("task/delegate", call).await.unwrap_err();
    assert_eq!((&refused["code"], refused["data"].get("position")), (&json!(403), None));
}

#[tokio::test]
async fn closing_a_sandbox_drops_the_calls_that_wait() {
    let world = World::new();
    let mut runner = scout(&world, scout_to_analyst()).await;
    runner.call("task/await", json!({"taskIds": ["tk_2"]})).await;
    let asked = world.host.call().await;
    world.gateway.close(runner.sandbox()).await;
    assert!(asked.answer.is_closed());
}
