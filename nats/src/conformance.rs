//! One suite that every bus passes: the laws B-1 to B-5, and what they mean for hard input.
//!
//! A bus instantiates it with [`bus_conformance!`](crate::bus_conformance), giving an expression that makes a
//! [`Fixture`] over an empty bus.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::bus::{BusError, Connection, StreamSpec, Streams};
use crate::{Bus, Message, Pattern, Subject};

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bus under test.
pub trait Fixture: Send + Sync {
    /// One connection to the bus.
    type Bus: Bus + Streams + Clone;
    /// The connection.
    fn bus(&self) -> Self::Bus;
}

/// Expands to one test per law, over the fixture that the expression makes.
#[macro_export]
macro_rules! bus_conformance {
    ($fixture:expr) => {
        $crate::bus_conformance! { $fixture;
            b_1_what_one_sender_sends_keeps_its_order,
            b_1_an_append_after_another_message_is_refused,
            b_1_what_was_sent_behind_a_failed_append_fails_too,
            b_2_what_was_acknowledged_is_in_the_stream,
            b_3_a_repeated_id_is_stored_once,
            b_4_a_reader_that_resumes_misses_and_repeats_nothing,
            the_newest_of_a_subject_is_found_behind_those_of_others,
            b_5_a_slow_subscriber_holds_up_nobody,
            a_request_is_answered_once_with_headers_and_body,
            a_request_that_nobody_hears_or_answers_fails,
            of_a_group_one_hears,
            patterns_select_and_hard_tokens_pass,
            a_subscription_that_is_dropped_hears_no_more,
        }
    };
    ($fixture:expr; $($law:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                $crate::conformance::$law(&$fixture).await;
            }
        )+
    };
}

/// Waits until the bus is there.
pub async fn up(bus: &impl Bus) {
    let mut connection = bus.connection();
    let up = tokio::time::timeout(PATIENCE, connection.wait_for(|now| *now == Connection::Up)).await;
    up.expect("the bus comes up in time").expect("the bus lives");
}

/// A stream that keeps what is sent below `kept`.
pub fn spec() -> StreamSpec {
    StreamSpec {
        name: "KEPT".into(),
        subjects: pattern("kept.>"),
        description: "a test".into(),
        replicas: 1,
        duplicate_ms: 60_000,
    }
}

/// A pattern.
pub fn pattern(text: &str) -> Pattern {
    text.parse().expect("a test's pattern is legal")
}

fn note(number: u64) -> Message {
    Message::new(Subject::of(["kept", "note"]), number.to_string()).with("Number", number.to_string())
}

async fn opened<F: Fixture>(fixture: &F) -> F::Bus {
    let bus = fixture.bus();
    up(&bus).await;
    let state = bus.open_stream(&spec()).await.expect("the stream is made");
    assert_eq!((state.last, state.message), (0, None));
    bus
}

async fn append(bus: &impl Streams, number: u64, id: &str, after: u64) -> Result<u64, BusError> {
    bus.append("KEPT", note(number), id, after).await?.await
}

async fn bodies(bus: &impl Streams, after: u64) -> Vec<(u64, String)> {
    let read = bus.read("KEPT", after, 10_000).await.expect("the stream can be read");
    let text = |message: Message| String::from_utf8(message.body.to_vec()).expect("text");
    read.into_iter().map(|(number, message)| (number, text(message))).collect()
}

async fn next(subscription: &mut crate::Subscription) -> Message {
    let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
    next.expect("a message comes in time").expect("the bus lives")
}

/// B-1.
pub async fn b_1_what_one_sender_sends_keeps_its_order(fixture: &impl Fixture) {
    let bus = opened(fixture).await;
    let mut heard = bus.subscribe(pattern("kept.*"), None).await.expect("it is subscribed");
    let mut acks = Vec::new();
    for number in 1..=500 {
        acks.push(
            bus.append("KEPT", note(number), &format!("id-{number}"), number - 1).await.expect("it is sent"),
        );
    }
    for (number, ack) in (1..).zip(acks) {
        assert_eq!(ack.await, Ok(number));
    }
    for number in 1..=500_u64 {
        assert_eq!(next(&mut heard).await.headers.get("Number"), Some(number.to_string().as_str()));
    }
    let expected: Vec<_> = (1..=500).map(|number: u64| (number, number.to_string())).collect();
    assert_eq!(bodies(&bus, 0).await, expected);
}

/// B-1.
pub async fn b_1_an_append_after_another_message_is_refused(fixture: &impl Fixture) {
    let bus = opened(fixture).await;
    assert_eq!(append(&bus, 1, "a", 0).await, Ok(1));
    for after in [0, 2, 9] {
        let refused = append(&bus, 2, "b", after).await;
        assert!(matches!(refused, Err(BusError::Moved { .. })), "{refused:?}");
    }
    assert_eq!(append(&bus, 2, "b", 1).await, Ok(2));
    let state = bus.open_stream(&spec()).await.expect("the stream is there");
    assert_eq!(state.last, 2);
    assert_eq!(state.message.expect("it is kept").headers.get("Number"), Some("2"));
}

