//! What is SQLite's own: the file, its owner, its limits, its damage; and the comparison with the reference.

mod model;

use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use tempfile::TempDir;

use super::lock::LOCK_FILE;
use super::{LOG_FILE, OpenError, Options, Sqlite};
use crate::chain::{self, Broken};
use crate::id::Position;
use crate::lease::{LeaseError, Leases, NodeState};
use crate::store::conformance::{Fixture, events_of, log, request, stream};
use crate::store::{AppendError, EventStore, Expected, PAYLOAD_BYTES_MAX, ReadError};

struct Fresh {
    directory: TempDir,
    options: Options,
    store: Sqlite,
}

impl Fresh {
    async fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Sqlite::open(&directory, options.clone()).await.expect("it opens");
        Self { directory, options, store }
    }

    /// Changes the file behind the store's back and opens it again.
    async fn tamper(&mut self, sql: &'static str) -> Result<(), OpenError> {
        self.store.close().await;
        execute(&self.directory, sql);
        self.store = Sqlite::open(&self.directory, self.options.clone()).await?;
        Ok(())
    }
}

fn execute(directory: &TempDir, sql: &str) {
    let connection = super::connection::writing(&directory.path().join(LOG_FILE)).expect("it connects");
    connection.execute_batch(sql).expect("it is executed");
}

/// Holds up every commit for as long as it is kept.
fn hold_up(directory: &TempDir) -> rusqlite::Connection {
    let connection = super::connection::writing(&directory.path().join(LOG_FILE)).expect("it connects");
    connection.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    connection
}

async fn append(store: &Sqlite, id: &str, payload: &str) -> Result<crate::Appended, AppendError> {
    store.append(request(&stream(id), Expected::Any, &[payload])).await
}

#[async_trait]
impl Fixture for Fresh {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::new(self.store.clone())
    }
    async fn restart(&mut self) {
        self.store.close().await;
        self.store = Sqlite::open(&self.directory, self.options.clone()).await.expect("it opens again");
    }
}

impl crate::lease::conformance::Fixture for Fresh {
    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.store.clone())
    }
}

mod leases {
    crate::lease_conformance!(super::Fresh::new(super::Options::default()));
}

mod by_default {
    crate::event_store_conformance!(super::Fresh::new(super::Options::default()));
}

/// With a cache that forgets everything, every judgement rests on what stands in the file.
mod without_a_memory {
    crate::event_store_conformance!(super::Fresh::new(super::Options {
        cached_keys_max: 0,
        batch_requests_max: 3,
        read_connections_max: 1,
        tail_events_max: 0,
        ..super::Options::default()
    }));
}

/// Long enough that no lease runs out during a test.
const LONG: std::time::Duration = std::time::Duration::from_secs(600);

#[tokio::test]
async fn nodes_of_long_ago_are_forgotten() {
    let mut fresh = Fresh::new(Options::default()).await;
    for node in ["long-gone", "gone"] {
        fresh.store.renew(node, &[], LONG).await.expect("it joins");
    }
    let file = fresh.directory.path().join(LOG_FILE);
    let db = rusqlite::Connection::open(file).expect("it opens");
    db.execute("UPDATE nodes SET seen_at = seen_at - 31 * 86400000000 WHERE id = 'long-gone'", [])
        .expect("set");
    db.execute("UPDATE nodes SET seen_at = seen_at - 29 * 86400000000 WHERE id = 'gone'", []).expect("set");
    Fixture::restart(&mut fresh).await;
    let nodes = fresh.store.table().await.expect("the table").nodes;
    assert_eq!(nodes.iter().map(|node| &*node.id).collect::<Vec<_>>(), ["gone"]);
}

#[tokio::test]
async fn whoever_opens_the_log_finds_no_lease_of_another() {
    let mut fresh = Fresh::new(Options::default()).await;
    fresh.store.renew("gone", &[], LONG).await.expect("it joins");
    let held = fresh.store.claim("gone", &[], 2, LONG).await.expect("shards are free");
    fresh.restart().await;
    let table = fresh.store.table().await.expect("the leases can be read");
    assert_eq!((table.nodes[0].state, table.held_by("gone")), (NodeState::Left, 0));
    let taken = fresh.store.claim("new", &[], 2, LONG).await.expect("they are free");
    assert!(
        taken.iter().zip(&held).all(|(now, then)| now.shard == then.shard && now.epoch == then.epoch + 1)
    );
}

#[tokio::test]
async fn a_directory_in_use_is_refused_with_its_holder() {
    let Fresh { directory, store, .. } = Fresh::new(Options::default()).await;
    let refused = Sqlite::open(&directory, Options::default()).await.expect_err("it is in use");
    assert!(matches!(refused, OpenError::InUse { pid, .. } if pid == Some(std::process::id())));
    let text = refused.to_string();
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    append(&store, "s", "1").await.expect("the holder is not disturbed");
    store.close().await;
    Sqlite::open(&directory, Options::default()).await.expect("it is free");
}

