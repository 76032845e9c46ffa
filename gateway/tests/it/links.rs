//! Links: how they begin, what is legal when, and how they end.

use events::domain::platform::Tampering;
use std::time::Duration;

use futures_util::SinkExt;
use hypercode_gateway::{Error, Linked};
use link::ErrorType;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::door;
use crate::support::{Runner, Seen, World, agent_id, assign, error, peer};

async fn opened(world: &World) -> Runner {
    let path = world.gateway.open(&peer("m", 0, 1).sandbox).await.unwrap();
    Runner::connect(&path, None).await
}

#[tokio::test]
async fn a_standby_waits_is_assigned_and_becomes_ready() {
    let world = World::new();
    let who = peer("m", 0, 1);
    let mut runner = opened(&world).await;
    let welcome = runner.hello().await;
    assert_eq!((&welcome["v"], &welcome["standby"]), (&json!(1), &json!(true)));
    assert_eq!((&welcome["heartbeatMs"], &welcome["frameBytes"]), (&json!(1_000), &json!(262_144)));
    let frame = assign(&who);
    let unbound = world.gateway.assign(&who.sandbox, frame.clone()).await;
    assert!(matches!(unbound, Err(Error::Unbound { .. })));
    runner.send(json!({"t": "heartbeat", "seq": 1, "handler": "none"})).await;
    world.gateway.bind_peer(&who.sandbox, who.clone()).unwrap();
    world.gateway.assign(&who.sandbox, frame).await.unwrap();
    let assigned = runner.expect("assign").await;
    assert_eq!(assigned["agent"]["member"], "m");
    assert!(assigned["token"].as_str().is_some_and(|token| token.len() > 200), "{assigned}");
    runner.send(json!({"t": "ready", "re": "as_1", "spawnMs": 3})).await;
    let ready = world.host.wait(1, |seen| if let Seen::Ready(ready) = seen { Some(ready) } else { None });
    assert_eq!(ready.await[0].spawn_ms, 3);
    world.host.wait(1, |seen| matches!(seen, Seen::Heartbeat(_)).then_some(())).await;
}

#[tokio::test]
async fn sb_1_a_sandbox_serves_one_incarnation_ever() {
    let world = World::new();
    let runner = world.agent("m", 0).await;
    let mut next = peer("m", 0, 2);
    next.sandbox = runner.sandbox().clone();
    assert!(matches!(world.gateway.bind_peer(runner.sandbox(), next), Err(Error::Bound { .. })));
}

#[tokio::test(start_paused = true)]
async fn hello_must_come_in_time() {
    let world = World::new();
    let mut runner = opened(&world).await;
    assert_eq!(runner.closed().await, Some(4000));
}

#[tokio::test]
async fn hello_must_be_first_and_speak_our_version() {
    let world = World::new();
    for (first, code) in [
        (json!({"t": "heartbeat", "seq": 1, "handler": "none"}), 4010),
        (json!({"t": "hello", "v": [2, 3], "runner": "x"}), 4001),
        (json!({"t": "hello", "v": [1], "runner": "x", "crew": "mine"}), 4010),
        (json!([1]), 4010),
    ] {
        let mut runner = opened(&world).await;
        runner.send(first.clone()).await;
        assert_eq!(runner.closed().await, Some(code), "{first}");
    }
    let mut runner = opened(&world).await;
    runner.send_text("{").await;
    assert_eq!(runner.closed().await, Some(1003));
}

#[tokio::test]
async fn what_is_not_legal_in_the_links_state_closes_it() {
    let world = World::new();
    for frame in [
        json!({"t": "ready", "re": "as_1"}),
        json!({"t": "call", "id": 1, "method": "state/get", "params": {"key": "k"}}),
        json!({"t": "credit", "tasks": 1, "messages": 1}),
        json!({"t": "hello", "v": [1], "runner": "x"}),
    ] {
        let mut runner = opened(&world).await;
        runner.hello().await;
        runner.send(frame.clone()).await;
        assert_eq!(runner.closed().await, Some(4010), "{frame}");
    }
}

#[tokio::test]
async fn what_is_no_json_text_or_too_large_closes_the_link() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    runner.send_text("not json").await;
    assert_eq!(runner.closed().await, Some(1003));

    let mut runner = runner.reconnect().await;
    runner.socket.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(runner.closed().await, Some(1003));

    let mut runner = runner.reconnect().await;
    runner.send(json!({"t": "note", "method": "log", "params": {"message": "x".repeat(300_000)}})).await;
    assert_eq!(runner.closed().await, Some(1009));
    runner.reconnect().await.quiet().await;
}

