//! What agents do says from what it follows.

use events::{EventStore, Position, Recorded};
use hypercode_gateway::{Kind, Origin};
use serde_json::json;

use crate::support::{Runner, World, agent_id, channel, crew, policy, task};

fn origin(event: &str) -> Origin {
    Origin { event: event.into(), correlation: Some(format!("the command of {event}").into()) }
}

/// The causes of all events of this kind, in order.
async fn causes(world: &World, kind: &str) -> Vec<Origin> {
    let of_kind = |event: &Recorded| (*event.kind == *kind).then(|| event.meta.clone());
    let events = world.store.read(Position(0), 1_000).await.unwrap();
    let found = events.iter().filter_map(of_kind);
    let told = |meta: events::Meta| Origin {
        event: meta.causation_id.expect("it follows from something"),
        correlation: meta.correlation_id,
    };
    found.map(told).collect()
}

fn channels() -> Vec<hypercode_gateway::Channel> {
    vec![channel("writer", "reader", Kind::Message)]
}

async fn pair(world: &World) -> (Runner, Runner) {
    world.gateway.set_crew(&crew(), policy(&[("writer", 1), ("reader", 1)], channels()));
    let (writer, mut reader) = (world.agent("writer", 0).await, world.agent("reader", 0).await);
    world.gateway.set_ready(&agent_id("reader", 0), true);
    reader.credit(0, 10).await;
    (writer, reader)
}

#[tokio::test]
async fn an_agent_acts_because_of_its_task_and_without_one_because_of_its_life() {
    let world = World::new();
    let (mut writer, _reader) = pair(&world).await;
    let life = writer.peer.clone().unwrap().origin;
    let hello = json!({"to": "reader", "text": "hello"});
    writer.ask("message/send", hello.clone()).await.unwrap();

    for (name, depth) in [("tk_1", 0), ("tk_2", 0)] {
        writer.credit(1, 0).await;
        let given = Some(origin(name));
        world.gateway.send_task(writer.sandbox(), task(name, depth), given).await.unwrap();
        writer.expect("task").await;
        if name == "tk_1" {
            // There is no doubt for what.
            writer.ask("message/send", hello.clone()).await.unwrap();
        }
    }
    let named = json!({"to": "reader", "text": "hello", "taskId": "tk_2"});
    writer.ask("message/send", named).await.unwrap();
    writer.ask("message/send", hello).await.unwrap();
    let expected = [life.clone(), origin("tk_1"), origin("tk_2"), life.clone()];
    assert_eq!(causes(&world, "message_sent").await, expected);

    let put = json!({"scope": "crew", "key": "k", "value": 1, "taskId": "tk_2"});
    writer.ask("state/put", put).await.unwrap();
    assert_eq!(causes(&world, "state_put").await, [origin("tk_2")]);
    let psst = json!({"to": "writer", "text": "psst", "taskId": "tk_1"});
    writer.ask("message/send", psst).await.unwrap_err();
    assert_eq!(causes(&world, "message_denied").await, [origin("tk_1")]);
}

#[tokio::test]
async fn what_becomes_of_a_message_follows_from_it_also_after_a_restart() {
    use events::domain::message::{Event, Undelivered};

    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    writer.ask("message/send", json!({"to": "reader", "text": "hello"})).await.unwrap();
    reader.expect("message").await;
    let sent = world.store.read(Position(0), 1_000).await.unwrap();
    let sent = sent.iter().find(|event| &*event.kind == "message_sent").expect("it was sent");
    let named: std::sync::Arc<str> = format!("{}@{}", sent.stream, sent.version).into();

    let who = reader.peer.clone().unwrap();
    let world = world.restarted();
    let mut undelivered = Undelivered::default();
    for (position, event) in world.events::<Event>().await {
        undelivered.apply(position, &event);
    }
    world.gateway.restore(undelivered.into_pending()).await;
    world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    world.gateway.set_crew(&crew(), policy(&[("writer", 1), ("reader", 1)], channels()));
    let mut reader = reader.reconnect().await;
    world.gateway.set_ready(&agent_id("reader", 0), true);
    reader.credit(0, 10).await;
    let again = reader.expect("message").await;
    reader.send(json!({"t": "message.ack", "re": again["id"], "messageId": again["messageId"]})).await;
    let acked = |event| matches!(event, Event::Acked(_)).then_some(());
    world.log(1, acked).await;
    let origin = Origin { event: named, correlation: sent.meta.correlation_id.clone() };
    assert_eq!(causes(&world, "messages_acked").await, [origin]);
}
