//! The audit over a real log: what was tampered with is named, and a fork is never signed.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::id::Position;
use crate::store::conformance::{request, stream};
use crate::store::{EventStore, Expected, Sqlite, sqlite};

const EVENTS: u64 = 700;

/// Closed logs are tampered with, as somebody does who owns the files.
pub(super) struct Desk {
    pub(super) dir: TempDir,
}

impl Desk {
    /// A log with checkpoints at 300, 600 and 700.
    pub(super) async fn new() -> Self {
        let desk = Self { dir: TempDir::new().expect("a directory") };
        let (store, tailer) = desk.open().await;
        for size in [300, 600, EVENTS] {
            desk.append_until(&store, size).await;
            assert_eq!(tailer.cut().await.expect("a checkpoint").checkpoint().size, size);
        }
        desk.close(store, tailer).await;
        desk
    }

    pub(super) async fn open(&self) -> (Sqlite, Tailer) {
        let dir = self.dir.path();
        let store = Sqlite::open(dir, sqlite::Options::default()).await.expect("a store");
        let ledger = Ledger::open(dir).await.expect("a ledger");
        let signer = Signer::open(&dir.join(KEY_FILE), "hypercode/test").expect("a key");
        let sink: Arc<dyn Sink> = Arc::new(AppendFile::new(dir.join("checkpoints")));
        let options = Options { checkpoint_events: 10_000, checkpoint_ms: 3_600_000, ..Options::default() };
        let tailer = Tailer::start(Arc::new(store.clone()), ledger, signer, vec![sink], options).await;
        (store, tailer.expect("a tailer"))
    }

    pub(super) async fn close(&self, store: Sqlite, tailer: Tailer) {
        tailer.close().await;
        store.close().await;
    }

