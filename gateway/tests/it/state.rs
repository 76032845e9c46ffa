//! State: what agents keep, for whom, and in which version.

use events::domain::message::Body;
use events::domain::state::Event;
use events::store::Fault;
use hypercode_gateway::CrewPolicy;
use serde_json::{Value, json};

use crate::support::{Runner, World, crew, policy, task};

fn members() -> CrewPolicy {
    policy(&[("writer", 2), ("reader", 1)], Vec::new())
}

async fn put(runner: &mut Runner, params: Value) -> Result<Value, Value> {
    runner.ask("state/put", params).await
}

async fn get(runner: &mut Runner, params: Value) -> Result<Value, Value> {
    runner.ask("state/get", params).await
}

#[tokio::test]
async fn a_value_has_versions_and_survives_a_restart() {
    let world = World::new();
    world.gateway.set_crew(&crew(), members());
    let mut writer = world.agent("writer", 0).await;
    let missing = get(&mut writer, json!({"key": "k"})).await.unwrap_err();
    assert_eq!(missing["data"]["type"], "unknown_key");
    assert_eq!(
        put(&mut writer, json!({"key": "k", "value": 1, "ifVersion": 0})).await,
        Ok(json!({"version": 1}))
    );
    let conflict = put(&mut writer, json!({"key": "k", "value": 2, "ifVersion": 0})).await.unwrap_err();
    assert_eq!((&conflict["code"], &conflict["data"]["version"]), (&json!(409), &json!(1)));
    let large = "x".repeat(60_000);
    assert_eq!(put(&mut writer, json!({"key": "k", "value": large})).await, Ok(json!({"version": 2})));
    let kept = world
        .log(2, |event| {
            Some(match event {
                Event::Put(put) => put.value,
            })
        })
        .await;
    assert!(matches!(kept[..], [Body::Inline(_), Body::Stored(_)]));
    let who = writer.peer.clone().unwrap();
    let world = world.restarted();
    world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    let mut writer = writer.reconnect().await;
    assert_eq!(get(&mut writer, json!({"key": "k"})).await, Ok(json!({"value": large, "version": 2})));
}

#[tokio::test]
async fn a_scope_is_shared_by_those_it_names_and_nobody_else() {
    let world = World::new();
    world.gateway.set_crew(&crew(), members());
    let mut writer = world.agent("writer", 0).await;
    let mut reader = world.agent("reader", 0).await;
    writer.take(&world, task("tk_1", 0)).await;
    for scope in ["agent", "crew", "context"] {
        put(&mut writer, json!({"key": "k", "value": scope, "scope": scope})).await.unwrap();
    }
    assert_eq!(get(&mut reader, json!({"key": "k", "scope": "crew"})).await.unwrap()["value"], "crew");
    assert_eq!(get(&mut reader, json!({"key": "k"})).await.unwrap_err()["data"]["type"], "unknown_key");
    let none = get(&mut reader, json!({"key": "k", "scope": "context"})).await.unwrap_err();
    assert_eq!((&none["code"], &none["data"]["field"]), (&json!(-32602), &json!("taskId")));
    reader.take(&world, task("tk_2", 0)).await;
    let shared = json!({"key": "k", "scope": "context", "taskId": "tk_2"});
    assert_eq!(get(&mut reader, shared).await.unwrap()["value"], "context", "the same conversation");
}

#[tokio::test]
async fn a_put_sent_again_gets_its_first_outcome() {
    let world = World::new();
    world.gateway.set_crew(&crew(), members());
    let mut writer = world.agent("writer", 0).await;
    let params = json!({"key": "k", "value": 1, "ifVersion": 0});
    let id = writer.call("state/put", params.clone()).await;
    let first = writer.reply(id).await;
    let again = json!({"t": "call", "id": id, "method": "state/put", "params": params});
    let plain = writer.call("state/put", json!({"key": "k", "value": 2})).await;
    assert_eq!(writer.reply(plain).await, Ok(json!({"version": 2})));
    let who = writer.peer.clone().unwrap();
    let world = world.restarted();
    world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    let mut writer = writer.reconnect().await;
    writer.send(again).await;
    assert_eq!(writer.reply(id).await, first);
    writer
        .send(json!({"t": "call", "id": plain, "method": "state/put", "params": {"key": "k", "value": 2}}))
        .await;
    assert_eq!(writer.reply(plain).await, Ok(json!({"version": 2})));
    assert_eq!(get(&mut writer, json!({"key": "k"})).await, Ok(json!({"value": 2, "version": 2})));
}

#[tokio::test]
async fn writers_of_one_scope_take_turns() {
    let world = World::new();
    world.gateway.set_crew(&crew(), members());
    let mut one = world.agent("writer", 0).await;
    let mut two = world.agent("writer", 1).await;
    for number in 0..20 {
        one.call("state/put", json!({"key": "k", "value": number, "scope": "crew"})).await;
        two.call("state/put", json!({"key": "k", "value": number, "scope": "crew"})).await;
    }
    let mut versions = Vec::new();
    for _ in 0..20 {
        for runner in [&mut one, &mut two] {
            versions.push(runner.expect("reply").await["result"]["version"].as_u64().unwrap());
        }
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=40).collect::<Vec<u64>>(), "no write is lost");
}

#[tokio::test]
async fn a_lost_answer_of_the_log_does_not_write_twice() {
    let world = World::with(|options| options.limits.append_tries_max = 1);
    world.gateway.set_crew(&crew(), members());
    let mut writer = world.agent("writer", 0).await;
    world.faults.next_append(Fault::LostAck);
    assert_eq!(put(&mut writer, json!({"key": "k", "value": 1})).await, Ok(json!({"version": 1})));
    world.faults.next_append(Fault::NotAppended);
    let refused = put(&mut writer, json!({"key": "k", "value": 2})).await.unwrap_err();
    assert_eq!(refused["code"], 503);
    assert_eq!(put(&mut writer, json!({"key": "k", "value": 3})).await, Ok(json!({"version": 2})));
}

#[tokio::test]
async fn a_scope_has_so_many_keys() {
    let world = World::with(|options| options.limits.state_keys_max = 2);
    world.gateway.set_crew(&crew(), members());
    let mut writer = world.agent("writer", 0).await;
    for key in ["a", "b"] {
        put(&mut writer, json!({"key": key, "value": 1})).await.unwrap();
    }
    assert_eq!(put(&mut writer, json!({"key": "c", "value": 1})).await.unwrap_err()["code"], 413);
    put(&mut writer, json!({"key": "b", "value": 2})).await.unwrap();
}
