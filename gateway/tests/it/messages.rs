//! Messages: who may send to whom, in what order they come, and what becomes of them.

mod limits;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use events::EventStore;
use events::domain::message::{Body, Denial, Event, GivenUp, MessageId, Recipient, Sent, Undelivered};
use events::store::Fault;
use hypercode_gateway::{Channel, CrewPolicy, Kind};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Runner, Seen, World, agent_id, channel, crew, peer, policy, task};

/// Writers may send to readers, and readers back.
fn channels() -> Vec<Channel> {
    vec![channel("writer", "reader", Kind::Message), channel("reader", "writer", Kind::Message)]
}

fn members(world: &World, readers: u32) {
    world
        .gateway
        .set_crew(&crew(), policy(&[("writer", 2), ("reader", readers), ("auditor", 1)], channels()));
}

/// A writer, and a reader that takes many messages.
async fn pair(world: &World) -> (Runner, Runner) {
    members(world, 1);
    let (writer, mut reader) = (world.agent("writer", 0).await, world.agent("reader", 0).await);
    world.gateway.set_ready(&agent_id("reader", 0), true);
    reader.credit(0, 1_000).await;
    (writer, reader)
}

async fn send(runner: &mut Runner, to: &str, text: &str) -> Value {
    runner.ask("message/send", json!({"to": to, "text": text})).await.unwrap()
}

async fn ack(runner: &mut Runner, message: &Value) {
    runner.send(json!({"t": "message.ack", "re": message["id"], "messageId": message["messageId"]})).await;
}

async fn fail(runner: &mut Runner, message: &Value, code: i32) {
    let error = json!({"code": code, "message": "no"});
    let ack =
        json!({"t": "message.ack", "re": message["id"], "messageId": message["messageId"], "error": error});
    runner.send(ack).await;
}

fn as_sent(event: Event) -> Option<Sent> {
    if let Event::Sent(sent) = event { Some(sent) } else { None }
}

fn as_taken(event: Event) -> Option<Vec<MessageId>> {
    if let Event::Acked(acked) = event { Some(acked.taken) } else { None }
}

fn as_dead(event: Event) -> Option<(Recipient, GivenUp, u32)> {
    if let Event::DeadLettered(dead) = event {
        Some((dead.recipient, dead.reason, dead.deliveries))
    } else {
        None
    }
}

#[tokio::test]
async fn ch_1_no_message_crosses_without_a_channel() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    let mut auditor = world.agent("auditor", 0).await;
    world.gateway.set_ready(&agent_id("auditor", 0), true);
    auditor.credit(0, 10).await;
    let one = |member: &str| format!("agent:{}", agent_id(member, 0));
    for (from, to, reason, code) in [
        ("writer", "auditor".to_owned(), Denial::NoChannel, 403),
        ("writer", "auditor[0]".to_owned(), Denial::NoChannel, 403),
        ("writer", "auditor[*]".to_owned(), Denial::NoChannel, 403),
        ("writer", one("auditor"), Denial::NoChannel, 403),
        ("writer", "writer".to_owned(), Denial::NoChannel, 403),
        ("writer", "nobody".to_owned(), Denial::UnknownMember, 404),
        ("writer", "agent:ag_of_another_crew".to_owned(), Denial::UnknownMember, 404),
        ("auditor", one("reader"), Denial::NoChannel, 403),
    ] {
        let from = if from == "writer" { &mut writer } else { &mut auditor };
        let refused = from.ask("message/send", json!({"to": to, "text": "psst"})).await.unwrap_err();
        assert_eq!(refused["code"], code, "{to}: {refused}");
        let (position, event) = world.events::<Event>().await.pop().unwrap();
        let Event::Denied(denied) = event else { panic!("{event:?}") };
        assert_eq!((denied.reason, denied.to), (reason, to));
        assert_eq!(denied.from.agent, from.peer.as_ref().unwrap().agent);
        assert_eq!(refused["data"]["position"], position.0);
        let record = &world.events::<Event>().await;
        assert!(record.iter().all(|(_, event)| !matches!(event, Event::Sent(_))));
    }
    reader.quiet().await;
    auditor.quiet().await;
    world.gateway.remove_crew(&crew());
    let refused = writer.ask("message/send", json!({"to": "reader", "text": "hi"})).await.unwrap_err();
    assert_eq!(refused["code"], 503, "a crew that nobody knows has no channels");
}

