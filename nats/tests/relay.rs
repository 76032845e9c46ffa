//! The relay over a real server and over memory: every event once, in order, whatever happens on the way.

use std::sync::Arc;
use std::time::Duration;

use events::chain::Verifier;
use events::store::conformance::{log, request, stream};
use events::store::{Expected, Head, Memory};
use events::{EventStore, Position};
use hypercode_nats::relay::{Options, Relay, STREAM, State, Status};
use hypercode_nats::server::Server;
use hypercode_nats::{Bus, Nats, Streams, cloud_event};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> Options {
    Options { retry_ms: 50, look_ms: 200, in_flight_max: 64, ..Options::default() }
}

/// A relay that ends with this.
struct Running {
    status: watch::Receiver<Status>,
    _stop: DropGuard,
}

fn relay<B: Bus + Streams>(store: &Memory, bus: B) -> Running {
    let relay = Relay::new(Arc::new(store.clone()), bus, options());
    let (status, stop) = (relay.status(), CancellationToken::new());
    tokio::spawn(relay.run(stop.clone()));
    Running { status, _stop: stop.drop_guard() }
}

impl Running {
    async fn wait_for(&mut self, what: impl FnMut(&Status) -> bool) -> Status {
        let found = tokio::time::timeout(PATIENCE, self.status.wait_for(what)).await;
        let found = found.map(|status| status.expect("the relay runs").clone());
        found.unwrap_or_else(|_| panic!("the relay stands at {:?}", self.status.borrow()))
    }

    async fn at(&mut self, position: u64) {
        self.wait_for(|status| status.position.0 >= position && status.state == State::Following).await;
    }

    async fn refused(&mut self) -> String {
        let status = self.wait_for(|status| matches!(status.state, State::Refused { .. })).await;
        let State::Refused { reason } = status.state else { unreachable!("it was waited for") };
        reason.to_string()
    }
}

/// Appends so many events, in appends of three.
async fn append(store: &Memory, count: usize) {
    for n in 0..count / 3 {
        let stream = stream(&format!("s.{}", n % 5));
        store
            .append(request(&stream, Expected::Any, &["1", "{\"a\": 2}", "3"]))
            .await
            .expect("it is appended");
    }
}

/// The stream holds the log and nothing else, and its chain verifies.
async fn assert_same(store: &Memory, bus: &impl Streams) {
    let kept = bus.read(STREAM, 0, usize::MAX).await.expect("the stream can be read");
    let log = log(store).await;
    assert_eq!(kept.len(), log.len());
    let mut verifier = Verifier::after(Head::EMPTY);
    for ((number, message), event) in kept.iter().zip(&log) {
        let read = cloud_event::decode(message).expect("it is an event");
        assert_eq!((*number, &read), (event.position.0, event));
        verifier.check(&read).expect("the chain holds");
    }
}

async fn delete_stream(server: &Server) {
    let client = async_nats::connect(server.url()).await.expect("a connection");
    async_nats::jetstream::new(client).delete_stream(STREAM).await.expect("the stream goes");
}

#[tokio::test]
async fn the_log_is_published_and_followed() {
    let (server, store) = (Server::start(), Memory::new());
    append(&store, 300).await;
    let bus = Nats::connect(server.options());
    let mut relay = relay(&store, bus.clone());
    relay.at(300).await;
    append(&store, 30).await;
    relay.at(330).await;
    assert_same(&store, &bus).await;
    let first = &bus.read(STREAM, 0, 1).await.expect("it is there")[0].1;
    assert_eq!(first.headers.get("Nats-Msg-Id"), first.headers.get("ce-id"));
}

