//! What bounds messages: channels, depth, fan-out, rate, room and the budget, each denial told.

use super::*;

#[tokio::test]
async fn every_denial_is_recorded_with_its_own_target_and_count() {
    let world = World::with(|options| options.limits.denials_recorded_per_second = 2);
    let (mut writer, mut reader) = pair(&world).await;
    for (to, times) in [("auditor", 60), ("writer", 1), ("auditor[0]", 30), ("nobody", 10), ("somebody", 10)]
    {
        for _ in 0..times {
            writer.ask("message/send", json!({"to": to, "text": "psst"})).await.unwrap_err();
        }
    }
    let counted = async || {
        let mut counted = HashMap::new();
        for (_, event) in world.events::<Event>().await {
            let Event::Denied(denied) = event else { continue };
            let target = match denied.to.as_str() {
                "auditor" | "auditor[0]" => "auditor",
                "nobody" | "somebody" | "unknown" => "nobody of the crew",
                _ => "writer",
            };
            *counted.entry(target).or_insert(0) += denied.count;
        }
        counted
    };
    // What is more than is recorded at once comes within a second.
    let mut head = EventStore::watch(&*world.store);
    while counted().await.values().sum::<u64>() < 111 {
        tokio::time::timeout(PATIENCE, head.changed()).await.expect("every denial is recorded").unwrap();
    }
    assert_eq!(counted().await, HashMap::from([("auditor", 90), ("writer", 1), ("nobody of the crew", 20)]));
    reader.quiet().await;
}

#[tokio::test]
async fn depth_fan_out_rate_and_room_bound_what_is_sent() {
    let world = World::with(|options| options.limits.messages_pending_max = 4);
    let mut narrow = channel("writer", "reader", Kind::Message);
    (narrow.max_depth, narrow.fan_out) = (2, 1);
    world.gateway.set_crew(&crew(), policy(&[("writer", 1), ("reader", 2)], vec![narrow.clone()]));
    let mut writer = world.agent("writer", 0).await;
    writer.take(&world, task("tk_deep", 2)).await;
    let call = |to: &str| json!({"to": to, "text": "hi"});
    let refused = writer.ask("message/send", call("reader[0]")).await.unwrap_err();
    assert_eq!(refused["data"]["type"], "channel_denied", "{refused}");
    writer.take(&world, task("tk_1", 0)).await;
    let shallow = |to: &str| json!({"to": to, "text": "hi", "taskId": "tk_1"});
    let refused = writer.ask("message/send", shallow("reader[*]")).await.unwrap_err();
    assert_eq!(
        (&refused["code"], &refused["data"]["retryable"]),
        (&json!(-32602), &json!(false)),
        "{refused}"
    );
    assert!(refused["message"].as_str().unwrap().contains("reach 1, not 2"), "{refused}");
    for _ in 0..4 {
        writer.ask("message/send", shallow("reader[0]")).await.unwrap();
    }
    let refused = writer.ask("message/send", shallow("reader[0]")).await.unwrap_err();
    assert_eq!((&refused["code"], &refused["data"]["retryAfterMs"]), (&json!(429), &json!(500)));
    narrow.rate_per_second = 1.0;
    world.gateway.set_crew(&crew(), policy(&[("writer", 1), ("reader", 2)], vec![narrow]));
    writer.ask("message/send", shallow("reader[1]")).await.unwrap();
    let refused = writer.ask("message/send", shallow("reader[1]")).await.unwrap_err();
    assert_eq!(refused["data"]["type"], "rate_limited");
    let reason = |event| if let Event::Denied(denied) = event { Some(denied.reason) } else { None };
    assert_eq!(world.log(3, reason).await, [Denial::Depth, Denial::FanOut, Denial::Rate]);
}

#[tokio::test]
async fn a_chain_of_messages_grows_deeper() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    world.gateway.set_ready(&agent_id("writer", 0), true);
    writer.credit(0, 100).await;
    send(&mut writer, "reader", "ping").await;
    reader.expect("message").await;
    send(&mut reader, "writer", "pong").await;
    writer.expect("message").await;
    send(&mut writer, "reader", "ping").await;
    let depths: Vec<u32> = world.log(3, as_sent).await.iter().map(|sent| sent.depth).collect();
    assert_eq!(depths, [0, 1, 2]);
}

/// Writers may send so many messages to readers.
fn limited(world: &World, messages_max: u64, exhausted: Option<&str>) {
    let policy = policy(&[("writer", 2), ("reader", 1), ("auditor", 1)], channels());
    let policy =
        CrewPolicy { messages_max: Some(messages_max), exhausted: exhausted.map(Into::into), ..policy };
    world.gateway.set_crew(&crew(), policy);
}

fn as_over_budget(event: Event) -> Option<u64> {
    match event {
        Event::Denied(denied) if denied.reason == Denial::Budget => Some(denied.count),
        _ => None,
    }
}

#[tokio::test]
async fn a_crew_sends_no_more_messages_than_its_budget_allows() {
    let world = World::new();
    let (mut writer, _reader) = pair(&world).await;
    world.gateway.know_sent(&crew(), 7);
    limited(&world, 9, None);
    send(&mut writer, "reader", "eight").await;
    // What does not go out is not counted.
    let nowhere = writer.ask("message/send", json!({"to": "nobody", "text": "lost"})).await;
    assert_eq!(nowhere.unwrap_err()["code"], 404);
    send(&mut writer, "reader", "nine").await;
    let ten = writer.ask("message/send", json!({"to": "reader", "text": "ten"})).await.unwrap_err();
    assert_eq!((&ten["code"], &ten["data"]["type"]), (&json!(402), &json!("budget_exhausted")));
    assert_eq!(world.log(1, as_over_budget).await, [1]);
    let spent = |seen| if let Seen::Spent(sent) = seen { Some(sent) } else { None };
    assert_eq!(world.host.wait(1, spent).await, [9]);

    limited(&world, 10, None);
    send(&mut writer, "reader", "ten").await;
}

#[tokio::test]
async fn nothing_crosses_while_the_budget_is_used_up() {
    let world = World::new();
    let (mut writer, _reader) = pair(&world).await;
    limited(&world, 9, Some("the crew's budget is used up: 104 of 100 tokens"));
    let refused = writer.ask("message/send", json!({"to": "reader", "text": "one"})).await.unwrap_err();
    assert_eq!(refused["code"], 402);
    assert_eq!(refused["message"], "the crew's budget is used up: 104 of 100 tokens");
    assert!(world.events::<Event>().await.into_iter().all(|(_, event)| as_sent(event).is_none()));
}
