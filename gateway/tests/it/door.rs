//! The artifact door: what was put comes back to those who may read it, and to nobody else.

use std::time::Duration;

use events::Digest;
use events::domain::artifact::{Event, Reason};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use hypercode_gateway::{Activity, CrewPolicy, Kind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{Runner, Seen, World, agent_id, assign, channel, crew, peer, policy, task};

fn members() -> CrewPolicy {
    let channels = vec![channel("writer", "reader", Kind::Message), channel("writer", "reader", Kind::Task)];
    policy(&[("writer", 2), ("reader", 1)], channels)
}

pub(crate) async fn door(
    runner: &Runner,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> (u16, Vec<u8>) {
    let stream = UnixStream::connect(&runner.path).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "gateway");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn put(runner: &Runner, body: Vec<u8>) -> (u16, Value) {
    let (status, answer) = door(runner, runner.token.as_deref(), Method::POST, "/door/artifact", body).await;
    (status, serde_json::from_slice(&answer).unwrap())
}

pub(crate) async fn get(runner: &Runner, digest: &str) -> (u16, Vec<u8>) {
    door(runner, runner.token.as_deref(), Method::GET, &format!("/door/artifact/{digest}"), Vec::new()).await
}

fn name(bytes: &[u8]) -> String {
    format!("sha256:{}", Digest::of(bytes))
}

#[tokio::test]
async fn what_is_put_is_named_by_its_digest_and_read_by_the_crew() {
    let world = World::new();
    world.gateway.set_crew(&crew(), members());
    let (writer, reader) = (world.agent("writer", 0).await, world.agent("reader", 0).await);
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let (status, stored) = put(&writer, bytes.clone()).await;
    let digest = name(&bytes);
    let expected = json!({"url": format!("artifact:{digest}"), "digest": digest, "size": bytes.len()});
    assert_eq!((status, stored), (201, expected));
    assert_eq!(put(&writer, bytes.clone()).await.0, 201, "once more changes nothing");
    assert_eq!(get(&reader, &digest).await, (200, bytes.clone()));
    let granted = world
        .log(1, |event| match event {
            Event::Granted(granted) => Some(granted),
            Event::Kept(_) => None,
        })
        .await;
    assert_eq!(granted.len(), 1);
    assert_eq!((granted[0].reason, &granted[0].agent.agent), (Reason::Put, &agent_id("writer", 0)));
    let moved = world.host.wait(1, |seen| match seen {
        Seen::Activity(Activity::Bytes(bytes)) => Some(bytes),
        _ => None,
    });
    assert_eq!(moved.await.iter().sum::<u64>(), 3 * bytes.len() as u64);
    assert_eq!(put(&writer, Vec::new()).await.1["size"], 0);
    assert_eq!(get(&reader, &name(b"")).await, (200, Vec::new()));
}

#[tokio::test]
async fn another_crew_or_a_stranger_reads_nothing() {
    let world = World::new();
    world.gateway.set_crew(&crew(), members());
    let writer = world.agent("writer", 0).await;
    put(&writer, b"secret plan".to_vec()).await;
    let digest = name(b"secret plan");
    let mut foreign = peer("writer", 1, 1);
    foreign.crew = events::CrewId::derive(&["another"]);
    let foreign = world.start(foreign).await;
    assert_eq!(get(&foreign, &digest).await.0, 404);
    assert_eq!(get(&foreign, &name(b"never put")).await.0, 404, "it cannot tell which");
    let path = format!("/door/artifact/{digest}");
    for token in [None, Some("00"), foreign.token.as_deref()] {
        assert_eq!(door(&writer, token, Method::GET, &path, Vec::new()).await.0, 401);
        assert_eq!(door(&writer, token, Method::POST, "/door/artifact", b"x".to_vec()).await.0, 401);
    }
}

#[tokio::test]
async fn nobody_passes_on_what_is_not_theirs_to_read() {
    let world = World::new();
    world.gateway.set_crew(&crew(), members());
    let mut writer = world.agent("writer", 0).await;
    writer.take(&world, task("tk_1", 0)).await;
    world.artifacts.put(Bytes::from_static(b"of another crew")).await.unwrap();
    let url = format!("artifact:{}", name(b"of another crew"));
    let parts = json!([{"url": url}]);
    let refused = writer.ask("message/send", json!({"to": "reader", "parts": parts})).await.unwrap_err();
    assert_eq!(refused["data"]["type"], "unknown_artifact");
    let call = json!({"taskId": "tk_1", "to": "reader", "input": {"parts": parts}});
    assert_eq!(writer.ask("task/delegate", call).await.unwrap_err()["data"]["type"], "unknown_artifact");
}

#[tokio::test]
async fn what_the_platform_gives_may_be_read_also_after_a_restart() {
    let world = World::new();
    let writer = world.agent("writer", 0).await;
    let who = writer.peer.clone().unwrap();
    for bytes in [&b"input"[..], b"bundle"] {
        world.artifacts.put(Bytes::from_static(bytes)).await.unwrap();
        assert_eq!(get(&writer, &name(bytes)).await.0, 404);
    }
    let mut given = task("tk_1", 0);
    let part = json!({"parts": [{"url": format!("artifact:{}", name(b"input"))}]});
    given.params.input = serde_json::from_value(part).unwrap();
    world.gateway.send_task(&who.sandbox, given, None).await.unwrap();
    let mut assigned = assign(&who);
    assigned.source.url = Some(format!("artifact:{}", name(b"bundle")).parse().unwrap());
    world.gateway.assign(&who.sandbox, assigned).await.unwrap();
    let world = world.restarted();
    world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    for bytes in [&b"input"[..], b"bundle"] {
        assert_eq!(get(&writer, &name(bytes)).await, (200, bytes.to_vec()));
    }
    let reasons = world
        .log(2, |event| match event {
            Event::Granted(granted) => Some(granted.reason),
            Event::Kept(_) => None,
        })
        .await;
    assert_eq!(reasons, [Reason::Given, Reason::Given]);
}

async fn raw(runner: &Runner, head: &str, body: &[u8]) -> String {
    let mut stream = UnixStream::connect(&runner.path).await.unwrap();
    let token = runner.token.as_deref().unwrap();
    let head = format!("{head}\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bad_requests_are_refused_and_leave_nothing() {
    let world = World::with(|options| options.limits.http_head_ms = 200);
    world.gateway.set_crew(&crew(), members());
    let writer = world.agent("writer", 0).await;
    let huge = raw(&writer, "POST /door/artifact HTTP/1.1\r\nContent-Length: 99999999999", b"").await;
    assert!(huge.starts_with("HTTP/1.1 413") && huge.contains("too_large"), "{huge}");
    let stalled = raw(&writer, "POST /door/artifact HTTP/1.1\r\nContent-Length: 10", b"half").await;
    assert!(stalled.starts_with("HTTP/1.1 400"), "{stalled}");
    assert!(!world.artifacts.has(Digest::of(b"half")).await.unwrap());
    for (method, path) in [
        (Method::DELETE, "/door/artifact"),
        (Method::GET, "/door/artifact"),
        (Method::GET, "/door/artifact/"),
        (Method::GET, "/door/artifact/sha256:zz"),
        (Method::GET, "/door/artifact/../../etc/passwd"),
        (Method::POST, "/door/artifacts"),
    ] {
        let (status, _) = door(&writer, writer.token.as_deref(), method, path, Vec::new()).await;
        assert_eq!(status, 404, "{path}");
    }
}

#[tokio::test]
async fn only_so_many_requests_are_open() {
    let world = World::with(|options| options.limits.door_requests_max = 1);
    world.gateway.set_crew(&crew(), members());
    let writer = world.agent("writer", 0).await;
    let mut open = UnixStream::connect(&writer.path).await.unwrap();
    let token = writer.token.as_deref().unwrap();
    let head = format!(
        "POST /door/artifact HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 2\r\n\r\na"
    );
    open.write_all(head.as_bytes()).await.unwrap();
    world.host.wait(1, |seen| matches!(seen, Seen::Activity(Activity::Bytes(_))).then_some(())).await;
    let (status, problem) = put(&writer, b"b".to_vec()).await;
    assert_eq!((status, &problem["type"]), (429, &json!("rate_limited")));
    open.write_all(b"b").await.unwrap();
    let mut answer = [0; 12];
    open.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    assert_eq!(put(&writer, b"b".to_vec()).await.0, 201);
}
