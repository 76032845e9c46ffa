//! The laws, each by its name.

use std::collections::HashSet;

use tokio::task::JoinSet;

use super::{Fixture, events_of, log, name, request, stream};
use crate::chain::{self, Broken, Verifier};
use crate::id::{Digest, Position, Version};
use crate::store::{AppendError, Expected, Head};

/// ES-1.
pub async fn es_1_positions_are_contiguous_and_in_commit_order(fixture: impl Fixture) {
    let store = fixture.store();
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let store = fixture.store();
        writers.spawn(async move {
            let stream = stream(&format!("writer-{writer}"));
            let mut last = Position(0);
            for _ in 0..20 {
                let appended = store.append(request(&stream, Expected::Any, &["1", "2", "3"])).await;
                let position = appended.expect("it is appended").position;
                assert!(position > last, "an append that began after another was answered lies behind it");
                last = position;
            }
        });
    }
    writers.join_all().await;
    let log = log(&*store).await;
    assert_eq!(log.len(), 8 * 20 * 3);
    for (expected, event) in (1..).zip(&log) {
        assert_eq!(event.position, Position(expected));
    }
    for append in log.chunks(3) {
        assert!(append.iter().all(|event| event.command_id == append[0].command_id), "an append stays whole");
        assert_eq!(append.iter().map(|event| event.ordinal).collect::<Vec<_>>(), [0, 1, 2]);
    }
    assert_eq!(store.head().await.expect("head").position, Position(480));
}

/// ES-2.
pub async fn es_2_an_append_is_all_or_nothing(fixture: impl Fixture) {
    let store = fixture.store();
    let (holder, other) = (stream("holder"), stream("other"));
    let mut first = request(&holder, Expected::NONE, &["1"]);
    first.reserve = vec![name("taken")];
    store.append(first).await.expect("it is appended");
    let head = store.head().await.expect("head");

    let mut second = request(&other, Expected::NONE, &["1", "2"]);
    second.reserve = vec![name("free"), name("taken")];
    let id = second.command_id;
    let refused = store.append(second).await;
    assert!(matches!(refused, Err(AppendError::Taken { key, .. }) if &*key == "taken"));

    assert_eq!(store.head().await.expect("head"), head);
    assert_eq!(events_of(&*store, &other).await, []);
    assert_eq!(store.find_reservation(&name("free")).await, Ok(None));
    assert_eq!(store.find_command(id).await, Ok(None));
}