#[tokio::test]
async fn ch_2_no_message_is_delivered_before_its_event_is_durable() {
    let world = World::with(|options| options.limits.append_tries_max = 1);
    let (mut writer, mut reader) = pair(&world).await;
    world.faults.next_append(Fault::NotAppended);
    let refused = writer.ask("message/send", json!({"to": "reader", "text": "lost"})).await.unwrap_err();
    assert_eq!((&refused["code"], &refused["data"]["retryable"]), (&json!(503), &json!(true)));
    reader.quiet().await;
    for (round, fault) in [Fault::SlowAck(Duration::from_millis(100)), Fault::LostAck].into_iter().enumerate()
    {
        world.faults.next_append(fault);
        let id = writer.call("message/send", json!({"to": "reader", "text": "kept"})).await;
        let delivered = reader.expect("message").await;
        let durable = world.events::<Event>().await;
        let (position, sent) =
            durable.into_iter().filter_map(|(p, e)| Some((p, as_sent(e)?))).last().unwrap();
        assert_eq!(delivered["messageId"], sent.message.as_str());
        let answer = writer.reply(id).await.unwrap();
        assert_eq!(answer, json!({"messageId": sent.message, "position": position, "recipients": 1}));
        ack(&mut reader, &delivered).await;
        world.log(round + 1, as_taken).await;
        reader.quiet().await;
    }
}

#[tokio::test]
async fn ch_1_what_waits_crosses_only_if_there_is_a_channel_when_it_is_delivered() {
    let world = World::new();
    members(&world, 1);
    let mut writer = world.agent("writer", 0).await;
    send(&mut writer, "reader", "too late").await;
    let none = policy(&[("writer", 2), ("reader", 1), ("auditor", 1)], Vec::new());
    world.gateway.set_crew(&crew(), none);
    let mut reader = world.agent("reader", 0).await;
    world.gateway.set_ready(&agent_id("reader", 0), true);
    reader.credit(0, 10).await;
    let member = Recipient::Member("reader".into());
    assert_eq!(world.log(1, as_dead).await, [(member, GivenUp::NoChannel, 1)]);
    reader.quiet().await;
    members(&world, 1);
    send(&mut writer, "reader", "in time").await;
    assert_eq!(reader.expect("message").await["params"]["text"], "in time");
}

#[tokio::test]
async fn ch_3_the_sender_named_on_a_message_is_the_authenticated_one() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    for spoof in [json!({"from": {"member": "reader"}}), json!({"sender": "x"}), json!({"crew": "other"})] {
        let mut params = json!({"to": "reader", "text": "trust me"});
        params.as_object_mut().unwrap().extend(spoof.as_object().unwrap().clone());
        let id = writer.call("message/send", params).await;
        let refused = writer.expect("error").await;
        assert_eq!((&refused["re"], &refused["type"]), (&json!(id), &json!("identity_field")));
    }
    let content = json!({"from": "the user's own data", "crew": 1});
    writer.ask("message/send", json!({"to": "reader", "parts": [{"data": content}]})).await.unwrap();
    let delivered = reader.expect("message").await;
    let from = json!({"member": "writer", "agent": agent_id("writer", 0)});
    assert_eq!((&delivered["params"]["from"], &delivered["params"]["parts"][0]["data"]), (&from, &content));
    let sent = world.log(1, as_sent).await;
    assert_eq!(sent[0].from.agent, agent_id("writer", 0));
    let recorded = events::EventStore::read(&*world.store, events::Position(0), 100).await.unwrap();
    let principal = format!("agent:{}", agent_id("writer", 0));
    assert!(recorded.iter().all(|event| event.meta.principal.as_str() == principal), "{recorded:?}");
    let traced = recorded.iter().find(|event| &*event.kind == "message_sent").unwrap();
    assert!(traced.meta.traceparent.as_deref().is_some_and(|trace| trace.len() == 55));
}

#[tokio::test]
async fn a_message_arrives_whole_however_large() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    writer.take(&world, task("tk_1", 0)).await;
    let parts = json!([{"text": "x".repeat(100_000)}, {"data": {"n": [1, 2]}, "filename": "n.json"}]);
    let call = json!({
        "to": "reader", "parts": parts, "taskId": "tk_1", "contextId": "cx_1", "replyTo": "ms_0",
    });
    writer.ask("message/send", call).await.unwrap();
    let delivered = reader.expect("message").await;
    let params = &delivered["params"];
    assert_eq!(params["parts"], parts);
    assert_eq!(params["text"], parts[0]["text"]);
    assert_eq!((&params["taskId"], &params["contextId"]), (&json!("tk_1"), &json!("cx_1")));
    assert_eq!((&params["replyTo"], &params["delivery"]), (&json!("ms_0"), &json!(1)));
    let sent = world.log(1, as_sent).await;
    assert!(matches!(sent[0].body, Body::Stored(_)), "the log keeps the digest");
    assert_eq!(sent[0].depth, 1, "one deeper than the task");
}

