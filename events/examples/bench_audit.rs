//! How long it takes to sign, verify, export and replay a log: `cargo run --release --example bench_audit [EVENTS]`.
//!
//! Tasks that are submitted, started and completed, on SQLite, read back from the file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypercode_events::audit::{
    Bundle, Format, Ledger, Local, Note, Options, PublicKey, Signer, Tailer, Wanted, export, verify,
};
use hypercode_events::replay::Registry;
use hypercode_events::store::{AppendRequest, Expected, Sqlite, sqlite};
use hypercode_events::{
    CommandId, EntityKind, EventStore, Meta, NewEvent, Position, Principal, StreamId, TaskId, Tenant,
    Timestamp,
};

/// What happens to each task, and the task that the payloads name.
const KINDS: [(&str, &str); 3] = [
    ("task_submitted", include_str!("../testdata/golden/task_submitted.v1.json")),
    ("attempt_started", include_str!("../testdata/golden/attempt_started.v1.json")),
    ("task_completed", include_str!("../testdata/golden/task_completed.v1.json")),
];
const NAMED: &str = "tk_dddddddddddddddddddddddddddddddd";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let events = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(events))
}

fn told(what: &str, events: u64, took: Duration) {
    println!(
        "{what:<28} {:>8.2} s {:>10.0} events/s",
        took.as_secs_f64(),
        events as f64 / took.as_secs_f64()
    );
}

async fn run(wanted: u64) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Sqlite::open(dir.path(), sqlite::Options::default()).await?;
    let clock = Instant::now();
    let tasks = wanted / KINDS.len() as u64;
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..tasks {
        while appends.len() >= 4_096 {
            appends.join_next().await.transpose()?.transpose()?;
        }
        let (store, request) = (store.clone(), task(number));
        appends.spawn(async move { store.append(request).await });
    }
    while let Some(appended) = appends.join_next().await {
        appended??;
    }
    let events = store.head().await?.position.0;
    told("append", events, clock.elapsed());

    let log: Arc<dyn EventStore> = Arc::new(store.clone());
    let (ledger, signer) = (Ledger::open(dir.path()).await?, Signer::generate("hypercode/bench"));
    let clock = Instant::now();
    let tailer = Tailer::start(log, ledger, signer, Vec::new(), Options::default()).await?;
    let note = tailer.cut().await?;
    told("tree and checkpoints", events, clock.elapsed());
    tailer.close().await;
    store.close().await;

    let ledger = Ledger::read(dir.path()).await?.ok_or("a ledger")?;
    let log = Arc::new(sqlite::ReadOnly::open(dir.path(), &sqlite::Options::default()).await?);
    let clock = Instant::now();
    let (mut evidence, trust) =
        Local::new(Arc::clone(&log) as Arc<dyn EventStore>, Some(ledger.clone())).await?;
    let report = verify(trust, &mut evidence, |_| ()).await?;
    assert!(report.ok && report.last == events, "{report:?}");
    told(&format!("verify, {} checkpoints", report.checkpoints), events, clock.elapsed());

    let clock = Instant::now();
    let (mut registry, mut after) = (Registry::default(), Position(0));
    loop {
        let batch = log.read(after, 1_000).await?;
        let Some(last) = batch.last() else { break };
        after = last.position;
        for event in &batch {
            registry.apply(event)?;
        }
    }
    assert_eq!(registry.tasks().len() as u64, tasks);
    told("replay to the end", events, clock.elapsed());

    let clock = Instant::now();
    let keys = ledger.keys().await?.iter().map(|key| PublicKey::parse(key)).collect::<Result<_, _>>()?;
    let entries = ledger.checkpoints(0, usize::MAX >> 1).await?;
    let checkpoints = entries.iter().map(|entry| Note::parse(&entry.note)).collect::<Result<_, _>>()?;
    let to = note.checkpoint().size;
    let wanted = Wanted { from: 1, to, checkpoints, keys, format: Format::Jsonl };
    let mut evidence = Local::after(log, Some(ledger), Position(0)).await?;
    let path = dir.path().join("bundle");
    export(wanted, &mut evidence, &path).await?;
    told("export", events, clock.elapsed());

    let clock = Instant::now();
    let mut bundle = Bundle::open(&path)?;
    let report = verify(bundle.trust()?, &mut bundle, |_| ()).await?;
    assert!(report.ok, "{report:?}");
    told("verify the bundle", events, clock.elapsed());

    let clock = Instant::now();
    let status = std::process::Command::new("python3").arg(path.join("verify.py")).status()?;
    assert!(status.success());
    told("verify the bundle, Python", events, clock.elapsed());
    Ok(())
}

fn task(number: u64) -> AppendRequest {
    let id = TaskId::derive(&[&number.to_string()]);
    let event = |(kind, payload): (&str, &str)| NewEvent {
        kind: kind.into(),
        schema: 1,
        payload: payload.trim_end().replace(NAMED, id.as_str()).into(),
    };
    AppendRequest {
        stream: StreamId::new(EntityKind::Task, id.as_str()),
        expected: Expected::NONE,
        command_id: CommandId::fresh(),
        command_digest: None,
        epoch: None,
        meta: Meta {
            tenant: Tenant::default(),
            principal: Principal::user("bench"),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
        },
        recorded_at: Timestamp::now(),
        events: KINDS.map(event).into(),
        reserve: Vec::new(),
        release: Vec::new(),
    }
}
