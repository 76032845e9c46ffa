//! Measures the SQLite store against what the same machine does without it, in the same run.
//!
//! `append`: callers that append one event each and wait, against one bare writer that inserts the same rows
//! into the same table, as many a commit as there are callers. `load`: folding one long stream, against a bare
//! typed load of what a fold needs; and replaying the whole log. Only the ratios compare between machines.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypercode_events::store::Expected;
use hypercode_events::store::sqlite::{LOG_FILE, Options, Sqlite};
use hypercode_events::{
    AppendRequest, CommandId, EntityKind, EventStore, Meta, NewEvent, Position, Principal, StreamId, Tenant,
    Timestamp, Version,
};
use serde::Deserialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, QueryBuilder, Row as _};

/// How long each measurement of appends takes.
const MEASURE: Duration = Duration::from_secs(3);
/// Events of the stream that is folded; the log has ten times as many.
const STREAM_EVENTS: usize = 10_000;
/// Times that a load is repeated.
const LOADS: usize = 10;

const PAYLOAD: &str = r#"{"attempt":1,"fence":1,"agent":"ag_0123456789abcdef0123456789abcdef","incarnation":1,"at_ms":1795382626000}"#;

#[derive(Deserialize)]
struct Payload {
    attempt: u64,
    #[serde(rename = "agent")]
    _agent: String,
}

type Failed = Box<dyn std::error::Error>;

/// What was measured: how many events in how long, and how long each wait took.
struct Measured {
    events: usize,
    elapsed: Duration,
    waits: Vec<Duration>,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    fn print(mut self, what: &str, ratio: Option<f64>) {
        self.waits.sort();
        let quantile = |part: usize| self.waits[(self.waits.len() - 1) * part / 100];
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let (p50, p99) = (quantile(50), quantile(99));
        println!("| {what} | {} | {:.0} | {p50:.2?} | {p99:.2?} | {ratio} |", self.events, self.rate());
    }
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    println!("| what | n | per second | p50 | p99 | of the bare limit |\n|---|---|---|---|---|---|");
    fsync_probe(directory.path())?.print("fdatasync of 8 KiB", None);
    for callers in [1, 8, 32, 256] {
        let bare = bare_append(&directory.path().join(format!("bare-{callers}")), callers).await?;
        let ours = append(&directory.path().join(format!("ours-{callers}")), callers).await?;
        let ratio = ours.rate() / bare.rate();
        bare.print(&format!("bare writer, {callers} a commit"), None);
        ours.print(&format!("append, {callers} callers"), Some(ratio));
    }
    load(&directory.path().join("load")).await
}

fn fsync_probe(directory: &Path) -> Result<Measured, std::io::Error> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(directory.join("probe"))?;
    let begun = Instant::now();
    let mut waits = Vec::new();
    while waits.len() < 200 {
        let before = Instant::now();
        file.write_all(&[0; 8192])?;
        file.sync_data()?;
        waits.push(before.elapsed());
    }
    Ok(Measured { events: waits.len(), elapsed: begun.elapsed(), waits })
}

fn stream(id: usize) -> StreamId {
    StreamId::new(EntityKind::Task, format!("tk_{id:032x}"))
}