#[tokio::test]
async fn a_message_that_would_fit_no_delivery_is_refused() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    for (bytes, refused) in [(250_000, true), (240_000, false)] {
        let sent = writer.ask("message/send", json!({"to": "reader", "text": "x".repeat(bytes)})).await;
        assert_eq!(sent.is_err_and(|error| error["code"] == 413), refused);
    }
    let delivered = reader.expect("message").await;
    assert!(delivered.to_string().len() <= link::limits::FRAME_BYTES_MAX);
    assert_eq!(delivered["params"]["parts"][0]["text"].as_str().unwrap().len(), 240_000);
}

#[tokio::test]
async fn messages_of_one_sender_come_in_the_order_sent() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    for number in 0..60 {
        let text = if number % 7 == 0 { format!("{number:06000}") } else { number.to_string() };
        writer.call("message/send", json!({"to": "reader", "text": text})).await;
    }
    for number in 0..60 {
        let delivered = reader.expect("message").await;
        assert_eq!(delivered["params"]["text"].as_str().unwrap().parse(), Ok(number));
        ack(&mut reader, &delivered).await;
    }
    let inline = |event| match as_sent(event)?.body {
        Body::Inline(parts) => parts[0]["text"].as_str()?.parse().ok(),
        Body::Stored(_) => None,
    };
    let log: Vec<u32> = world.log(51, inline).await;
    assert!(log.is_sorted(), "the log has them in this order too: {log:?}");
}

#[tokio::test]
async fn messages_wait_for_credit_and_survive_a_lost_link() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    reader.credit(0, 0).await;
    reader.quiet().await;
    send(&mut writer, "reader", "one").await;
    send(&mut writer, "reader", "two").await;
    reader.quiet().await;
    reader.credit(0, 1).await;
    let one = reader.expect("message").await;
    reader.quiet().await;
    let mut reader = reader.reconnect().await;
    reader.credit(0, 5).await;
    assert_eq!(reader.expect("message").await["params"]["text"], "two");
    ack(&mut reader, &one).await;
    reader.quiet().await;
    world.log(1, as_taken).await;
}

#[tokio::test]
async fn silence_and_refusals_lead_to_redelivery_and_then_to_a_dead_letter() {
    let world = World::with(|options| {
        (options.limits.delivery_ack_ms, options.limits.redelivery_ms) = (100, 10);
    });
    let (mut writer, mut reader) = pair(&world).await;
    send(&mut writer, "reader", "poison").await;
    for delivery in 1..=5 {
        let delivered = reader.expect("message").await;
        assert_eq!(
            (&delivered["delivery"], &delivered["params"]["delivery"]),
            (&json!(delivery), &json!(delivery))
        );
        if delivery % 2 == 0 {
            fail(&mut reader, &delivered, 500).await;
        }
    }
    let dead = world.log(1, as_dead).await;
    assert_eq!(dead, [(Recipient::Member("reader".into()), GivenUp::Deliveries, 5)]);
    reader.quiet().await;
}

#[tokio::test]
async fn a_refused_message_holds_back_the_later_ones_of_its_sender_only() {
    let world = World::with(|options| {
        options.limits.redelivery_ms = 300;
        options.limits.messages_in_hand_per_sender_max = 1;
    });
    let (mut writer, mut reader) = pair(&world).await;
    let mut other = world.agent("writer", 1).await;
    send(&mut writer, "reader", "first").await;
    send(&mut writer, "reader", "second").await;
    let first = reader.expect("message").await;
    fail(&mut reader, &first, 500).await;
    send(&mut other, "reader", "aside").await;
    assert_eq!(reader.expect("message").await["params"]["text"], "aside");
    let again = reader.expect("message").await;
    assert_eq!((&again["params"]["text"], &again["delivery"]), (&json!("first"), &json!(2)));
    ack(&mut reader, &again).await;
    assert_eq!(reader.expect("message").await["params"]["text"], "second");
}

#[tokio::test]
async fn a_handler_that_takes_no_messages_is_not_asked_again() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    let sent = send(&mut writer, "reader", "hi").await;
    let delivered = reader.expect("message").await;
    fail(&mut reader, &delivered, -32601).await;
    let unhandled = |event| if let Event::Acked(acked) = event { Some(acked.unhandled) } else { None };
    let unhandled = world.log(1, unhandled).await;
    assert_eq!(json!(unhandled[0]), json!([sent["messageId"]]));
    reader.quiet().await;
}