/// B-1.
pub async fn b_1_what_was_sent_behind_a_failed_append_fails_too(fixture: &impl Fixture) {
    let bus = opened(fixture).await;
    let mut acks = Vec::new();
    for (number, after) in [(1, 0), (2, 7), (3, 2), (4, 3)] {
        acks.push(
            bus.append("KEPT", note(number), &format!("id-{number}"), after).await.expect("it is sent"),
        );
    }
    let mut outcomes = Vec::new();
    for ack in acks {
        outcomes.push(ack.await.is_ok());
    }
    assert_eq!(outcomes, [true, false, false, false]);
    assert_eq!(bodies(&bus, 0).await, [(1, "1".to_owned())]);
}

/// B-2.
pub async fn b_2_what_was_acknowledged_is_in_the_stream(fixture: &impl Fixture) {
    let bus = opened(fixture).await;
    let mut writers = JoinSet::new();
    for writer in 0..8_u64 {
        let bus = bus.clone();
        writers.spawn(async move {
            let mut kept = Vec::new();
            for number in 0..10 {
                let (number, mut after) = (writer * 100 + number, 0);
                let id = format!("id-{number}");
                // As in any store: who was overtaken looks where the stream stands, and tries again.
                let at = loop {
                    match append(&bus, number, &id, after).await {
                        Ok(at) => break at,
                        Err(BusError::Moved { .. }) => {
                            after = bus.open_stream(&spec()).await.expect("it is there").last;
                        }
                        Err(error) => panic!("{error}"),
                    }
                };
                kept.push((at, number.to_string()));
            }
            kept
        });
    }
    let mut acknowledged = writers.join_all().await.concat();
    acknowledged.sort_unstable();
    assert_eq!(bodies(&bus, 0).await, acknowledged);
}

/// B-3.
pub async fn b_3_a_repeated_id_is_stored_once(fixture: &impl Fixture) {
    let bus = opened(fixture).await;
    assert_eq!(append(&bus, 1, "one", 0).await, Ok(1));
    assert_eq!(append(&bus, 2, "two", 1).await, Ok(2));
    assert_eq!(append(&bus, 1, "one", 2).await, Ok(1), "a repetition is told where the first one lies");
    assert_eq!(append(&bus, 2, "two", 2).await, Ok(2));
    assert_eq!(append(&bus, 3, "three", 2).await, Ok(3));
    assert_eq!(bodies(&bus, 0).await.len(), 3);
}

/// B-4.
pub async fn b_4_a_reader_that_resumes_misses_and_repeats_nothing(fixture: &impl Fixture) {
    let bus = opened(fixture).await;
    let (mut seen, mut cursor) = (Vec::new(), 0);
    for number in 1..=20 {
        append(&bus, number, &format!("id-{number}"), number - 1).await.expect("it is kept");
        if number % 3 == 0 {
            for (at, _) in bus.read("KEPT", cursor, 2).await.expect("the stream can be read") {
                seen.push(at);
                cursor = at;
            }
        }
    }
    seen.extend(bodies(&bus, cursor).await.into_iter().map(|(at, _)| at));
    assert_eq!(seen, (1..=20).collect::<Vec<u64>>());
    assert_eq!(bodies(&bus, 20).await, []);
}