#[tokio::test]
async fn a_relay_goes_on_where_the_one_before_ended() {
    let (server, store) = (Server::start(), Memory::new());
    let bus = Nats::connect(server.options());
    append(&store, 30).await;
    relay(&store, bus.clone()).at(30).await;
    append(&store, 30).await;
    let mut second = relay(&store, bus.clone());
    second.at(60).await;
    assert_same(&store, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_is_filled_again() {
    let (server, store) = (Server::start(), Memory::new());
    let bus = Nats::connect(server.options());
    append(&store, 90).await;
    let mut relay = relay(&store, bus.clone());
    relay.at(90).await;
    // While nothing happens, and while something does.
    delete_stream(&server).await;
    relay.wait_for(|status| status.position.0 < 90).await;
    relay.at(90).await;
    delete_stream(&server).await;
    append(&store, 90).await;
    relay.wait_for(|status| status.position.0 < 90).await;
    relay.at(180).await;
    assert_same(&store, &bus).await;
}

#[tokio::test]
async fn a_stream_of_another_log_is_refused() {
    let (server, store, other) = (Server::start(), Memory::new(), Memory::new());
    let bus = Nats::connect(server.options());
    append(&store, 9).await;
    relay(&store, bus.clone()).at(9).await;

    append(&other, 6).await;
    let mut late = relay(&other, bus.clone());
    let reason = late.refused().await;
    assert!(reason.contains("it has 9 messages, and the log only 6 events"), "{reason}");
    append(&other, 60).await;
    late.wait_for(|status| match &status.state {
        State::Refused { reason } => reason.contains("message 9 is not the event"),
        _ => false,
    })
    .await;
    assert_same(&store, &bus).await;

    delete_stream(&server).await;
    late.at(66).await;
    assert_same(&other, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_and_repeats_nothing() {
    let (mut server, store) = (Server::start(), Memory::new());
    let bus = Nats::connect(server.options());
    let mut relay = relay(&store, bus.clone());
    let writing = {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                append(&store, 30).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    for round in 0..4 {
        relay.at(round * 250 + 100).await;
        server.kill();
        relay.wait_for(|status| matches!(status.state, State::Interrupted { .. })).await;
        if round == 2 {
            server.wipe();
        }
        server.resume();
    }
    writing.await.expect("it is written");
    relay.at(3_000).await;
    assert_same(&store, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_or_is_not_there_is_waited_for() {
    let (mut server, store) = (Server::start(), Memory::new());
    server.kill();
    let options = hypercode_nats::Options { ping_ms: 100, answer_ms: 500, ..server.options() };
    let bus = Nats::connect(options);
    let mut relay = relay(&store, bus.clone());
    append(&store, 30).await;
    let down = relay.wait_for(|status| matches!(status.state, State::Interrupted { .. })).await;
    assert_eq!(down.position, Position(0));
    server.resume();
    relay.at(30).await;

    server.pause();
    append(&store, 30).await;
    relay.wait_for(|status| matches!(status.state, State::Interrupted { .. })).await;
    server.unpause();
    relay.at(60).await;
    assert_same(&store, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_of_one_log_publish_each_event_once() {
    let (server, store) = (Server::start(), Memory::new());
    let (one, other) = (Nats::connect(server.options()), Nats::connect(server.options()));
    let (mut first, mut second) = (relay(&store, one.clone()), relay(&store, other));
    for _ in 0..20 {
        append(&store, 30).await;
        tokio::task::yield_now().await;
    }
    first.at(600).await;
    second.at(600).await;
    assert_same(&store, &one).await;
}

#[tokio::test(start_paused = true)]
async fn of_several_relays_one_publishes_and_the_others_stand_by_without_complaint() {
    let (bus, store) = (hypercode_nats::Memory::new(), Memory::new());
    let mut relays: Vec<_> = (0..3).map(|_| relay(&store, bus.clone())).collect();
    for relay in &mut relays {
        relay.at(0).await;
    }
    let complaints: Vec<_> = relays
        .iter()
        .map(|relay| {
            let mut status = relay.status.clone();
            tokio::spawn(async move {
                let complaint = status.wait_for(|status| status.state != State::Following).await;
                complaint.map(|status| status.state.clone()).ok()
            })
        })
        .collect();
    for round in 1..=40 {
        append(&store, 30).await;
        for relay in &mut relays {
            relay.at(round * 30).await;
        }
        // Whoever publishes may go; another one takes over.
        if round % 20 == 0 {
            relays.remove(0);
        }
    }
    drop(relays);
    for complaint in complaints {
        assert_eq!(complaint.await.expect("the watcher ends"), None);
    }
    assert_same(&store, &bus).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_behind_says_how_far_until_it_has_caught_up() {
    let (bus, store) = (hypercode_nats::Memory::new(), Memory::new());
    let mut relay = relay(&store, bus.clone());
    append(&store, 30).await;
    relay.at(30).await;
    // Filling the stream again takes half a minute.
    bus.slow_acks(1_000);
    bus.delete_stream(STREAM);
    let status = relay.wait_for(|status| matches!(status.state, State::Behind { .. })).await;
    assert_eq!(status.state, State::Behind { events: 30 - status.position.0 });
    bus.slow_acks(0);
    relay.at(30).await;
    assert_same(&store, &bus).await;
}

#[tokio::test]
async fn a_server_without_jetstream_says_what_is_missing() {
    let server = Server::with(|_| "jetstream: disabled".to_owned());
    let mut relay = relay(&Memory::new(), Nats::connect(server.options()));
    let status = relay.wait_for(|status| match &status.state {
        State::Interrupted { reason } => reason.to_lowercase().contains("jetstream"),
        _ => false,
    });
    status.await;
}

#[tokio::test(start_paused = true)]
async fn lost_acknowledgements_and_a_bus_that_is_cut_off_change_nothing() {
    let (bus, store) = (hypercode_nats::Memory::new(), Memory::new());
    let mut relay = relay(&store, bus.clone());
    for lost in 1..=5 {
        bus.lose_acks(lost);
        append(&store, 30).await;
        relay.at(u64::from(lost) * 30).await;
        bus.set_down(Some("cut off"));
        append(&store, 30).await;
        relay
            .wait_for(
                |status| matches!(&status.state, State::Interrupted { reason } if reason.contains("cut off")),
            )
            .await;
        bus.delete_stream(STREAM);
        bus.set_down(None);
    }
    relay.at(300).await;
    assert_same(&store, &bus).await;
}