#[tokio::test]
async fn acknowledgements_are_recorded_together() {
    let world = World::with(|options| options.limits.acks_window_ms = 200);
    let (mut writer, mut reader) = pair(&world).await;
    let mut wanted = HashSet::new();
    for number in 0..50 {
        let sent = send(&mut writer, "reader", &number.to_string()).await;
        wanted.insert(sent["messageId"].as_str().unwrap().to_owned());
    }
    for _ in 0..50 {
        let delivered = reader.expect("message").await;
        ack(&mut reader, &delivered).await;
    }
    let mut events = 1;
    loop {
        let taken: Vec<_> = world.log(events, as_taken).await.concat();
        if taken.len() == 50 {
            let taken: HashSet<String> = taken.iter().map(ToString::to_string).collect();
            assert_eq!(taken, wanted);
            break;
        }
        events += 1;
    }
    assert!(events <= 10, "{events} events for 50 acknowledgements");
}

#[tokio::test]
async fn a_shutdown_records_what_was_taken_and_ends_no_incarnation() {
    let world = World::with(|options| options.limits.acks_window_ms = 300);
    let (mut writer, mut reader) = pair(&world).await;
    send(&mut writer, "reader", "hi").await;
    let delivered = reader.expect("message").await;
    ack(&mut reader, &delivered).await;
    reader.quiet().await;
    world.gateway.shutdown().await;
    assert_eq!(world.log(1, as_taken).await.concat().len(), 1);
    assert!(
        reader.closed().await.is_none_or(|code| !link::CloseCode::is_final(code)),
        "the runner comes back"
    );
    assert!(reader.path.exists());
}

#[tokio::test]
async fn what_a_life_left_undone_goes_to_the_next() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    for text in ["taken", "in hand", "waiting"] {
        if text == "waiting" {
            reader.credit(0, 0).await;
            reader.quiet().await;
        }
        send(&mut writer, "reader", text).await;
        if text != "waiting" {
            let delivered = reader.expect("message").await;
            if text == "taken" {
                ack(&mut reader, &delivered).await;
            }
        }
    }
    reader.quiet().await;
    world.gateway.close(reader.sandbox()).await;
    let mut next = world.start(peer("reader", 0, 2)).await;
    next.credit(0, 10).await;
    for (text, delivery) in [("in hand", 2), ("waiting", 1)] {
        let delivered = next.expect("message").await;
        assert_eq!((&delivered["params"]["text"], &delivered["delivery"]), (&json!(text), &json!(delivery)));
        ack(&mut next, &delivered).await;
    }
    next.quiet().await;
}

#[tokio::test]
async fn what_was_not_settled_is_delivered_after_a_restart_of_the_platform() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    for text in ["taken", "in hand", &"large ".repeat(1_000)] {
        send(&mut writer, "reader", text).await;
    }
    let delivered = reader.expect("message").await;
    ack(&mut reader, &delivered).await;
    world.log(1, as_taken).await;
    let who = reader.peer.clone().unwrap();
    let world = world.restarted();
    let mut undelivered = Undelivered::default();
    for (position, event) in world.events::<Event>().await {
        undelivered.apply(position, &event);
    }
    world.gateway.restore(undelivered.into_pending()).await;
    world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    members(&world, 1);
    let mut reader = reader.reconnect().await;
    world.gateway.set_ready(&agent_id("reader", 0), true);
    reader.credit(0, 10).await;
    for start in ["in hand", "large "] {
        let again = reader.expect("message").await;
        assert!(again["params"]["text"].as_str().unwrap().starts_with(start), "{again}");
        assert_eq!(again["delivery"], 2, "it may have been delivered before");
        ack(&mut reader, &again).await;
    }
    reader.quiet().await;
}

