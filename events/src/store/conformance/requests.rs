//! What the laws mean for hard input and hard callers.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Fixture, events_of, log, name, request, stream};
use crate::chain;
use crate::id::{Position, Version};
use crate::store::{
    AppendError, AppendRequest, EVENTS_MAX, Expected, NAMES_MAX, PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX,
};

/// A name is taken once, survives a restart, and is free again when its holder gives it back.
pub async fn names_are_taken_once_and_given_back_by_their_holder(mut fixture: impl Fixture) {
    let (holder, other) = (stream("holder"), stream("other"));
    let with = |stream, reserve: &[&str], release: &[&str]| AppendRequest {
        reserve: reserve.iter().map(|key| name(key)).collect(),
        release: release.iter().map(|key| name(key)).collect(),
        ..request(stream, Expected::Any, &["1"])
    };
    let taken = |key: &str| Err(AppendError::Taken { namespace: "name".into(), key: key.into() });

    fixture.store().append(with(&holder, &["a", "b"], &[])).await.expect("both are free");
    fixture.restart().await;
    let store = fixture.store();
    assert_eq!(store.append(with(&other, &["b"], &[])).await, taken("b"));
    assert_eq!(
        store.append(with(&holder, &["a"], &[])).await,
        taken("a"),
        "not even its holder takes it twice"
    );
    assert_eq!(store.append(with(&other, &["c", "c"], &[])).await, taken("c"), "nor in one append");
    assert_eq!(store.append(with(&other, &["a"], &["a"])).await, taken("a"), "a stranger cannot free it");
    store.append(with(&other, &[], &["a"])).await.expect("giving back what one does not hold does nothing");
    assert_eq!(store.find_reservation(&name("a")).await, Ok(Some(holder.clone())));

    store.append(with(&holder, &["a"], &["a", "b"])).await.expect("its holder may renew it");
    assert_eq!(store.find_reservation(&name("a")).await, Ok(Some(holder.clone())));
    assert_eq!(store.find_reservation(&name("b")).await, Ok(None));
    store.append(with(&other, &["b"], &[])).await.expect("it is free again");
    assert_eq!(store.find_reservation(&name("b")).await, Ok(Some(other)));
    let elsewhere = crate::store::Reservation { namespace: "other".into(), key: "a".into() };
    assert_eq!(store.find_reservation(&elsewhere).await, Ok(None));
}

/// Each illegal request is refused with its reason, and nothing of it is written.
pub async fn illegal_requests_are_refused(fixture: impl Fixture) {
    let store = fixture.store();
    let stream = stream("s");
    let legal = || request(&stream, Expected::Any, &["1"]);
    let kind = |kind: &str| {
        let mut request = legal();
        request.events[0].kind = kind.into();
        request
    };
    let payload = |payload: &str| request(&stream, Expected::Any, &["1", payload]);
    let text = "x".repeat(TEXT_BYTES_MAX + 1);
    let illegal = [
        request(&stream, Expected::Any, &[]),
        request(&stream, Expected::Any, &vec!["1"; EVENTS_MAX + 1]),
        kind(""),
        kind("Tested"),
        kind("task.done"),
        kind("über"),
        kind(&"x".repeat(65)),
        payload(""),
        payload("{"),
        payload("1 2"),
        payload("{\"a\":\"\u{1}\"}"),
        payload(&"[".repeat(10_000)),
        payload(&format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX))),
        AppendRequest { reserve: vec![name(&text)], ..legal() },
        AppendRequest { release: vec![name("a\0b")], ..legal() },
        AppendRequest { reserve: (0..=NAMES_MAX).map(|i| name(&i.to_string())).collect(), ..legal() },
        AppendRequest { stream: super::stream(&text), ..legal() },
        AppendRequest { stream: super::stream(""), ..legal() },
        AppendRequest {
            meta: crate::Meta { causation_id: Some(text.as_str().into()), ..legal().meta },
            ..legal()
        },
    ];
    for (i, request) in illegal.into_iter().enumerate() {
        let refused = store.append(request).await;
        assert!(matches!(refused, Err(AppendError::Invalid { .. })), "request {i}: {refused:?}");
    }
    assert_eq!(log(&*store).await, []);
}

