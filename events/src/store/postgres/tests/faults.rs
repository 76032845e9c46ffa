//! Connections and servers that go away under load: the history of what was answered is held against the laws.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::id::CommandId;

/// What a writer was told of one of its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    At(Position),
    NotWritten,
    Unknown,
}

/// Writers that append until they are told to stop.
struct Load {
    store: Postgres,
    writers: JoinSet<Vec<(CommandId, Answer)>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(store: &Postgres) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..32 {
            writers.spawn(write(store.clone(), writer, Arc::clone(&stop)));
        }
        Self { store: store.clone(), writers, stop }
    }

    /// Until so many more events were appended: load that stands still would prove nothing.
    async fn go_on(&self, events: u64) {
        let mut head = self.store.watch();
        let wanted = head.borrow_and_update().0 + events;
        let reached = tokio::time::timeout(Duration::from_secs(60), head.wait_for(|head| head.0 >= wanted));
        reached.await.expect("the store goes on").expect("the store lives");
    }

    /// Stops, and holds what the writers were told against what stands in the log.
    async fn check(self) {
        self.stop.store(true, Ordering::Relaxed);
        let answers: Vec<_> = self.writers.join_all().await.into_iter().flatten().collect();
        chain::verify(&self.store).await.expect("ES-1, ES-7: the chain verifies");
        let events = log(&self.store).await;
        let mut ends: HashMap<CommandId, (usize, Position)> = HashMap::new();
        for event in &events {
            let end = ends.entry(event.command_id).or_insert((0, event.position));
            *end = (end.0 + 1, event.position);
        }
        let mut counts = [0; 3];
        for (command, answer) in &answers {
            let found = ends.get(command).copied();
            assert!(found.is_none_or(|(events, _)| events == 2), "ES-2: {command} is whole");
            match answer {
                Answer::At(position) => {
                    assert_eq!(found, Some((2, *position)), "ES-3, ES-5: {command} stands where it was said");
                    counts[0] += 1;
                }
                Answer::NotWritten => {
                    assert_eq!(found, None, "{command} was said not to be written");
                    counts[1] += 1;
                }
                Answer::Unknown => counts[2] += 1,
            }
        }
        println!("{} acknowledged, {} not written, {} unknown", counts[0], counts[1], counts[2]);
        assert!(counts[0] > 0);
    }
}

async fn write(store: Postgres, writer: usize, stop: Arc<AtomicBool>) -> Vec<(CommandId, Answer)> {
    let mut answers = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let request = request(&stream(&format!("s{}", writer % 8)), Expected::Any, &["1", "2"]);
        let command = request.command_id;
        let answer = match store.append(request).await {
            Ok(appended) => Answer::At(appended.position),
            Err(AppendError::Unknown { .. }) => Answer::Unknown,
            Err(AppendError::Unavailable { .. }) => {
                // Nobody hammers a store that is away.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Answer::NotWritten
            }
            Err(error) => panic!("{error}"),
        };
        answers.push((command, answer));
    }
    answers
}

/// Where backends end and the server stays, nobody is even told: what is lost is looked up and done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backends_that_are_terminated_under_load_lose_and_double_nothing() {
    let fresh = Fresh::new(Options::default()).await;
    let load = Load::start(&fresh.store);
    for _ in 0..30 {
        load.go_on(40).await;
        execute(
            &fresh.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    }
    load.go_on(40).await;
    load.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_stops_and_starts_under_load_loses_and_doubles_nothing() {
    let mut server = Server::of_its_own();
    let options = Options { resolve_ms: 500, ..Options::default() };
    let store = open(&server.database().await, &options).await;
    let load = Load::start(&store);
    for round in 0..4 {
        load.go_on(100).await;
        if round % 2 == 0 {
            server.stop()
        } else {
            server.kill()
        }
        // A backend whose server was killed still ends what it has in hand; then there is none.
        while append(&store, "s", "1").await.is_ok() {}
        server.start();
    }
    load.go_on(100).await;
    load.check().await;
    store.close().await;
}

/// ES-5: a batch whose answer was lost with the server is not answered before it is known what became of it, or it
/// is said that this is not known; then the command's id tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_doubt_that_outlasts_patience_is_said_and_can_be_asked_after() {
    let mut server = Server::of_its_own();
    let options = Options { resolve_ms: 1, ..Options::default() };
    let store = open(&server.database().await, &options).await;
    append(&store, "s", "1").await.expect("it is appended");
    let load = Load::start(&store);
    load.go_on(500).await;
    server.kill();
    server.start();
    load.go_on(100).await;
    load.check().await;
    store.close().await;
}

/// A node that is paused while it holds the head holds up nobody for long, and does nothing when it wakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_that_stands_idle_with_the_head_is_ended() {
    let fresh = Fresh::new(Options::default()).await;
    let settings = database(&fresh.url).settings(10_000);
    let mut paused = PgConnection::connect_with(&settings).await.expect("it connects");
    let mut tx = paused.begin().await.expect("it begins");
    sqlx::query(include_str!("../sql/lock_head.sql")).fetch_one(&mut *tx).await.expect("it is locked");
    append(&fresh.store, "s", "1").await.expect("the head comes free");
    let late = sqlx::query(include_str!("../sql/raise_fence.sql")).execute(&mut *tx).await;
    assert!(late.is_err(), "the transaction was ended");
}