#[tokio::test]
async fn a_store_without_handles_gives_its_directory_back() {
    let Fresh { directory, store, .. } = Fresh::new(Options::default()).await;
    drop(store);
    let patience = std::time::Duration::from_secs(10);
    let reopened = tokio::time::timeout(patience, async {
        loop {
            match Sqlite::open(&directory, Options::default()).await {
                Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
                opened => break opened,
            }
        }
    });
    reopened.await.expect("it is given back in time").expect("it opens");
}

#[tokio::test]
async fn a_closed_store_refuses_and_keeps_what_was_taken_in() {
    let Fresh { directory, store, .. } = Fresh::new(Options::default()).await;
    let (_, ()) = tokio::join!(together(&store, 20), store.close());
    assert!(matches!(append(&store, "s", "1").await, Err(AppendError::Unavailable { .. })));
    assert!(matches!(store.claim("a", &[], 1, LONG).await, Err(LeaseError::Unavailable { .. })));
    assert!(matches!(store.head().await, Err(ReadError::Unavailable { .. })));
    let store = Sqlite::open(&directory, Options::default()).await.expect("it opens again");
    assert_eq!(log(&store).await.len(), 20);
}

/// The outcomes of `count` appends, each of which is taken in or refused before any is waited for.
async fn together(store: &Sqlite, count: usize) -> Vec<Result<crate::Appended, AppendError>> {
    let append = |_| (Box::pin(append(store, "s", "1")), None);
    let mut pending: Vec<_> = (0..count).map(append).collect();
    std::future::poll_fn(|context| {
        for (append, outcome) in pending.iter_mut().filter(|(_, outcome)| outcome.is_none()) {
            if let Poll::Ready(found) = append.as_mut().poll(context) {
                *outcome = Some(found);
            }
        }
        let all = pending.iter().all(|(_, outcome)| outcome.is_some());
        if all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, outcome)| outcome).collect()
}

#[tokio::test]
async fn a_full_intake_is_said_at_once_and_writes_nothing() {
    let options = Options { intake_requests_max: 2, batch_requests_max: 1, ..Options::default() };
    let Fresh { store, directory, .. } = Fresh::new(options).await;
    let others = hold_up(&directory);
    // Two wait; one more may be in the appender's hands, which takes it when it comes to that.
    let (outcomes, ()) = tokio::join!(together(&store, 4), async { drop(others) });
    assert!(outcomes[..2].iter().all(Result::is_ok));
    let refused = outcomes.iter().filter(|outcome| **outcome == Err(AppendError::Full)).count();
    let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(refused >= 1 && refused + written == 4, "{outcomes:?}");
    append(&store, "s", "4").await.expect("there is room again");
    assert_eq!(log(&store).await.len(), written + 1);
}

#[tokio::test]
async fn the_intake_is_bounded_in_bytes_too() {
    let options = Options { intake_bytes_max: 3 * PAYLOAD_BYTES_MAX / 2, ..Options::default() };
    let Fresh { store, directory, .. } = Fresh::new(options).await;
    let others = hold_up(&directory);
    let large = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2));
    let release = async { drop(others) };
    let (first, second, ()) = tokio::join!(append(&store, "s", &large), append(&store, "s", &large), release);
    assert!(first.is_ok());
    assert_eq!(second, Err(AppendError::Full));
    append(&store, "s", &large).await.expect("there is room again");
}

#[tokio::test]
async fn files_of_other_schemas_and_other_programs_are_refused() {
    let mut fresh = Fresh::new(Options::default()).await;
    let newer = fresh.tamper("PRAGMA user_version = 99").await.expect_err("it is newer");
    assert!(matches!(newer, OpenError::Newer { found: 99, .. }), "{newer}");
    execute(&fresh.directory, "PRAGMA user_version = 0");
    let older = Sqlite::open(&fresh.directory, Options::default()).await.expect_err("it is older");
    assert!(matches!(older, OpenError::Older { found: 0, .. }), "{older}");
    assert!(older.to_string().contains("hypercode migrate"));
    execute(&fresh.directory, "PRAGMA application_id = 1");
    let foreign = Sqlite::open(&fresh.directory, Options::default()).await.expect_err("it is foreign");
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
    assert_eq!(
        std::fs::read_to_string(fresh.directory.path().join(LOCK_FILE)).expect("a lock").lines().count(),
        1
    );
}

#[tokio::test]
async fn a_text_file_in_the_logs_place_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(LOG_FILE), "not a database, but long enough to be one".repeat(99))
        .expect("written");
    let refused = Sqlite::open(&directory, Options::default()).await.expect_err("it is no database");
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
}

#[tokio::test]
async fn migrating_makes_a_missing_log_and_leaves_a_current_one() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(Sqlite::migrate(&directory).await.expect("it is made"));
    assert!(!Sqlite::migrate(&directory).await.expect("it is current"));
    append(&Sqlite::open(&directory, Options::default()).await.expect("it opens"), "s", "1")
        .await
        .expect("appended");
}