fn request(stream: StreamId, expected: Expected, events: usize) -> AppendRequest {
    let event = NewEvent { kind: "attempt_started".into(), schema: 1, payload: PAYLOAD.into() };
    AppendRequest {
        stream,
        expected,
        command_id: CommandId::fresh(),
        command_digest: None,
        epoch: None,
        meta: Meta {
            tenant: Tenant::default(),
            principal: Principal::user("bench"),
            correlation_id: Some("0190a5e0-0000-7000-8000-000000000000".into()),
            causation_id: None,
            traceparent: None,
        },
        recorded_at: Timestamp::now(),
        events: vec![event; events],
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

async fn append(directory: &Path, callers: usize) -> Result<Measured, Failed> {
    let store = Sqlite::open(directory, Options::default()).await?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let store = store.clone();
        tasks.spawn(async move {
            let (stream, mut version, mut waits) = (stream(caller), Version(0), Vec::new());
            while begun.elapsed() < MEASURE {
                let before = Instant::now();
                let appended = store.append(request(stream.clone(), Expected::Exact(version), 1)).await;
                version = appended.expect("nobody else writes this stream").version;
                waits.push(before.elapsed());
            }
            waits
        });
    }
    let waits = tasks.join_all().await.concat();
    let measured = Measured { events: waits.len(), elapsed: begun.elapsed(), waits };
    store.close().await;
    Ok(measured)
}

/// One writer that does nothing but insert: same table, same indexes, same settings, fixed rows.
async fn bare_append(directory: &Path, batch: usize) -> Result<Measured, Failed> {
    Sqlite::migrate(directory).await?;
    let mut db = connect(&directory.join(LOG_FILE)).await?;
    sqlx::raw_sql("PRAGMA wal_autocheckpoint = 4000").execute(&mut db).await?;
    let begun = Instant::now();
    let (mut position, mut waits) = (0, Vec::new());
    while begun.elapsed() < MEASURE {
        let before = Instant::now();
        let mut tx = db.begin_with("BEGIN IMMEDIATE").await?;
        for first in (0..batch).step_by(32) {
            bare_insert(&mut tx, &mut position, (batch - first).min(32)).await?;
        }
        tx.commit().await?;
        waits.push(before.elapsed());
    }
    Ok(Measured { events: usize::try_from(position)?, elapsed: begun.elapsed(), waits })
}

async fn bare_insert(db: &mut SqliteConnection, position: &mut i64, rows: usize) -> Result<(), sqlx::Error> {
    let payload: Arc<str> = PAYLOAD.into();
    let mut query = QueryBuilder::new("INSERT INTO events ");
    query.push_values(0..rows, |mut row, caller| {
        *position += 1;
        let id = CommandId::fresh().0.as_bytes().to_vec();
        row.push_bind(*position).push_bind(stream(caller).to_string()).push_bind(*position);
        row.push_bind("attempt_started")
            .push_bind(1_i64)
            .push_bind(id.clone())
            .push_bind(id)
            .push_bind(0_i64);
        row.push_bind("default").push_bind("user:bench").push_bind("0190a5e0-0000-7000-8000-000000000000");
        row.push_bind(None::<String>).push_bind(None::<String>).push_bind(1_795_382_626_000_000_i64);
        row.push_bind(0_i64).push_bind(Arc::clone(&payload)).push_bind(vec![0_u8; 32]);
    });
    query.build().execute(db).await?;
    Ok(())
}

async fn connect(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(file).journal_mode(SqliteJournalMode::Wal);
    SqliteConnection::connect_with(&options.synchronous(SqliteSynchronous::Full)).await
}

async fn load(directory: &Path) -> Result<(), Failed> {
    let store = Sqlite::open(directory, Options::default()).await?;
    let long = stream(0);
    for _ in 0..STREAM_EVENTS / 500 {
        for id in 0..10 {
            store.append(request(stream(id), Expected::Any, 500)).await?;
        }
    }
    let mut db = connect(&directory.join(LOG_FILE)).await?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        bare.push(timed(bare_fold(&mut db, &long)).await?);
        ours.push(timed(fold(&store, &long)).await?);
    }
    let (bare, ours) = (sum(&bare), sum(&ours));
    let ratio = ours.rate() / bare.rate();
    bare.print("bare typed load of a 10k stream", None);
    ours.print("fold of a 10k stream", Some(ratio));
    let replays = [timed(replay(&store)).await?, timed(replay(&store)).await?];
    sum(&replays).print("replay of the whole log", None);
    store.close().await;
    Ok(())
}

async fn timed(
    load: impl Future<Output = Result<(usize, u64), Failed>>,
) -> Result<(usize, Duration), Failed> {
    let before = Instant::now();
    let (events, sum) = load.await?;
    assert_eq!(sum, events as u64, "every payload was parsed");
    Ok((events, before.elapsed()))
}

fn sum(loads: &[(usize, Duration)]) -> Measured {
    let waits: Vec<Duration> = loads.iter().map(|(_, elapsed)| *elapsed).collect();
    Measured { events: loads.iter().map(|(events, _)| events).sum(), elapsed: waits.iter().sum(), waits }
}

async fn bare_fold(db: &mut SqliteConnection, stream: &StreamId) -> Result<(usize, u64), Failed> {
    let sql = "SELECT version, kind, schema, payload FROM events WHERE stream = ?1 ORDER BY version";
    let rows = sqlx::query(sql).bind(stream.to_string()).fetch_all(db).await?;
    let mut sum = 0;
    for row in &rows {
        sum += serde_json::from_str::<Payload>(row.try_get(3)?)?.attempt;
    }
    Ok((rows.len(), sum))
}

async fn fold(store: &Sqlite, stream: &StreamId) -> Result<(usize, u64), Failed> {
    let (mut version, mut sum, mut count) = (Version(0), 0, 0);
    loop {
        let events = store.read_stream(stream, version, 1_000).await?;
        let Some(last) = events.last() else { return Ok((count, sum)) };
        (version, count) = (last.version, count + events.len());
        for event in &events {
            sum += serde_json::from_str::<Payload>(&event.payload)?.attempt;
        }
    }
}

async fn replay(store: &Sqlite) -> Result<(usize, u64), Failed> {
    let (mut position, mut sum, mut count) = (Position(0), 0, 0);
    loop {
        let events = store.read(position, 1_000).await?;
        let Some(last) = events.last() else { return Ok((count, sum)) };
        (position, count) = (last.position, count + events.len());
        for event in &events {
            sum += serde_json::from_str::<Payload>(&event.payload)?.attempt;
        }
    }
}
