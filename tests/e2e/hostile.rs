//! Handlers, and processes that pretend to be runners, that keep to no protocol: the platform and their neighbours go on.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::stage::{Stage, wait_for};

/// Nobody was started anew, and work is done as before.
async fn all_is_as_before(stage: Stage) {
    let task = stage.submit(&json!({"do": "delegate", "to": "worker", "input": {"do": "echo"}})).await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    for agent in stage.api.list("/v1/agents?crew=troupe").await {
        assert_eq!((&agent["incarnation"], &agent["status"]), (&json!(1), &json!("ready")), "{agent:#}");
    }
    stage.leave().await;
}

/// A WebSocket frame of a client; the mask of zeros changes nothing.
fn frame(opcode: u8, claimed: u64, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, 0xff][..], &claimed.to_be_bytes(), &[0; 4], payload].concat()
}

fn text(text: &str) -> Vec<u8> {
    frame(1, text.len() as u64, text.as_bytes())
}

/// What is sent on a connection of its own.
fn attacks() -> Vec<Vec<u8>> {
    let upgrade = b"GET /link/v1 HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: hypercode.link.v1\r\n\r\n";
    let hello = text(r#"{"t":"hello","v":[1],"runner":"1","arch":"x"}"#);
    let linked = |frames: &[Vec<u8>]| [&upgrade[..], &frames.concat()].concat();
    vec![
        b"\0\xff garbage \r\n\r\n".to_vec(),
        b"GET /link/v1 HTT".to_vec(),
        [b"GET / HTTP/1.1\r\nX: ".to_vec(), b"x".repeat(1 << 20)].concat(),
        b"POST /door/artifact HTTP/1.1\r\nHost: g\r\nContent-Length: 99999999999\r\n\r\nx".to_vec(),
        linked(&[text("{")]),
        linked(&[text(&"[".repeat(100_000))]),
        linked(&[frame(2, 4, b"\0\x01\x02\x03")]),
        linked(&[frame(1, 1 << 40, b"x")]),
        linked(&[frame(1, 2, b"\xff\xfe")]),
        linked(&[text(r#"{"t":"hello","v":[1],"runner":"1","arch":"x","crew":"another"}"#)]),
        linked(&[
            hello.clone(),
            text(r#"{"t":"task.result","id":1,"taskId":"tk_1","attempt":1,"fence":1,"result":{}}"#),
        ]),
        linked(&[hello, text(&format!(r#"{{"t":"heartbeat","seq":1,"x":"{}"}}"#, "x".repeat(300_000)))]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_garbage_on_an_agent_s_socket_is_shown_out() {
    let stage = Stage::with_crew().await;
    for socket in stage.home.sockets() {
        for (number, bytes) in attacks().into_iter().enumerate() {
            let mut connection = UnixStream::connect(&socket).await.expect("anyone may knock");
            // The other end may close before it has read it all.
            let _ = connection.write_all(&bytes).await;
            let _ = connection.shutdown().await;
            let mut answer = Vec::new();
            let end = tokio::time::timeout(crate::support::PATIENCE, connection.read_to_end(&mut answer));
            assert!(end.await.is_ok(), "attack {number} is still served");
            assert!(!answer.windows(9).any(|found| found == b"\"welcome\""), "attack {number} got in");
        }
    }
    all_is_as_before(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_say_anything() {
    let stage = Stage::with_crew().await;
    for (what, deed) in [
        ("no text", json!({"do": "say", "text": "\u{ff}\u{fe}\u{0}\n", "times": 1_000})),
        ("depth", json!({"do": "say", "text": format!("{}\n", "[".repeat(50_000))})),
        (
            "a deep call",
            json!({"do": "say", "text": format!("{{\"jsonrpc\":\"2.0\",\"method\":\"log\",\"params\":{}\n", "[".repeat(50_000))}),
        ),
        (
            "an answer to nothing",
            json!({"do": "say", "text": "{\"jsonrpc\":\"2.0\",\"id\":99999,\"result\":7}\n"}),
        ),
        (
            "a call of nothing",
            json!({"do": "say", "text": "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"steal\"}\n"}),
        ),
        (
            "a flood of calls",
            json!({"do": "say", "text": "{\"jsonrpc\":\"2.0\",\"method\":\"log\",\"params\":{\"message\":\"x\"}}\n", "times": 20_000}),
        ),
        (
            "a flood on stderr",
            json!({"do": "say", "on": "stderr", "text": "x".repeat(1_000), "times": 20_000}),
        ),
    ] {
        let task = stage.submit(&deed).await;
        let ended = stage.ended(&task).await;
        assert_eq!(ended["output"]["parts"][0]["text"], "said", "{what}: {ended:#}");
    }
    all_is_as_before(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_never_ends_fails_the_task_and_says_why() {
    let stage = Stage::with_crew().await;
    let task = stage.submit(&json!({"do": "say", "text": "x".repeat(1_000), "times": 1_000})).await;
    // Nothing ends the line until the next answer does.
    stage.submit(&json!({"do": "echo"})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    assert!(ended["error"].as_str().is_some_and(|error| error.contains("line")), "{ended:#}");
    all_is_as_before(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_line_and_death_is_a_crash_like_any_other() {
    let stage = Stage::with_crew().await;
    let half = json!({"do": "say", "text": "{\"jsonrpc\":\"2.0\",\"id\":1,\"resu", "dies": true});
    let task = stage.submit(&half).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["history"][0]["outcome"], "crash", "{ended:#}");
    stage.leave().await;
}

/// An agent acts on what it has in hand, and on nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn another_s_task_cannot_be_touched() {
    let stage = Stage::with_crew().await;
    let body = json!({"crew": "troupe", "to": "worker", "input": wait_for(&stage.home, "go")});
    let other = stage.api.insist("/v1/tasks", &body, "other").await.done();
    let other = other["id"].as_str().expect("an id").to_owned();
    stage.in_hand(&other, 1).await;
    for (method, params) in [
        ("task/checkpoint", json!({"taskId": other, "data": 1})),
        ("task/delegate", json!({"taskId": other, "to": "worker", "input": "x"})),
        ("task/cancel", json!({"taskId": other})),
        ("task/await", json!({"taskIds": [other]})),
        ("input/request", json!({"taskId": other, "key": "k", "kind": "text", "title": "x"})),
    ] {
        let task = stage.submit(&json!({"do": "call", "method": method, "params": params})).await;
        let ended = stage.ended(&task).await;
        let error = &ended["output"]["parts"][0]["data"]["error"];
        assert!(matches!(error["code"].as_i64(), Some(404 | 409)), "{method}: {ended:#}");
    }
    // An answer to a request that was never made to it settles nothing either.
    let forged = format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "method": "task/progress", "params": {"taskId": other, "message": "done"}})
    );
    let task = stage.submit(&json!({"do": "say", "text": forged})).await;
    stage.ended(&task).await;
    let untouched: Value = stage.json(&["task", "show", &other]).await;
    assert_eq!(
        (&untouched["status"], &untouched["attempts"]),
        (&json!("working"), &json!(1)),
        "{untouched:#}"
    );
    stage.home.write("go", "");
    assert_eq!(stage.ended(&other).await["status"], "completed");
    stage.leave().await;
}
