//! The recorded conversations that both sides of the link must agree with, from the gateway's side: what a runner says
//! in them is sent, what a gateway says in them must come out.

use hypercode_gateway::{CrewPolicy, HeldTask, Kind, Linked, Peer};
use link::transcript::{Direction, LINK, entries};
use link::{ErrorType, ToRunner};
use serde_json::{Value, json};

use crate::support::{Runner, World, agent_id, channel, crew, error, peer, policy};

/// A conversation under way.
struct Replay {
    world: World,
    runner: Runner,
    /// Frames that came before the transcript speaks of them: answers need not keep an order among each other.
    early: Vec<Value>,
}

impl Replay {
    /// The frame of the gateway that this one of the transcript stands for.
    async fn frame(&mut self, like: &Value) -> Value {
        let same = |frame: &Value| frame["t"] == like["t"] && frame["re"] == like["re"];
        if let Some(place) = self.early.iter().position(same) {
            return self.early.remove(place);
        }
        loop {
            let frame =
                self.runner.next().await.unwrap_or_else(|code| panic!("closed {code:?}, wanted {like}"));
            if same(&frame) {
                return frame;
            }
            self.early.push(frame);
        }
    }

    /// Has the platform behind the gateway do what makes the gateway say this.
    async fn cause(&self, frame: ToRunner) {
        let (gateway, sandbox) = (&self.world.gateway, self.runner.sandbox());
        match frame {
            ToRunner::Assign(assign) => gateway.assign(sandbox, *assign).await.unwrap(),
            ToRunner::Task(task) => gateway.send_task(sandbox, *task, None).await.unwrap(),
            ToRunner::TaskCancel(cancel) => drop(gateway.cancel_task(sandbox, cancel).await.unwrap()),
            ToRunner::Drain(drain) => gateway.drain(sandbox, drain).await.unwrap(),
            _ => {}
        }
    }

    async fn play(&mut self, name: &str, skip: impl Fn(&Value) -> bool) {
        let transcript = LINK.iter().find(|(known, _)| *known == name).unwrap().1;
        for entry in entries(transcript).unwrap() {
            if skip(&entry.frame) {
                continue;
            }
            if entry.dir == Direction::Right {
                self.runner.send(entry.frame).await;
                continue;
            }
            let wanted: ToRunner = serde_json::from_value(entry.frame.clone()).unwrap();
            self.cause(wanted.clone()).await;
            let frame = self.frame(&entry.frame).await;
            let found: ToRunner = serde_json::from_value(frame).unwrap();
            match (wanted, found) {
                (ToRunner::Welcome(wanted), ToRunner::Welcome(mut found)) => {
                    found.link_id = wanted.link_id.clone();
                    assert_eq!(found, wanted);
                }
                (ToRunner::Reply(wanted), ToRunner::Reply(found)) => match (wanted.outcome, found.outcome) {
                    (Ok(wanted), Ok(found)) => assert_eq!(keys(&found), keys(&wanted)),
                    (Err(wanted), Err(found)) => {
                        assert_eq!(
                            (found.kind, keys(&json!(found.data))),
                            (wanted.kind, keys(&json!(wanted.data)))
                        );
                    }
                    (wanted, found) => panic!("wanted {wanted:?}, found {found:?}"),
                },
                (ToRunner::Error(wanted), ToRunner::Error(found)) => assert_eq!(found.kind, wanted.kind),
                (ToRunner::Message(wanted), ToRunner::Message(found)) => {
                    assert_eq!(found.params.from.member, wanted.params.from.member);
                    assert_eq!(
                        (found.params.parts, found.params.text),
                        (wanted.params.parts, wanted.params.text)
                    );
                    assert_eq!(found.delivery, wanted.delivery);
                }
                (ToRunner::Assign(mut wanted), ToRunner::Assign(found)) => {
                    // Each assignment gets a token of its own.
                    wanted.token.clone_from(&found.token);
                    assert_eq!(found, wanted);
                }
                (wanted, found) => assert_eq!(found, wanted),
            }
        }
    }
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

fn members() -> CrewPolicy {
    let channels =
        vec![channel("scout", "writer", Kind::Message), channel("analyst", "scout", Kind::Message)];
    policy(&[("scout", 1), ("writer", 2), ("analyst", 1)], channels)
}

/// A sandbox of this peer, and a runner that has not said hello.
async fn opened(world: World, who: &Peer, adopted: bool) -> Replay {
    world.gateway.set_crew(&crew(), members());
    let path = world.gateway.open(&who.sandbox).await.unwrap();
    let token = world.token(who);
    let mut runner = if adopted {
        world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
        Runner::connect(&path, Some(&token)).await
    } else {
        world.gateway.bind_peer(&who.sandbox, who.clone()).unwrap();
        Runner::connect(&path, None).await
    };
    runner.peer = Some(who.clone());
    Replay { world, runner, early: Vec::new() }
}

#[tokio::test]
async fn a_task_from_standby_to_drain() {
    let world = World::new();
    let mut analyst = world.agent("analyst", 0).await;
    let mut replay = opened(world, &peer("scout", 0, 1), false).await;
    analyst
        .call("message/send", json!({"to": format!("agent:{}", agent_id("scout", 0)), "text": "done"}))
        .await;
    // Its token does not grow old within this test, so it gets no other one.
    replay.play("link_task", |frame| frame["t"] == "token").await;
}

#[tokio::test]
async fn a_link_that_resumes() {
    let world = World::new();
    world.gateway.set_crew(&crew(), members());
    let mut analyst = world.agent("analyst", 0).await;
    for value in 1..=3 {
        analyst.ask("state/put", json!({"key": "seen", "value": value, "scope": "crew"})).await.unwrap();
    }
    let task = "tk_2".parse().unwrap();
    let held = HeldTask {
        task,
        attempt: 2,
        fence: 1,
        depth: 0,
        context: "cx_1".to_owned(),
        traceparent: None,
        origin: None,
    };
    let drop = vec![link::TaskRef { task_id: "tk_1".parse().unwrap(), attempt: 1 }];
    world.host.linked.lock().unwrap().push(Ok(Linked {
        heartbeat_ms: 1_000,
        drop,
        held: vec![held],
        assign: None,
        prestart: None,
    }));
    opened(world, &peer("scout", 0, 1), true).await.play("link_resume", |_| false).await;
}

#[tokio::test]
async fn faults_of_a_handler_and_refusals_of_both_sides() {
    let world = World::new();
    world.host.linked.lock().unwrap().push(Ok(Linked { heartbeat_ms: 250, ..Linked::default() }));
    world.host.results.lock().unwrap().push(Err(error(ErrorType::Fenced)));
    let mut replay = opened(world, &peer("scout", 0, 1), true).await;
    replay.runner.send(json!({"t": "hello", "v": [1], "runner": "0.1.0"})).await;
    replay.runner.send(json!({"t": "hallo"})).await;
    replay.play("link_faults", |frame| frame["t"] == "hello").await;
}
