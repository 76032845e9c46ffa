//! Agents' tokens: given, shown, renewed, refused.

use std::sync::Arc;

use events::domain::platform::Tampering;
use hyper::Method;
use identity::{AgentKeys, LIFETIME_S_MAX, SigningKey};
use serde_json::json;
use tokio::net::UnixStream;

use crate::door::door;
use crate::support::*;

/// How a link ends for whoever says hello with this token.
async fn refused(runner: &Runner, token: Option<&str>) -> Option<u16> {
    let mut stranger = Runner::connect(&runner.path, token).await;
    stranger.send(json!({"t": "hello", "v": [1], "runner": "x"})).await;
    stranger.closed().await
}

#[tokio::test]
async fn a_link_shows_a_token_of_its_agent_and_life_and_what_is_refused_is_recorded() {
    let world = World::new();
    let runner = world.agent("m", 0).await;
    let mut next_life = peer("m", 0, 2);
    next_life.sandbox = runner.sandbox().clone();
    let mut elsewhere = peer("m", 0, 1);
    elsewhere.sandbox = peer("m", 0, 2).sandbox;
    let ended = world.token_made_at(runner.peer.as_ref().unwrap(), now_s() - LIFETIME_S_MAX - 5);
    let foreign = AgentKeys::default();
    foreign.set(key_set(&[&Arc::new(SigningKey::generate())]));
    let forged = foreign.mint(&bearer(runner.peer.as_ref().unwrap()), now_s()).unwrap();
    let wrong = [
        (None, "none was shown"),
        (Some("00".to_owned()), "it has not exactly three parts"),
        (Some(world.token(&peer("m", 1, 1))), "its `sub` is not that of whoever shows it"),
        (Some(world.token(&next_life)), "its `rid` is not that of whoever shows it"),
        (Some(world.token(&elsewhere)), "its `slot` is not that of whoever shows it"),
        (Some(ended), "it has ended"),
        (Some(forged.text.to_string()), "its `kid` names no key that is accepted"),
    ];
    for (index, (token, why)) in wrong.iter().enumerate() {
        assert_eq!(refused(&runner, token.as_deref()).await, Some(4003), "{why}");
        let recorded = world.tampered(index + 1).await.remove(index);
        assert_eq!((recorded.what, &recorded.detail[..]), (Tampering::ForeignToken, *why));
        assert_eq!(recorded.agent, Some(agent_id("m", 0).to_string()));
    }
    runner.reconnect().await.quiet().await;
}

#[tokio::test]
async fn id_1_a_token_dies_with_its_incarnation_at_once() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    let (path, token) = (runner.path.clone(), runner.token.clone());
    world.gateway.revoke(runner.sandbox());
    runner.send(json!({"t": "call", "id": 1, "method": "state/get", "params": {"key": "k"}})).await;
    assert_eq!(runner.closed().await, Some(4005));
    assert!(world.keys.verify(token.as_deref().unwrap(), now_s()).is_ok(), "it has not ended by itself");
    // Whether or not a connection comes about, nothing is answered over it any more.
    if let Ok(stream) = UnixStream::connect(&path).await {
        let request = format!(
            "GET /door/artifact/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            token.unwrap()
        );
        let mut stream = stream;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer))
                .await;
        assert_eq!(answer, b"");
    }
    assert!(world.host.seen().iter().all(|seen| !matches!(seen, Seen::Activity(_))));
}

#[tokio::test]
async fn a_token_is_replaced_before_it_ends() {
    let world = World::with_tokens_of(2);
    let mut runner = world.agent("m", 0).await;
    let renewed = runner.expect("token").await;
    assert_eq!(renewed["expiresInMs"], 2_000);
    let token = renewed["token"].as_str().unwrap();
    assert_ne!(Some(token), runner.token.as_deref());
    assert!(world.keys.verify(token, now_s()).is_ok());
    // And again over the next link, and again.
    runner.token = Some(token.to_owned());
    let mut runner = runner.reconnect().await;
    runner.expect("token").await;
    runner.expect("token").await;
}

#[tokio::test]
async fn a_token_that_ended_while_the_platform_was_away_opens_the_link_once_and_no_door() {
    let world = World::new();
    let runner = world.agent("m", 0).await;
    let who = runner.peer.clone().unwrap();
    let ended = world.token_made_at(&who, now_s() - 3_600);
    let world = world.restarted();
    world.gateway.open(&who.sandbox).await.unwrap();
    world.gateway.adopt_peer(&who.sandbox, who.clone()).unwrap();
    assert_eq!(door(&runner, Some(&ended), Method::GET, "/door/artifact/x", Vec::new()).await.0, 401);
    let mut again = Runner::connect(&runner.path, Some(&ended)).await;
    again.hello().await;
    let renewed = again.expect("token").await;
    drop(again);
    assert_eq!(refused(&runner, Some(&ended)).await, Some(4003));
    let mut again = Runner::connect(&runner.path, renewed["token"].as_str()).await;
    again.hello().await;
    again.quiet().await;
}

#[tokio::test]
async fn other_keys_reach_the_agents_over_their_links_and_a_revoked_one_opens_nothing() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    let old = runner.token.clone();
    world.keys.set(key_set(&[&Arc::new(SigningKey::generate())]));
    world.gateway.renew_tokens();
    runner.token = runner.expect("token").await["token"].as_str().map(str::to_owned);
    let put = async |token: &Option<String>| {
        door(&runner, token.as_deref(), Method::POST, "/door/artifact", b"x".to_vec()).await.0
    };
    assert_eq!((put(&old).await, put(&runner.token).await), (401, 201));
    assert_eq!(refused(&runner, old.as_deref()).await, Some(4003));
    runner.quiet().await;
    runner.reconnect().await.quiet().await;
}

#[tokio::test]
async fn an_agent_that_keeps_posing_as_others_is_reported() {
    let world = World::new();
    let mut runner = world.agent("m", 0).await;
    for _ in 0..5 {
        runner.send(json!({"t": "note", "method": "log", "params": {}, "from": "somebody"})).await;
    }
    let times = |seen| if let Seen::Spoofed(times) = seen { Some(times) } else { None };
    assert_eq!(world.host.wait(1, times).await, [5]);
}