#[tokio::test]
async fn a_full_file_appends_nothing_and_recovers() {
    let mut fresh = Fresh::new(Options { file_pages_max: 64, ..Options::default() }).await;
    let large = format!("\"{}\"", "x".repeat(32 * 1024));
    let mut appended = 0;
    let refused = loop {
        match append(&fresh.store, "s", &large).await {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(appended > 0);
    assert!(
        matches!(&refused, AppendError::Unavailable { reason } if reason.contains("disk is full")),
        "{refused}"
    );
    assert_eq!(log(&fresh.store).await.len(), appended, "nothing of the refused append is written");
    append(&fresh.store, "t", "1").await.expect("what is small still fits");

    fresh.options = Options::default();
    fresh.restart().await;
    append(&fresh.store, "s", &large).await.expect("there is room again");
    assert_eq!(log(&fresh.store).await.len(), appended + 2);
    chain::verify(&fresh.store).await.expect("the chain verifies");
}

#[tokio::test]
async fn changes_behind_the_stores_back_are_found_where_they_are() {
    let mut fresh = Fresh::new(Options::default()).await;
    for _ in 0..9 {
        append(&fresh.store, "s", r#"{"a":1}"#).await.expect("it is appended");
    }
    let changed = r#"UPDATE events SET payload = '{"a":2}' WHERE position = 5"#;
    fresh.tamper(changed).await.expect("it opens");
    assert_eq!(chain::verify(&fresh.store).await, Err(Broken::Hash { position: Position(5) }));
    fresh.tamper(r#"UPDATE events SET payload = '{"a":1}' WHERE position = 5"#).await.expect("it opens");
    assert!(chain::verify(&fresh.store).await.is_ok());
    fresh.tamper("UPDATE events SET event_id = x'00' WHERE position = 7").await.expect("it opens");
    let damaged = chain::verify(&fresh.store).await;
    assert!(
        matches!(damaged, Err(Broken::Read(ReadError::Damaged { position: Position(7), .. }))),
        "{damaged:?}"
    );
    fresh.tamper("DELETE FROM events WHERE position = 4").await.expect("it opens");
    let (expected, found) = (Position(4), Position(5));
    assert_eq!(fresh.store.read(Position(3), 1).await.map(|events| events[0].position), Ok(found),);
    fresh.tamper("DELETE FROM events WHERE position > 4 AND position < 9").await.expect("it opens");
    assert_eq!(chain::verify(&fresh.store).await, Err(Broken::Gap { expected, found: Position(9) }));
    let cut = fresh.tamper("DELETE FROM events WHERE position = 9").await.expect_err("the end is missing");
    assert!(matches!(cut, OpenError::Damaged { head: Position(9), last: Position(3), .. }), "{cut}");
}

/// A copy of the files while appends run is what a crash leaves; SQLite writes its log strictly forward here,
/// since no checkpoint comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_taken_under_load_opens_verifies_and_has_what_was_answered() {
    let Fresh { directory, store, .. } = Fresh::new(Options::default()).await;
    let mut writers = tokio::task::JoinSet::new();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for writer in 0..8 {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        writers.spawn(async move {
            for _ in 0..100 {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                append(&store, &format!("s{writer}"), "1").await.expect("it is appended");
            }
        });
    }
    for answered in [20, 60, 100] {
        store.watch().wait_for(|head| head.0 >= answered).await.expect("the store lives");
        let answered = *store.watch().borrow();
        let crashed = tempfile::tempdir().expect("a directory");
        for file in [LOG_FILE, "log.db-wal"] {
            std::fs::copy(directory.path().join(file), crashed.path().join(file)).expect("copied");
        }
        let store = Sqlite::open(&crashed, Options::default()).await.expect("it opens");
        let head = chain::verify(&store).await.expect("it verifies");
        assert!(head.position >= answered, "{} < {answered}", head.position);
        append(&store, "s0", "1").await.expect("it goes on");
        assert!(!events_of(&store, &stream("s0")).await.is_empty());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writers.join_all().await;
}

#[test]
fn migrations_have_twins_and_are_all_applied() {
    let names = |dialect: &str| {
        let directory = format!("{}/../migrations/{dialect}", env!("CARGO_MANIFEST_DIR"));
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .expect("the dialect has migrations")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a UTF-8 name"))
            .collect();
        names.sort();
        names
    };
    let sqlite = names("sqlite");
    // The audit's ledger is a file of the node's own, whatever database the log is in.
    let shared: Vec<_> = sqlite.iter().filter(|name| *name != "0003_audit.sql").cloned().collect();
    assert_eq!(shared, names("postgres"));
    for (number, name) in (1..).zip(&sqlite) {
        assert!(name.starts_with(&format!("{number:04}_")), "{name} is out of order");
    }
    let log = sqlite.iter().filter(|name| name.contains("_log")).count();
    assert_eq!(super::schema::MIGRATIONS.len(), log);
}