#[tokio::test]
async fn what_is_unknown_misshapen_or_too_deep_is_refused_and_the_link_stays() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    let deep = format!(r#"{{"t":"call","id":9,"x":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    for (frame, kind, re) in [
        (r#"{"t": "hallo"}"#, "unknown_frame", json!(null)),
        (r#"{"t": "call", "id": 4}"#, "invalid_request", json!(4)),
        (r#"{"no": "t"}"#, "invalid_request", json!(null)),
        (&deep, "too_large", json!(9)),
    ] {
        runner.send_text(frame).await;
        let refused = runner.expect("error").await;
        assert_eq!((&refused["type"], &refused["re"]), (&json!(kind), &re));
    }
    runner.quiet().await;
}

#[tokio::test]
async fn a_flood_of_frames_that_mean_nothing_ends_the_link() {
    let world = World::with(|options| options.limits.idle_frames_per_second_max = 20);
    let mut runner = world.agent("m", 0).await;
    for _ in 0..200 {
        runner.send(json!({"t": "hallo"})).await;
    }
    assert_eq!(runner.closed().await, Some(4008));
}

#[tokio::test]
async fn a_second_link_is_refused_while_the_first_lives() {
    let world = World::new();
    let mut first = world.agent("m", 0).await;
    let mut second = Runner::connect(&first.path, first.token.as_deref()).await;
    second.send(json!({"t": "hello", "v": [1], "runner": "x"})).await;
    assert_eq!(second.closed().await, Some(4004));
    let alarm = world.tampered(1).await.remove(0);
    assert_eq!((alarm.what, &alarm.sandbox), (Tampering::SecondLink, first.sandbox()));
    assert_eq!(alarm.agent, Some(agent_id("m", 0).to_string()));
    first.quiet().await;
}

#[tokio::test]
async fn a_silent_link_gives_way_to_a_new_one() {
    let world = World::with(|options| options.limits.takeover_missed_heartbeats = 0);
    let mut first = world.agent("m", 0).await;
    let mut second = Runner::connect(&first.path, first.token.as_deref()).await;
    second.hello().await;
    assert_eq!(first.closed().await, Some(4004));
    second.quiet().await;
}

#[tokio::test]
async fn a_runner_that_lost_its_assignment_gets_it_again() {
    let world = World::new();
    let who = peer("m", 0, 1);
    let path = world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.bind_peer(&who.sandbox, who.clone()).unwrap();
    let frame = assign(&who);
    for _ in 0..2 {
        let linked = Linked { assign: Some(Box::new(frame.clone())), ..Linked::default() };
        world.host.linked.lock().unwrap().push(Ok(linked));
        let mut runner = Runner::connect(&path, None).await;
        runner.hello().await;
        runner.expect("assign").await;
    }
}

#[tokio::test]
async fn the_host_may_end_an_incarnation_or_ask_for_patience_at_hello() {
    let world = World::new();
    for (kind, code) in [(ErrorType::Unavailable, 1013), (ErrorType::Fenced, 4005)] {
        world.host.linked.lock().unwrap().push(Err(error(kind)));
        let mut runner = opened(&world).await;
        runner.send(json!({"t": "hello", "v": [1], "runner": "x"})).await;
        assert_eq!(runner.closed().await, Some(code));
    }
}

#[tokio::test]
async fn closing_a_sandbox_ends_its_link_and_its_socket() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    let path = runner.path.clone();
    world.gateway.close(runner.sandbox()).await;
    assert_eq!(runner.closed().await, Some(4005));
    assert!(!path.parent().unwrap().exists());
    assert!(UnixStream::connect(&path).await.is_err());
    world.host.wait(1, |seen| matches!(seen, Seen::Lost).then_some(())).await;
    let drain = serde_json::from_value(json!({"id": "f_1", "reason": "drain", "graceMs": 1})).unwrap();
    let gone = world.gateway.drain(runner.sandbox(), drain).await;
    assert!(matches!(gone, Err(Error::UnknownSandbox { .. })));
}

#[tokio::test]
async fn a_drained_runner_is_reported_once() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    let drain = serde_json::from_value(json!({"id": "f_1", "reason": "disband", "graceMs": 5})).unwrap();
    world.gateway.drain(runner.sandbox(), drain).await.unwrap();
    assert_eq!(runner.expect("drain").await["reason"], "disband");
    for re in ["f_2", "f_1"] {
        runner.send(json!({"t": "ack", "re": re})).await;
    }
    runner.quiet().await;
    assert_eq!(world.host.seen().iter().filter(|seen| matches!(seen, Seen::Drained)).count(), 1);
}