#[tokio::test]
async fn a_member_means_its_ready_agent_with_the_least_to_do() {
    let world = World::new();
    members(&world, 3);
    let mut writer = world.agent("writer", 0).await;
    let mut readers = Vec::new();
    for replica in 0..3 {
        readers.push(world.agent("reader", replica).await);
    }
    let waits = send(&mut writer, "reader", "early").await;
    assert_eq!(waits["recipients"], 1);
    readers[2].credit(0, 100).await;
    readers[2].quiet().await;
    world.gateway.set_ready(&agent_id("reader", 2), true);
    assert_eq!(readers[2].expect("message").await["params"]["text"], "early");
    world.gateway.set_ready(&agent_id("reader", 1), true);
    for _ in 0..2 {
        send(&mut writer, "reader", "shared").await;
    }
    readers[1].credit(0, 100).await;
    for _ in 0..2 {
        // The first: the other has one in hand. The second: on ties the lowest ordinal.
        assert_eq!(readers[1].expect("message").await["params"]["text"], "shared");
    }
    let sent = world.log(3, as_sent).await;
    assert!(
        sent.iter().all(|sent| sent.recipients.is_empty() && sent.waits_for.as_deref() == Some("reader"))
    );
}

#[tokio::test]
async fn a_replica_all_replicas_or_an_agent_may_be_named() {
    let world = World::new();
    members(&world, 3);
    let mut writer = world.agent("writer", 0).await;
    let all: Vec<_> = (0..3).map(|replica| agent_id("reader", replica)).collect();
    let agent = format!("agent:{}", all[1]);
    for (to, recipients) in [("reader[2]", &all[2..]), ("reader[*]", &all[..]), (&agent, &all[1..2])] {
        let answer = send(&mut writer, to, "hi").await;
        assert_eq!(answer["recipients"], recipients.len());
        let sent = world.log(1, as_sent).await;
        assert_eq!(sent.last().unwrap().recipients, recipients);
    }
    let mut one = world.agent("reader", 1).await;
    one.credit(0, 10).await;
    for _ in 0..2 {
        let delivered = one.expect("message").await;
        ack(&mut one, &delivered).await;
    }
    one.quiet().await;
}

#[tokio::test]
async fn a_message_sent_again_is_the_same_message() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    let call = json!({"to": "reader", "text": "hi", "key": "k"});
    let first = writer.ask("message/send", call.clone()).await.unwrap();
    assert_eq!(writer.ask("message/send", call.clone()).await.unwrap(), first);
    let other = writer.ask("message/send", json!({"to": "reader", "text": "bye", "key": "k"})).await;
    assert_eq!(other.unwrap_err()["data"]["type"], "key_conflict");
    let id = writer.call("message/send", json!({"to": "reader", "text": "once"})).await;
    let once = writer.reply(id).await.unwrap();
    let who = writer.peer.clone().unwrap();
    let mut next = writer.reconnect().await;
    let again =
        json!({"t": "call", "id": id, "method": "message/send", "params": {"to": "reader", "text": "once"}});
    next.send(again.clone()).await;
    assert_eq!(next.reply(id).await.unwrap(), once);
    for text in ["hi", "once"] {
        let delivered = reader.expect("message").await;
        assert_eq!(delivered["params"]["text"], text);
        ack(&mut reader, &delivered).await;
    }
    reader.quiet().await;
    let world = world.restarted();
    world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    members(&world, 1);
    let mut next = next.reconnect().await;
    next.send(again).await;
    assert_eq!(next.reply(id).await.unwrap(), once, "the first outcome, also after a restart");
    assert_eq!(world.log(2, as_sent).await.len(), 2);
}

#[tokio::test]
async fn a_message_outlives_its_agent_if_it_was_sent_to_the_member_and_its_crew_never() {
    let world = World::new();
    members(&world, 2);
    let mut writer = world.agent("writer", 0).await;
    world.gateway.set_ready(&agent_id("reader", 1), true);
    send(&mut writer, "reader[1]", "to one that leaves").await;
    send(&mut writer, "reader", "to whoever is ready").await;
    members(&world, 1);
    let gone = Recipient::Agent(agent_id("reader", 1));
    assert_eq!(world.log(1, as_dead).await, [(gone.clone(), GivenUp::ReceiverGone, 0)]);
    world.gateway.remove_crew(&crew());
    let member = (Recipient::Member("reader".into()), GivenUp::CrewGone, 0);
    assert_eq!(world.log(2, as_dead).await[1], member);
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_changes_nothing() {
    let world = World::new();
    let (mut writer, mut reader) = pair(&world).await;
    reader.send(json!({"t": "message.ack", "re": "f_1", "messageId": "ms_none"})).await;
    let mut other = world.agent("writer", 1).await;
    send(&mut writer, "reader", "hi").await;
    let delivered = reader.expect("message").await;
    ack(&mut other, &delivered).await;
    other.quiet().await;
    fail(&mut reader, &delivered, 500).await;
    assert_eq!(reader.expect("message").await["delivery"], 2, "only its receiver can settle it");
}