/// The largest append and the largest payload that are legal come back whole.
pub async fn large_appends_and_payloads_come_back(fixture: impl Fixture) {
    let store = fixture.store();
    let many: Vec<String> = (0..EVENTS_MAX).map(|i| i.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let large = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2));
    let appended =
        store.append(request(&stream("many"), Expected::NONE, &many)).await.expect("it is appended");
    assert_eq!(appended.version, Version(EVENTS_MAX as u64));
    let larges = (0..32).map(|i| {
        let (store, large) = (fixture.store(), large.clone());
        async move { store.append(request(&stream(&format!("l{i}")), Expected::NONE, &[&large])).await }
    });
    for appended in JoinSet::from_iter(larges).join_all().await {
        appended.expect("it is appended");
    }
    let payloads: Vec<_> = events_of(&*store, &stream("many")).await;
    assert!(payloads.iter().map(|event| &*event.payload).eq(many));
    assert_eq!(*events_of(&*store, &stream("l31")).await[0].payload, *large);
    chain::verify(&*store).await.expect("the chain verifies");
}

/// A payload keeps its spaces, its order, its escapes and every character of Unicode.
pub async fn payloads_are_kept_byte_for_byte(mut fixture: impl Fixture) {
    let payloads = [
        r#"{ "b" : 1,"a":2 , "a": 3 }"#,
        "\"grüße 🦀 \u{10FFFF} \u{FEFF} e\u{301}\"",
        r#""\u0000 \ud83d\ude00 \/ \"""#,
        "1.0000000000000000000000000000001",
        "-0.0e-0",
        "123456789012345678901234567890",
        "\n\t [ null , true ]\r\n",
        "null",
    ];
    let stream = stream("ünïcødé/🦀");
    fixture.store().append(request(&stream, Expected::NONE, &payloads)).await.expect("it is appended");
    fixture.restart().await;
    let events = events_of(&*fixture.store(), &stream).await;
    assert!(events.iter().map(|event| &*event.payload).eq(payloads));
    assert!(events.iter().all(|event| event.stream == stream));
    chain::verify(&*fixture.store()).await.expect("the chain verifies");
}

/// An append whose caller goes away is written whole or not at all, and the store goes on.
pub async fn a_caller_that_goes_away_changes_nothing(fixture: impl Fixture) {
    let store = fixture.store();
    let mut commands = Vec::new();
    for i in 0..64_u64 {
        let stream = stream(&format!("s{}", i % 8));
        let request = request(&stream, Expected::Any, &["1", "2", "3"]);
        commands.push(request.command_id);
        let patience = Duration::from_micros(i * 20);
        let _ = tokio::time::timeout(patience, store.append(request)).await;
    }
    store.append(request(&stream("last"), Expected::NONE, &["1"])).await.expect("the store goes on");
    let log = log(&*store).await;
    for command in commands {
        let events: Vec<_> = log.iter().filter(|event| event.command_id == command).collect();
        let outcome = store.find_command(command).await.expect("read");
        match outcome {
            Some(outcome) => {
                assert_eq!(events.len(), 3, "all of it is written");
                assert_eq!(events[2].position, outcome.position);
                assert_eq!(events[2].version, outcome.version);
            }
            None => assert!(events.is_empty(), "nothing of it is written"),
        }
    }
    chain::verify(&*store).await.expect("the chain verifies");
}

/// A stream is read from any version on, up to a limit.
pub async fn streams_are_read_in_pages(fixture: impl Fixture) {
    let store = fixture.store();
    for _ in 0..5 {
        store.append(request(&stream("a"), Expected::Any, &["1", "2"])).await.expect("it is appended");
        store.append(request(&stream("ab"), Expected::Any, &["3"])).await.expect("it is appended");
    }
    let page = store.read_stream(&stream("a"), Version(3), 4).await.expect("read");
    assert_eq!(page.iter().map(|event| event.version.0).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert!(page.iter().all(|event| event.stream == stream("a")));
    assert_eq!(store.read_stream(&stream("a"), Version(10), 4).await, Ok(Vec::new()));
    assert_eq!(store.read_stream(&stream("none"), Version(0), 4).await, Ok(Vec::new()));
    assert_eq!(store.read(Position(0), 0).await, Ok(Vec::new()));
}

/// Whoever watches learns of a new head.
pub async fn the_watch_hints_at_the_head(fixture: impl Fixture) {
    let store = fixture.store();
    let mut watch = store.watch();
    assert_eq!(*watch.borrow_and_update(), Position(0));
    store.append(request(&stream("s"), Expected::NONE, &["1", "2"])).await.expect("it is appended");
    let hint =
        tokio::time::timeout(Duration::from_secs(10), watch.wait_for(|head| *head == Position(2))).await;
    hint.expect("the hint comes").expect("the store lives");
}