/// ES-3.
pub async fn es_3_an_answered_append_is_durable(mut fixture: impl Fixture) {
    let stream = stream("kept");
    let mut keeping = request(&stream, Expected::NONE, &[r#"{"a":1}"#, "2"]);
    keeping.meta.causation_id = Some("task/t@4".into());
    keeping.meta.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    keeping.reserve = vec![name("kept")];
    let appended = fixture.store().append(keeping.clone()).await.expect("it is appended");
    let (events, head) = (log(&*fixture.store()).await, fixture.store().head().await);

    fixture.restart().await;
    let store = fixture.store();
    assert_eq!(log(&*store).await, events);
    assert_eq!(store.head().await, head);
    assert_eq!(*store.watch().borrow(), Position(2));
    assert_eq!(store.find_reservation(&name("kept")).await, Ok(Some(stream.clone())));
    let found = store.find_command(keeping.command_id).await.expect("read").expect("the command is known");
    assert_eq!((found.position, found.version), (appended.position, appended.version));
    let event = &events[1];
    assert_eq!((event.stream.clone(), event.version, event.ordinal), (stream.clone(), Version(2), 1));
    assert_eq!((&event.meta, event.recorded_at), (&keeping.meta, keeping.recorded_at));
    assert_eq!((&*event.kind, event.schema, &*event.payload), ("tested", 1, "2"));
    let next = store.append(request(&stream, Expected::Exact(Version(2)), &["3"])).await;
    assert_eq!(next.expect("the log goes on").position, Position(3));
}

/// ES-4.
pub async fn es_4_the_expected_version_holds_under_32_writers(fixture: impl Fixture) {
    const APPENDS: usize = 8;
    let shared = stream("shared");
    let mut writers = JoinSet::new();
    for _ in 0..32 {
        let (store, shared) = (fixture.store(), shared.clone());
        writers.spawn(async move {
            let (mut believed, mut won) = (Version(0), Vec::new());
            while won.len() < APPENDS {
                match store.append(request(&shared, Expected::Exact(believed), &["1"])).await {
                    Ok(appended) => {
                        assert_eq!(appended.version, believed.next());
                        believed = appended.version;
                        won.push(believed);
                    }
                    Err(AppendError::WrongVersion { expected, actual, .. }) => {
                        assert_eq!(expected, believed);
                        assert!(actual > believed, "a version never goes back");
                        believed = actual;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            won
        });
    }
    let won: Vec<Version> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(won.iter().collect::<HashSet<_>>().len(), 32 * APPENDS, "each version was won once");
    let versions: Vec<_> = events_of(&*fixture.store(), &shared).await.iter().map(|e| e.version.0).collect();
    assert_eq!(versions, (1..=256).collect::<Vec<_>>());
}

/// ES-5.
pub async fn es_5_the_same_command_gives_the_first_outcome(mut fixture: impl Fixture) {
    let stream = stream("once");
    let command = request(&stream, Expected::NONE, &["1", "2"]);
    let first = fixture.store().append(command.clone()).await.expect("it is appended");
    assert!(!first.repeated);
    fixture.store().append(request(&stream, Expected::Any, &["3"])).await.expect("the stream goes on");
    for _ in 0..2 {
        let again = fixture.store().append(command.clone()).await.expect("it is known");
        assert!(again.repeated);
        assert_eq!((again.position, again.version), (first.position, first.version));
        assert_eq!(log(&*fixture.store()).await.len(), 3);
        fixture.restart().await;
    }
}

/// ES-5.
pub async fn es_5_concurrent_repeats_are_appended_once(fixture: impl Fixture) {
    let stream = stream("once");
    let mut command = request(&stream, Expected::NONE, &["1"]);
    command.command_digest = Some(Digest::of(b"content"));
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (store, command) = (fixture.store(), command.clone());
        callers.spawn(async move { store.append(command).await.expect("every caller gets the outcome") });
    }
    let outcomes = callers.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| !outcome.repeated).count(), 1);
    assert!(outcomes.iter().all(|outcome| outcome.position == Position(1)));
    assert_eq!(log(&*fixture.store()).await.len(), 1);
}

/// ES-5.
pub async fn es_5_the_same_command_with_other_content_is_refused(mut fixture: impl Fixture) {
    let stream = stream("once");
    let mut command = request(&stream, Expected::Any, &["1"]);
    command.command_digest = Some(Digest::of(b"content"));
    fixture.store().append(command.clone()).await.expect("it is appended");
    let mut other = command.clone();
    other.command_digest = Some(Digest::of(b"other content"));
    for _ in 0..2 {
        let refused = fixture.store().append(other.clone()).await;
        assert_eq!(refused, Err(AppendError::KeyConflict { command_id: command.command_id }));
        assert!(fixture.store().append(command.clone()).await.expect("it is known").repeated);
        fixture.restart().await;
    }
    assert_eq!(log(&*fixture.store()).await.len(), 1);
}

/// ES-5.
pub async fn es_5_a_refused_command_leaves_nothing(fixture: impl Fixture) {
    let store = fixture.store();
    let stream = stream("judged-anew");
    let mut command = request(&stream, Expected::Exact(Version(1)), &["2"]);
    command.command_digest = Some(Digest::of(b"content"));
    let refused = store.append(command.clone()).await;
    let (expected, actual) = (Version(1), Version(0));
    assert_eq!(refused, Err(AppendError::WrongVersion { stream: stream.clone(), expected, actual }));
    store.append(request(&stream, Expected::NONE, &["1"])).await.expect("it is appended");
    let appended = store.append(command).await.expect("it is judged anew");
    assert!(!appended.repeated);
    assert_eq!(appended.version, Version(2));
}

/// ES-6.
pub async fn es_6_a_reader_that_resumes_misses_and_repeats_nothing(fixture: impl Fixture) {
    const EVENTS: u64 = 8 * 30;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let store = fixture.store();
        writers.spawn(async move {
            let stream = stream(&format!("writer-{writer}"));
            for _ in 0..30 {
                store.append(request(&stream, Expected::Any, &["1"])).await.expect("it is appended");
            }
        });
    }
    let store = fixture.store();
    let mut seen = Vec::new();
    let mut cursor = Position(0);
    for limit in (1..=7).cycle() {
        let page = store.read(cursor, limit).await.expect("the log can be read");
        assert!(page.len() <= limit);
        cursor = page.last().map_or(cursor, |event| event.position);
        seen.extend(page.iter().map(|event| event.position.0));
        if cursor == Position(EVENTS) {
            break;
        }
        tokio::task::yield_now().await;
    }
    writers.join_all().await;
    assert_eq!(seen, (1..=EVENTS).collect::<Vec<_>>());
    assert_eq!(store.read(cursor, 10).await, Ok(Vec::new()));
}

/// ES-7.
pub async fn es_7_the_chain_verifies_and_a_changed_event_is_found(mut fixture: impl Fixture) {
    assert_eq!(chain::verify(&*fixture.store()).await, Ok(Head::EMPTY));
    for round in 0..3 {
        let stream = stream(&format!("s{round}"));
        let requests = (0..10).map(|_| request(&stream, Expected::Any, &[r#"{"text":"ü"}"#, "2"]));
        let appends = requests.map(|request| {
            let store = fixture.store();
            async move { store.append(request).await.expect("it is appended") }
        });
        JoinSet::from_iter(appends).join_all().await;
        fixture.restart().await;
    }
    let store = fixture.store();
    assert_eq!(chain::verify(&*store).await, Ok(store.head().await.expect("head")));

    let events = log(&*store).await;
    let verdict = |events: &[crate::Recorded]| {
        let mut verifier = Verifier::after(Head::EMPTY);
        events.iter().try_for_each(|event| verifier.check(event))
    };
    assert_eq!(verdict(&events), Ok(()));
    let position = events[41].position;
    let mut changed = events.clone();
    changed[41].payload = r#"{"text":"u"}"#.into();
    assert_eq!(verdict(&changed), Err(Broken::Hash { position }));
    let mut missing = events.clone();
    missing.remove(41);
    assert_eq!(verdict(&missing), Err(Broken::Gap { expected: position, found: position.next() }));
    let mut swapped = events;
    swapped[41].hash = swapped[40].hash;
    assert_eq!(verdict(&swapped), Err(Broken::Hash { position }));
}