#[tokio::test]
async fn failures_exits_and_refusals_reach_the_host() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    runner.send(json!({"t": "failed", "stage": "spawn", "message": "no such file"})).await;
    runner.send(json!({"t": "exited", "signal": 9, "tasks": [{"taskId": "tk_1", "attempt": 1}]})).await;
    let refusal =
        json!({"t": "error", "re": "f_9", "code": -32600, "type": "invalid_request", "message": "no"});
    runner.send(refusal).await;
    let seen = world.host.wait(3, |seen| match seen {
        Seen::Failed(failed) => Some(failed.message),
        Seen::Exited(exited) => exited.signal.map(|signal| signal.to_string()),
        Seen::Refused(re, _) => Some(re),
        _ => None,
    });
    assert_eq!(seen.await, ["no such file", "9", "f_9"]);
}

#[tokio::test]
async fn a_runner_finds_the_restarted_platform() {
    let world = World::new();
    let runner = world.agent("m", 0).await;
    let who = runner.peer.clone().unwrap();
    let world = world.restarted();
    assert_eq!(world.gateway.open(&who.sandbox).await.unwrap(), runner.path);
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    let mut stranger = Runner::connect(&runner.path, None).await;
    stranger.send(json!({"t": "hello", "v": [1], "runner": "x"})).await;
    assert_eq!(stranger.closed().await, Some(4003));
    runner.reconnect().await.quiet().await;
    let linked = |seen| if let Seen::Linked { assigned, .. } = seen { Some(assigned) } else { None };
    assert_eq!(world.host.wait(1, linked).await, [true]);
}

#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_link() {
    let world = World::with(|options| options.limits.write_ms = 200);
    let runner = world.agent("m", 0).await;
    let big = "x".repeat(100_000);
    for number in 0..64 {
        let cancel = json!({"taskId": format!("tk_{number}"), "attempt": 1, "reason": big, "graceMs": 1});
        world.gateway.cancel_task(runner.sandbox(), serde_json::from_value(cancel).unwrap()).await.unwrap();
    }
    world.host.wait(1, |seen| matches!(seen, Seen::Lost).then_some(())).await;
}

async fn http(runner: &Runner, request: &str) -> String {
    let mut stream = UnixStream::connect(&runner.path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn there_is_nothing_else_on_the_socket() {
    let world = World::new();
    let runner = opened(&world).await;
    let end = "Host: x\r\nConnection: close\r\n\r\n";
    let answer = http(&runner, &format!("GET /v1/crews HTTP/1.1\r\n{end}")).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("application/problem+json"), "{answer}");
    let answer = http(&runner, &format!("GET /link/v1 HTTP/1.1\r\n{end}")).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let browser = "Origin: http://evil\r\nSec-WebSocket-Protocol: hypercode.link.v1\r\n";
    let answer = http(&runner, &format!("GET /link/v1 HTTP/1.1\r\n{browser}{end}")).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("browsers"), "{answer}");
    let answer = http(&runner, "\0\0garbage\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn a_peer_that_is_not_the_sandbox_is_turned_away() {
    let world = World::new();
    let path = world.gateway.open(&peer("m", 0, 1).sandbox).await.unwrap();
    world.host.is_closed.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut stranger = UnixStream::connect(&path).await.unwrap();
    let _ = stranger.write_all(b"GET /link/v1 HTTP/1.1\r\nhost: hypercode\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));

    world.host.is_closed.store(false, std::sync::atomic::Ordering::Relaxed);
    Runner::connect(&path, None).await.hello().await;
}

#[tokio::test]
async fn sb_2_a_standby_may_fetch_what_it_starts_ahead_and_nothing_else() {
    let world = World::new();
    let who = peer("m", 0, 1);
    let bundle = world.artifacts.put("its files".into()).await.unwrap().digest;
    let other = world.artifacts.put("another's files".into()).await.unwrap().digest;
    let url = link::ArtifactUrl::of_digest(&bundle.to_string()).unwrap();
    let prestart = link::Prestart {
        handler: link::HandlerSpec { command: vec!["run".to_owned()], ..link::HandlerSpec::default() },
        source: link::Source { url: Some(url), ..link::Source::default() },
        env: Default::default(),
        models: Vec::new(),
        limits: link::Limits::default(),
    };
    let linked = Linked { heartbeat_ms: 1_000, prestart: Some(Box::new(prestart)), ..Linked::default() };
    world.host.linked.lock().unwrap().push(Ok(linked));
    let mut runner = opened(&world).await;
    let welcome = runner.hello().await;
    assert_eq!(welcome["prestart"]["handler"]["command"], json!(["run"]));
    let get = async |digest| door::get(&runner, &format!("sha256:{digest}")).await;
    assert_eq!(get(bundle).await, (200, b"its files".to_vec()));
    assert_eq!(get(other).await.0, 401);
    // Once it is somebody's, its token is asked for.
    world.gateway.bind_peer(&who.sandbox, who.clone()).unwrap();
    assert_eq!(get(bundle).await.0, 401);
}