/// The newest message of a subject.
pub async fn the_newest_of_a_subject_is_found_behind_those_of_others(fixture: &impl Fixture) {
    let bus = opened(fixture).await;
    let subject = |name: &str| Subject::of(["kept", name]);
    let newest = async |name: &str| {
        let found = bus.newest("KEPT", &subject(name)).await.expect("the stream can be read");
        found.map(|message| message.body.to_vec())
    };
    assert_eq!(newest("one").await, None);
    for (after, (name, body)) in [("one", "1"), ("one", "2"), ("two", "3")].into_iter().enumerate() {
        let message = Message::new(subject(name), body);
        let sent = bus.append("KEPT", message, body, after as u64).await.expect("it is sent");
        sent.await.expect("it is kept");
    }
    assert_eq!(newest("one").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(newest("two").await.as_deref(), Some(&b"3"[..]));
    assert_eq!(newest("three").await, None);
}

/// B-5.
pub async fn b_5_a_slow_subscriber_holds_up_nobody(fixture: &impl Fixture) {
    const SENT: u64 = 10_000;
    let bus = fixture.bus();
    up(&bus).await;
    let mut slow = bus.subscribe(pattern("talk"), None).await.expect("it is subscribed");
    let mut quick = bus.subscribe(pattern("talk"), None).await.expect("it is subscribed");
    let heard = tokio::spawn(async move {
        let mut last = 0;
        while last < SENT {
            last = next(&mut quick).await.headers.get("Number").expect("a number").parse().expect("a number");
        }
    });
    let sent = async {
        for number in 1..=SENT {
            let message = Message::new(Subject::of(["talk"]), "").with("Number", number.to_string());
            bus.publish(message).await.expect("it is sent");
            // The quick one is quick, and yet no magician.
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, sent).await.expect("nobody holds up the sender");
    // What the quick one has lost as well would never come; the last ones are repeated until it has heard them.
    while !heard.is_finished() {
        let message = Message::new(Subject::of(["talk"]), "").with("Number", SENT.to_string());
        bus.publish(message).await.expect("it is sent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    heard.await.expect("the quick one has heard the last");
    assert_eq!(next(&mut slow).await.headers.get("Number"), Some("1"), "what fitted is there");
}

/// Requests are answered.
pub async fn a_request_is_answered_once_with_headers_and_body(fixture: &impl Fixture) {
    let bus = fixture.bus();
    up(&bus).await;
    let mut asked = bus.subscribe(pattern("ask.*"), None).await.expect("it is subscribed");
    let answering = bus.clone();
    tokio::spawn(async move {
        loop {
            let question = next(&mut asked).await;
            let answer = Message::new(question.reply.expect("an answer is waited for"), question.body)
                .with("Who", question.headers.get("WHO").expect("a header"));
            answering.publish(answer).await.expect("it is answered");
        }
    });
    for number in 0..3 {
        let question = Message::new(Subject::of(["ask", "me"]), vec![number; 40_000]).with("Who", "ünï: x");
        let answer = bus.request(question, PATIENCE).await.expect("an answer");
        assert_eq!((answer.headers.get("who"), answer.body.len()), (Some("ünï: x"), 40_000));
        assert!(answer.body.iter().all(|byte| *byte == number));
    }
}

/// Requests that lead nowhere end.
pub async fn a_request_that_nobody_hears_or_answers_fails(fixture: &impl Fixture) {
    let bus = fixture.bus();
    up(&bus).await;
    let question = Message::new(Subject::of(["ask"]), "");
    let unheard = bus.request(question.clone(), PATIENCE).await;
    assert!(matches!(unheard, Err(BusError::Unheard { .. })), "{unheard:?}");
    let _silent = bus.subscribe(pattern("ask"), None).await.expect("it is subscribed");
    let unanswered = bus.request(question, Duration::from_millis(100)).await;
    assert!(matches!(unanswered, Err(BusError::Timeout { ms: 100, .. })), "{unanswered:?}");
}

/// Groups share what comes.
pub async fn of_a_group_one_hears(fixture: &impl Fixture) {
    let bus = fixture.bus();
    up(&bus).await;
    let mut all = bus.subscribe(pattern("work"), None).await.expect("it is subscribed");
    let (count, mut counts) = tokio::sync::mpsc::unbounded_channel();
    for member in 0..3 {
        let mut work = bus.subscribe(pattern("work"), Some("crew")).await.expect("it is subscribed");
        let count = count.clone();
        tokio::spawn(async move {
            while let Some(message) = work.next().await {
                let number = message.headers.get("Number").expect("a number").to_owned();
                let _ = count.send((member, number));
            }
        });
    }
    for number in 0..60 {
        let message = Message::new(Subject::of(["work"]), "").with("Number", number.to_string());
        bus.publish(message).await.expect("it is sent");
        next(&mut all).await;
    }
    let mut heard = Vec::new();
    for _ in 0..60 {
        let next = tokio::time::timeout(PATIENCE, counts.recv()).await;
        heard.push(next.expect("a member hears it").expect("members live"));
    }
    let numbers: std::collections::BTreeSet<_> = heard.iter().map(|(_, number)| number).collect();
    let members: std::collections::BTreeSet<_> = heard.iter().map(|(member, _)| member).collect();
    assert_eq!((numbers.len(), members.len()), (60, 3));
}

/// Subjects of any text.
pub async fn patterns_select_and_hard_tokens_pass(fixture: &impl Fixture) {
    let bus = fixture.bus();
    up(&bus).await;
    let hard = ["a.b", "*", ">", "", "two words", "line\r\nbreak", "ünï", "%", "/"];
    let mut heard = bus.subscribe(pattern("x.*.z"), None).await.expect("it is subscribed");
    bus.publish(Message::new(Subject::of(["x", "z"]), "")).await.expect("it is sent");
    bus.publish(Message::new(Subject::of(["x", "y", "z", "z"]), "")).await.expect("it is sent");
    for token in hard {
        bus.publish(Message::new(Subject::of(["x", token, "z"]), "")).await.expect("it is sent");
    }
    for token in hard {
        let subject = next(&mut heard).await.subject;
        let heard: Vec<_> = subject.tokens().filter_map(crate::subject::decode).collect();
        assert_eq!(heard, ["x", token, "z"]);
    }
}

/// Subscriptions end.
pub async fn a_subscription_that_is_dropped_hears_no_more(fixture: &impl Fixture) {
    let bus = fixture.bus();
    up(&bus).await;
    let subscription = bus.subscribe(pattern("gone"), None).await.expect("it is subscribed");
    drop(subscription);
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let unheard = bus.request(Message::new(Subject::of(["gone"]), ""), Duration::from_millis(50)).await;
        if matches!(unheard, Err(BusError::Unheard { .. })) {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "somebody still listens");
    }
}
