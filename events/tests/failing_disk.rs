//! A disk that refuses a write in the middle of a commit: the store says that it does not know, and recovers.

use hypercode_events::store::sqlite::{LOG_FILE, Options, Sqlite};
use hypercode_events::store::{AppendError, AppendRequest, EventStore, Expected};
use hypercode_events::{
    CommandId, EntityKind, Meta, NewEvent, Position, Principal, StreamId, Tenant, Timestamp, chain,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

fn request(payload: &str) -> AppendRequest {
    AppendRequest {
        stream: StreamId::new(EntityKind::Task, "tk_1"),
        expected: Expected::Any,
        command_id: CommandId::fresh(),
        command_digest: None,
        epoch: None,
        meta: Meta {
            tenant: Tenant::default(),
            principal: Principal::system("test"),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
        },
        recorded_at: Timestamp::now(),
        events: vec![NewEvent { kind: "tested".into(), schema: 1, payload: payload.into() }],
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

/// Lets no file of this process grow beyond `bytes`.
fn limit_files(bytes: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("the limit is known");
    setrlimit(Resource::RLIMIT_FSIZE, bytes.min(hard), hard).expect("the limit is set");
}

#[test]
fn a_commit_that_the_disk_refuses_is_unknown_and_the_store_recovers() {
    // Blocked in every thread from here on, so that a write beyond the limit fails instead of ending the process.
    let beyond = SigSet::from(Signal::SIGXFSZ);
    beyond.thread_block().expect("the signal is blocked");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Sqlite::open(&directory, Options::default()).await.expect("it opens");
        store.append(request("1")).await.expect("it is appended");
        let wal = directory.path().join(format!("{LOG_FILE}-wal"));
        limit_files(wal.metadata().expect("the write-ahead log is there").len() + 6_000);

        let large = request(&format!("\"{}\"", "x".repeat(60_000)));
        for _ in 0..2 {
            let refused = store.append(large.clone()).await;
            assert!(matches!(refused, Err(AppendError::Unknown { .. })), "{refused:?}");
            assert_eq!(store.find_command(large.command_id).await, Ok(None), "asking by command id tells");
        }
        assert_eq!(store.read(Position(0), 10).await.expect("it can be read").len(), 1);

        limit_files(u64::MAX);
        let appended = store.append(large.clone()).await.expect("there is room again");
        assert_eq!((appended.position, appended.repeated), (Position(2), false));
        assert!(store.append(large).await.expect("it is known").repeated);
        store.close().await;
        let store = Sqlite::open(&directory, Options::default()).await.expect("it opens again");
        assert_eq!(chain::verify(&store).await.expect("the chain verifies").position, Position(2));
    });
}