    pub(super) async fn append_until(&self, store: &Sqlite, size: u64) {
        loop {
            let head = store.head().await.expect("head").position.0;
            let payloads: Vec<String> =
                (head..size.min(head + 50)).map(|n| format!(r#"{{"number":{n}}}"#)).collect();
            if payloads.is_empty() {
                break;
            }
            let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
            let stream = stream(&(head % 7).to_string());
            store.append(request(&stream, Expected::Any, &payloads)).await.expect("appended");
        }
    }

    async fn sql(&self, file: &str, sql: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.dir.path().join(file));
        let mut db = SqliteConnection::connect_with(&options).await.expect("a database");
        sqlx::raw_sql(sql).execute(&mut db).await.expect("tampered");
        db.close().await.expect("closed");
    }

    /// Verifies log and ledger, and the file of checkpoints beside them.
    async fn verify(&self) -> Report {
        let dir = self.dir.path();
        let store = sqlite::ReadOnly::open(dir, &sqlite::Options::default()).await.expect("a log");
        let ledger = Ledger::read(dir).await.expect("a ledger");
        let (mut evidence, mut trust) = Local::new(Arc::new(store.clone()), ledger).await.expect("evidence");
        let file = std::fs::read_to_string(dir.join("checkpoints")).expect("the file");
        trust.hold_to("in the file", notes(&file));
        let report = verify(trust, &mut evidence, |_| ()).await.expect("readable");
        store.close().await;
        report
    }

    async fn faults(&self) -> Vec<(FaultKind, u64, u64)> {
        let report = self.verify().await;
        assert_eq!(report.ok, report.faults.is_empty());
        report.faults.iter().map(|fault| (fault.kind, fault.position, fault.until)).collect()
    }
}

#[tokio::test]
async fn a_whole_log_verifies() {
    let report = Desk::new().await.verify().await;
    assert!(report.ok, "{report:#?}");
    assert_eq!((report.first, report.last, report.covered), (1, EVENTS, EVENTS));
    assert_eq!((report.checkpoints, report.tiles, report.keys.len()), (6, 4, 1));
}

/// What is done to the log's file or the ledger's, and the fault that must come first.
const TAMPERINGS: &[(&str, &str, FaultKind, u64)] = &[
    (
        "flip a payload",
        "UPDATE events SET payload = replace(payload, '4', '5') WHERE position = 435",
        FaultKind::EventChanged,
        435,
    ),
    ("flip who did it", "UPDATE events SET principal = 'user:x' WHERE position = 1", FaultKind::EventChanged, 1),
    (
        "flip a hash",
        "UPDATE events SET hash = randomblob(32) WHERE position = 650",
        FaultKind::EventChanged,
        650,
    ),
    ("damage a stream's name", "UPDATE events SET stream = 'x' WHERE position = 77", FaultKind::EventDamaged, 77),
    ("delete", "DELETE FROM events WHERE position = 500", FaultKind::EventMissing, 500),
    (
        "insert",
        "INSERT INTO events SELECT 701, stream, 9999, kind, schema, randomblob(16), randomblob(16), ordinal, tenant,
             principal, correlation_id, causation_id, traceparent, recorded_at, epoch, payload, hash
         FROM events WHERE position = 700",
        FaultKind::EventChanged,
        701,
    ),
    (
        "reorder",
        "UPDATE events SET position = 9000 WHERE position = 20;
         UPDATE events SET position = 20 WHERE position = 21;
         UPDATE events SET position = 21 WHERE position = 9000",
        FaultKind::EventChanged,
        20,
    ),
    (
        "insert before the first",
        "DROP TRIGGER events_count_from_one;
         INSERT INTO events SELECT 0, stream, 9999, kind, schema, randomblob(16), randomblob(16), ordinal, tenant,
             principal, correlation_id, causation_id, traceparent, recorded_at, epoch, payload, hash
         FROM events WHERE position = 700",
        FaultKind::EventDamaged,
        0,
    ),
    (
        "insert far before the first",
        "DROP TRIGGER events_count_from_one;
         INSERT INTO events SELECT -7, stream, 9999, kind, schema, randomblob(16), randomblob(16), ordinal, tenant,
             principal, correlation_id, causation_id, traceparent, recorded_at, epoch, payload, hash
         FROM events WHERE position = 700",
        FaultKind::EventDamaged,
        0,
    ),
    (
        "truncate",
        "DELETE FROM events WHERE position > 640;
         UPDATE head SET position = 640, hash = (SELECT hash FROM events WHERE position = 640)",
        FaultKind::LogTruncated,
        641,
    ),
];

#[tokio::test]
async fn es_7_what_was_done_to_the_log_is_named() {
    for (name, sql, kind, position) in TAMPERINGS {
        let desk = Desk::new().await;
        desk.sql(sqlite::LOG_FILE, sql).await;
        let faults = desk.faults().await;
        assert_eq!(
            faults.first().map(|fault| (fault.0, fault.1)),
            Some((*kind, *position)),
            "{name}: {faults:?}"
        );
    }
}

/// Whoever chains an event anew still has to say where in its stream it stands.
#[tokio::test]
async fn an_event_that_does_not_follow_in_its_stream_is_named() {
    let desk = Desk::new().await;
    let dir = desk.dir.path();
    let store = sqlite::ReadOnly::open(dir, &sqlite::Options::default()).await.expect("a log");
    let mut last = store.read(Position(EVENTS - 2), 2).await.expect("read");
    store.close().await;
    let (mut forged, before) = (last.remove(1), last.remove(0));
    forged.version = crate::id::Version(9_999);
    let hash = crate::chain::hash(before.hash, &forged);
    let sql = format!(
        "UPDATE events SET version = 9999, hash = x'{hash}' WHERE position = 700; UPDATE head SET hash = x'{hash}'"
    );
    desk.sql(sqlite::LOG_FILE, sql.leak()).await;
    let faults = desk.faults().await;
    assert_eq!(faults.first(), Some(&(FaultKind::EventMisplaced, EVENTS, EVENTS)), "{faults:?}");
}

/// A log into which an event was put before its first is not worked with.
#[tokio::test]
async fn an_event_before_the_first_is_neither_taken_nor_read_nor_opened() {
    let desk = Desk::new().await;
    let insert =
        "INSERT INTO events SELECT -7, stream, 9999, kind, schema, randomblob(16), randomblob(16), ordinal,
            tenant, principal, correlation_id, causation_id, traceparent, recorded_at, epoch, payload, hash
        FROM events WHERE position = 700";
    let options = SqliteConnectOptions::new().filename(desk.dir.path().join(sqlite::LOG_FILE));
    let mut db = SqliteConnection::connect_with(&options).await.expect("a database");
    let refused = sqlx::raw_sql(insert).execute(&mut db).await.expect_err("a trigger stands before it");
    assert!(refused.to_string().contains("count from 1"), "{refused}");
    sqlx::raw_sql("DROP TRIGGER events_count_from_one").execute(&mut db).await.expect("dropped");
    sqlx::raw_sql(insert).execute(&mut db).await.expect("inserted");
    db.close().await.expect("closed");

    let store = sqlite::ReadOnly::open(desk.dir.path(), &sqlite::Options::default()).await.expect("a log");
    let of = store.read(Position(EVENTS - 1), 1).await.expect("read").remove(0);
    let read = store.read_stream(&of.stream, of.version, 10).await;
    let is_damaged = |read: &Result<Vec<_>, _>| {
        matches!(read, Err(crate::store::ReadError::Damaged { position: Position(0), .. }))
    };
    assert!(is_damaged(&read), "{read:?}");
    let read = store.read(Position(0), 10).await;
    assert!(is_damaged(&read), "{read:?}");
    store.close().await;
    let opened = Sqlite::open(desk.dir.path(), sqlite::Options::default()).await.expect_err("it is refused");
    assert!(matches!(opened, sqlite::OpenError::Misplaced { found: -7, .. }), "{opened}");
    // What else was done is named, as the refusal promises.
    let before = (FaultKind::EventDamaged, 0, 0);
    assert_eq!(desk.faults().await, [before]);
    let change = "UPDATE events SET payload = replace(payload, '4', '5') WHERE position = 435;
                  DELETE FROM events WHERE position = 650";
    desk.sql(sqlite::LOG_FILE, change).await;
    let faults = desk.faults().await;
    let (changed, missing) = ((FaultKind::EventChanged, 435, 435), (FaultKind::EventMissing, 650, 650));
    assert_eq!(faults, [before, changed, missing]);
}

#[tokio::test]
async fn what_was_done_to_the_tree_is_named() {
    let leaf = "UPDATE tiles SET hashes = CAST(substr(hashes, 1, 320) || randomblob(32) || substr(hashes, 353) AS BLOB)
                WHERE level = 0 AND number = 1";
    let cases: &[(&str, (FaultKind, u64, u64))] = &[
        (leaf, (FaultKind::TileChanged, 267, 267)),
        ("DELETE FROM tiles WHERE level = 0 AND number = 1", (FaultKind::TileMissing, 257, 512)),
        (
            "UPDATE tiles SET hashes = substr(hashes, 1, 32) WHERE level = 1",
            (FaultKind::TileChanged, 257, 512),
        ),
        (
            "UPDATE tiles SET number = number + 10; UPDATE tiles SET number = 1 WHERE number = 10 AND level = 0;
             UPDATE tiles SET number = 0 WHERE number = 11 AND level = 0;
             UPDATE tiles SET number = number - 10 WHERE number >= 10",
            (FaultKind::TileChanged, 1, 1),
        ),
        (
            "UPDATE tiles SET hashes = CAST(hashes || randomblob(32) AS BLOB) WHERE level = 0 AND number = 2",
            (FaultKind::TileChanged, 701, 701),
        ),
        (
            "UPDATE tiles SET hashes = CAST(hashes || randomblob(32) AS BLOB) WHERE level = 0 AND number = 0",
            (FaultKind::TileChanged, 257, 257),
        ),
        (
            "UPDATE tiles SET hashes = CAST(hashes || randomblob(7) AS BLOB) WHERE level = 0 AND number = 2",
            (FaultKind::TileChanged, 701, 701),
        ),
        ("INSERT INTO tiles VALUES (0, 3, randomblob(64))", (FaultKind::TileChanged, 769, 769)),
        ("INSERT INTO tiles VALUES (2, 0, randomblob(64))", (FaultKind::TileChanged, 1, 1)),
        ("INSERT INTO tiles VALUES (40, -1, randomblob(64))", (FaultKind::TileChanged, 0, 0)),
    ];
    for (sql, expected) in cases {
        let desk = Desk::new().await;
        desk.sql(LEDGER_FILE, sql).await;
        let faults = desk.faults().await;
        assert_eq!(faults.first(), Some(expected), "{sql}: {faults:?}");
    }
}

/// A platform that runs goes on signing while its log is verified.
#[tokio::test]
async fn what_is_signed_meanwhile_is_no_fault() {
    let desk = Desk::new().await;
    let (store, tailer) = desk.open().await;
    let ledger = tailer.ledger().clone();
    let (mut evidence, trust) = Local::new(Arc::new(store.clone()), Some(ledger)).await.expect("evidence");
    desk.append_until(&store, EVENTS + 30).await;
    tailer.cut().await.expect("a checkpoint");
    let report = verify(trust, &mut evidence, |_| ()).await.expect("readable");
    assert!(report.ok, "{report:#?}");
    desk.close(store, tailer).await;
}

#[tokio::test]
async fn what_was_done_to_checkpoints_is_named() {
    let cases: &[(&str, (FaultKind, u64, u64))] = &[
        (
            "UPDATE checkpoints SET note = substr(note, 1, length(note) - 6) || 'AAAA=' || char(10) WHERE size = 600",
            (FaultKind::CheckpointForged, 600, 600),
        ),
        (
            "UPDATE checkpoints SET note = replace(note, char(10) || '600' || char(10), char(10) || '601' || char(10))",
            (FaultKind::CheckpointMalformed, 600, 600),
        ),
        (
            "UPDATE checkpoints SET note = 'x' || note WHERE size = 600",
            (FaultKind::CheckpointForeign, 600, 600),
        ),
        ("UPDATE checkpoints SET note = 'x' WHERE size = 600", (FaultKind::CheckpointMalformed, 600, 600)),
        ("DELETE FROM checkpoints WHERE size = 600", (FaultKind::CheckpointMissing, 600, 600)),
        // What the tree has beyond the newest that is left was signed by nobody.
        ("DELETE FROM checkpoints WHERE size = 700", (FaultKind::TileChanged, 601, 601)),
        ("DELETE FROM checkpoints", (FaultKind::TileChanged, 1, 1)),
        (
            "UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 300) WHERE size = 600",
            (FaultKind::CheckpointMalformed, 600, 600),
        ),
    ];
    for (sql, expected) in cases {
        let desk = Desk::new().await;
        desk.sql(LEDGER_FILE, sql).await;
        let faults = desk.faults().await;
        assert_eq!(faults.first(), Some(expected), "{sql}: {faults:?}");
    }
}

/// Faults of checkpoints, however many, leave room for those of events.
#[tokio::test]
async fn what_was_done_to_events_is_named_among_any_number_of_faults() {
    let desk = Desk::new().await;
    desk.sql(sqlite::LOG_FILE, "UPDATE events SET principal = 'user:x' WHERE position = 77").await;
    let store = sqlite::ReadOnly::open(desk.dir.path(), &sqlite::Options::default()).await.expect("a log");
    let (mut evidence, mut trust) = Local::new(Arc::new(store), None).await.expect("evidence");
    trust.hold_to("in a file", notes(&"x\n\n— y z\n\n".repeat(1_000)));
    let report = verify(trust, &mut evidence, |_| ()).await.expect("readable");
    let first = report.faults.first().map(|fault| (fault.kind, fault.position));
    assert_eq!(first, Some((FaultKind::EventChanged, 77)), "{:?}", report.faults.first());
}

/// What a place has that was given every checkpoint, and what it should have.
#[test]
fn a_place_lacks_what_it_was_given_and_has_it_in_order() {
    let found = |given: u64, there: &[u64]| -> Vec<(FaultKind, u64)> {
        let signer = Signer::generate("o");
        let note =
            |size| Ok(signer.sign(&Checkpoint { origin: "o".into(), size, root: crate::id::Digest::ZERO }));
        let kept = |size| Kept { place: "in the ledger".into(), size, note: note(size) };
        let mut trust = Trust { checkpoints: [3, 5, 9].map(kept).into(), ..Trust::default() };
        trust.must_have("there", given, there);
        trust.found.iter().map(|fault| (fault.kind, fault.position)).collect()
    };
    let (missing, misplaced) = (FaultKind::CheckpointMissing, FaultKind::CheckpointMisplaced);
    assert_eq!(found(9, &[3, 5, 9]), []);
    assert_eq!(found(5, &[3, 5]), [], "what it was not given yet it need not have");
    assert_eq!(found(9, &[3, 9]), [(missing, 5)]);
    assert_eq!(found(9, &[3, 5]), [(missing, 9)]);
    assert_eq!(found(9, &[]), [(missing, 3), (missing, 5), (missing, 9)]);
    assert_eq!(found(0, &[]), [], "it was added later");
    assert_eq!(found(9, &[5, 3, 9]), [(misplaced, 3)]);
    let newest = |given: u64, there: &[u64]| -> Vec<(FaultKind, u64)> {
        let mut trust = Trust::default();
        trust.must_have_newest("there", given, there);
        trust.found.iter().map(|fault| (fault.kind, fault.position)).collect()
    };
    assert_eq!((newest(0, &[]), newest(9, &[3, 9]), newest(5, &[9])), (vec![], vec![], vec![]));
    assert_eq!((newest(9, &[]), newest(9, &[3, 5])), (vec![(missing, 9)], vec![(missing, 9)]));
    assert_eq!(found(9, &[3, 5, 9, 3, 5, 9]), [(misplaced, 3)]);
}

/// Whoever owns database and key can make all anew and consistent, but not what was given away.
#[tokio::test]
async fn a_log_that_was_made_anew_does_not_fit_what_was_given_away() {
    let desk = Desk::new().await;
    let given_away = std::fs::read_to_string(desk.dir.path().join("checkpoints")).expect("the file");
    let key = std::fs::read(desk.dir.path().join(KEY_FILE)).expect("the key");
    let other = Desk { dir: TempDir::new().expect("a directory") };
    std::fs::write(other.dir.path().join(KEY_FILE), key).expect("the key");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(other.dir.path().join(KEY_FILE), mode).expect("its mode");
    let (store, tailer) = other.open().await;
    other.append_until(&store, EVENTS + 100).await;
    tailer.cut().await.expect("a checkpoint");
    other.close(store, tailer).await;
    assert!(other.verify().await.ok, "it fits itself");
    std::fs::write(other.dir.path().join("checkpoints"), given_away).expect("the file");
    assert!(other.faults().await.contains(&(FaultKind::LogRewritten, 1, 300)), "{:?}", other.faults().await);
}

#[tokio::test]
async fn a_fork_is_never_signed() {
    let cases: &[(&str, &str, Fork)] = &[
        (
            sqlite::LOG_FILE,
            "DELETE FROM events WHERE position > 640;
             UPDATE head SET position = 640, hash = (SELECT hash FROM events WHERE position = 640)",
            Fork::Shorter { signed: EVENTS, found: 640 },
        ),
        (
            sqlite::LOG_FILE,
            "UPDATE events SET hash = zeroblob(32) WHERE position = 700; UPDATE head SET hash = zeroblob(32)",
            Fork::Other { position: Position(EVENTS) },
        ),
        (
            LEDGER_FILE,
            "UPDATE tiles SET hashes = randomblob(length(hashes)) WHERE level = 1",
            Fork::Tree { signed: EVENTS },
        ),
        (LEDGER_FILE, "UPDATE checkpoints SET note = 'x' WHERE size = 700", Fork::Signature { size: EVENTS }),
    ];
    for (file, sql, fork) in cases {
        let desk = Desk::new().await;
        desk.sql(file, sql).await;
        let (store, tailer) = desk.open().await;
        assert_eq!(tailer.standing().refused, Some(fork.to_string()));
        assert_eq!(tailer.cut().await, Err(CutError::Fork(fork.clone())), "{sql}");
        desk.append_until(&store, EVENTS + 5).await;
        desk.close(store, tailer).await;
        // What was left is signed at the end, if anything is.
        let ledger = Ledger::read(desk.dir.path()).await.expect("a ledger").expect("it is there");
        assert_eq!(ledger.newest().await.expect("the ledger").expect("an entry").size, EVENTS);
    }
}

#[tokio::test]
async fn the_tailer_goes_on_after_a_restart_and_each_event_is_proven() {
    let desk = Desk::new().await;
    let (store, tailer) = desk.open().await;
    desk.append_until(&store, 1_030).await;
    let note = tailer.cut().await.expect("a checkpoint");
    assert_eq!(note.checkpoint().size, 1_030);
    assert_eq!(tailer.cut().await.expect("the same"), note, "nothing new, nothing signed");
    for position in [1, 2, 256, 257, 700, 701, 1_024, 1_030] {
        let proof =
            Local::prove(&store, tailer.ledger(), Position(position), note.clone()).await.expect("a proof");
        let read = Proof::parse(&proof.text()).expect("its own text");
        assert_eq!(read, proof);
        assert_eq!(read.check(&[tailer.key().clone()]).expect("proven").size, 1_030);
        let mut changed = read.clone();
        changed.event.meta.principal = crate::Principal::user("mallory");
        assert_eq!(changed.check(&[tailer.key().clone()]), Err(ProofError::Changed { position }));
        let mut moved = read.clone();
        moved.hashes.rotate_left(1);
        assert_eq!(moved.check(&[tailer.key().clone()]), Err(ProofError::NotIncluded { position }));
        let stranger = Signer::generate("hypercode/test");
        assert_eq!(read.check(&[stranger.public().clone()]), Err(ProofError::Unsigned { size: 1_030 }));
    }
    let missing = Local::prove(&store, tailer.ledger(), Position(1_031), note).await;
    assert!(missing.is_err_and(|problem| problem.kind == crate::api::ProblemKind::NotFound));
    desk.close(store, tailer).await;
    assert!(desk.verify().await.ok);
}

/// What would not be believed is not given away.
#[tokio::test]
async fn what_was_changed_is_not_proven() {
    let cases = [
        (
            sqlite::LOG_FILE,
            "UPDATE events SET principal = 'user:x' WHERE position = 435",
            "does not match its hash",
        ),
        (
            LEDGER_FILE,
            "UPDATE tiles SET hashes = CAST(randomblob(32) || substr(hashes, 33) AS BLOB) WHERE level = 0 AND number = 1",
            "do not lead from the event",
        ),
    ];
    for (file, sql, expected) in cases {
        let desk = Desk::new().await;
        desk.sql(file, sql).await;
        let dir = desk.dir.path();
        let store = sqlite::ReadOnly::open(dir, &sqlite::Options::default()).await.expect("a log");
        let ledger = Ledger::read(dir).await.expect("readable").expect("a ledger");
        let newest = ledger.newest().await.expect("readable").expect("a checkpoint");
        let note = Note::parse(&newest.note).expect("a note");
        let refused = Local::prove(&store, &ledger, Position(435), note).await.expect_err("it is no proof");
        assert_eq!(refused.kind, crate::api::ProblemKind::Failed);
        assert!(refused.detail.contains(expected) && refused.detail.contains("audit verify"), "{refused:?}");
    }
}

/// A log that goes on has events that are not signed yet. Who names a key wants something that it has signed.
#[tokio::test]
async fn what_is_not_signed_is_said_and_nothing_signed_is_a_fault_for_who_names_a_key() {
    let desk = Desk::new().await;
    let (store, tailer) = desk.open().await;
    desk.append_until(&store, EVENTS + 30).await;
    let key = tailer.key().clone();
    let verified = async |ledger: Option<Ledger>, keys: Option<Vec<PublicKey>>| {
        let (mut evidence, mut trust) = Local::new(Arc::new(store.clone()), ledger).await.expect("evidence");
        keys.into_iter().for_each(|keys| trust.pin(keys));
        verify(trust, &mut evidence, |_| ()).await.expect("readable")
    };
    let ledger = Some(tailer.ledger().clone());
    let report = verified(ledger, Some(vec![key.clone()])).await;
    assert!(report.ok && (report.covered, report.last) == (EVENTS, EVENTS + 30), "{report:#?}");
    let report = verified(None, None).await;
    assert!(report.ok && report.checkpoints == 0, "{report:#?}");
    let report = verified(None, Some(vec![key])).await;
    let found: Vec<_> = report.faults.iter().map(|it| (it.kind, it.position, it.until)).collect();
    assert_eq!(found, [(FaultKind::LogUnsigned, 1, EVENTS + 30)]);
    desk.close(store, tailer).await;
}

/// Nodes that share a log sign it each under a name of its own.
#[tokio::test]
async fn a_log_is_held_to_what_every_known_key_has_signed() {
    let desk = Desk::new().await;
    let store = sqlite::ReadOnly::open(desk.dir.path(), &sqlite::Options::default()).await.expect("a log");
    let signers = ["one", "two"].map(Signer::generate);
    let root = |events: &[crate::Recorded]| {
        let mut range = Range::default();
        events.iter().for_each(|event| range.push(event.hash));
        range.root()
    };
    let events = store.read(Position(0), 500).await.expect("read");
    let sign = |signer: &Signer, root| {
        let origin = signer.origin().to_owned();
        signer.sign(&Checkpoint { origin, size: 500, root })
    };
    let held = async |signed: Vec<Note>, keys: Vec<PublicKey>| {
        let (mut evidence, mut trust) = Local::new(Arc::new(store.clone()), None).await.expect("evidence");
        trust.hold_to_others("in a table", signed.into_iter().map(|note| (500, Ok(note))).collect());
        trust.pin(keys);
        let report = verify(trust, &mut evidence, |_| ()).await.expect("readable");
        let kinds: Vec<FaultKind> = report.faults.iter().map(|fault| fault.kind).collect();
        (report.checkpoints, kinds)
    };
    let keys = || signers.iter().map(|signer| signer.public().clone()).collect::<Vec<_>>();
    let [one, two] = &signers;
    let good = root(&events);
    assert_eq!(held(vec![sign(one, good), sign(two, good)], keys()).await, (2, vec![]));
    let other = sign(two, crate::id::Digest::of(b"another"));
    assert_eq!(held(vec![sign(one, good), other], keys()).await, (1, vec![FaultKind::LogRewritten]));
    let foreign = held(vec![sign(one, good)], vec![two.public().clone()]).await;
    assert_eq!(foreign, (0, vec![FaultKind::CheckpointForeign, FaultKind::LogUnsigned]));
}

/// Both have the same position: what differs is named.
#[tokio::test]
async fn a_head_of_another_hash_is_named_by_the_hashes() {
    let desk = Desk::new().await;
    desk.sql(sqlite::LOG_FILE, "UPDATE head SET hash = zeroblob(32)").await;
    let report = desk.verify().await;
    let detail = &report.faults.first().expect("a fault").detail;
    assert!(detail.contains(&"0".repeat(64)) && detail.contains(&report.hash.to_string()), "{detail}");
}

/// As SQLite does it when its disk is full: it ends the transaction by itself.
#[tokio::test]
async fn what_could_not_be_signed_for_want_of_room_is_signed_when_there_is_room() {
    let desk = Desk::new().await;
    let (store, tailer) = desk.open().await;
    desk.append_until(&store, EVENTS + 5).await;
    let fill =
        "CREATE TRIGGER full BEFORE INSERT ON checkpoints BEGIN SELECT RAISE(ROLLBACK, 'no room'); END";
    desk.sql(LEDGER_FILE, fill).await;
    for _ in 0..2 {
        let error = tailer.cut().await.expect_err("there is no room");
        assert!(error.to_string().contains("no room"), "{error}");
    }
    let told = async |delayed: bool| {
        let differs = || tailer.standing().delayed.is_some_and(|why| why.contains("no room")) != delayed;
        while differs() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let bound = Duration::from_secs(30);
    tokio::time::timeout(bound, told(true)).await.expect("it says why nothing is signed");
    desk.sql(LEDGER_FILE, "DROP TRIGGER full").await;
    assert_eq!(tailer.cut().await.expect("a checkpoint").checkpoint().size, EVENTS + 5);
    tokio::time::timeout(bound, told(false)).await.expect("it says so no more");
    desk.close(store, tailer).await;
    assert!(desk.verify().await.ok);
}

#[tokio::test]
async fn checkpoints_are_cut_by_count_and_by_time_but_not_for_nothing() {
    let dir = TempDir::new().expect("a directory");
    let store = crate::store::Memory::new();
    let ledger = Ledger::open(dir.path()).await.expect("a ledger");
    let options = Options { checkpoint_events: 10, checkpoint_ms: 50, ..Options::default() };
    let signer = Signer::generate("hypercode/test");
    let tailer = Tailer::start(Arc::new(store.clone()), ledger.clone(), signer, Vec::new(), options).await;
    let tailer = tailer.expect("a tailer");
    assert_eq!(tailer.cut().await, Err(CutError::Empty));
    store.append(request(&stream("s"), Expected::Any, &["1"; 25])).await.expect("appended");
    let sizes = async || -> Vec<u64> {
        ledger.checkpoints(0, 100).await.expect("the ledger").iter().map(|entry| entry.size).collect()
    };
    let all = async {
        while sizes().await.last() != Some(&25) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("the last five get one by time");
    assert_eq!(sizes().await, [10, 20, 25]);
    tailer.close().await;
    let again = Ledger::open(dir.path()).await.expect("a ledger");
    assert_eq!(
        again.checkpoints(0, 100).await.expect("the ledger").len(),
        3,
        "closing adds none for nothing"
    );
}
