//! `append`: events made durable by many callers at once, each on a stream of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::store::sqlite::{self, Sqlite};
use events::{
    AppendRequest, CommandId, EntityKind, EventId, EventStore, Expected, Meta, NewEvent, Principal, StreamId,
    Tenant, Timestamp, Version,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup, bare};

/// How many append at once.
const CALLERS: [usize; 3] = [1, 32, 256];
/// How often ours and the raw limit take turns.
const TURNS: u32 = 4;
/// The share of the bare writer's rate that is to be reached.
const GOAL: f64 = 0.6;
/// The callers for which the goal is set.
const GOAL_CALLERS: usize = 256;

/// What one side did in all its turns.
#[derive(Default)]
struct Side {
    samples: Samples,
    time: Duration,
}

impl Side {
    fn add(&mut self, samples: Samples, time: Duration) {
        self.samples.merge(samples);
        self.time += time;
    }

    fn rate(&self) -> f64 {
        self.samples.count() as f64 / self.time.as_secs_f64()
    }
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let mut table = Table::default();
    for callers in CALLERS {
        let (bare, ours) = compare(setup, callers).await?;
        let ratio = ours.rate() / bare.rate();
        table.row(
            Row::new(format!("bare writer, {callers} callers")).samples(&bare.samples).rate(bare.rate()),
        );
        let row = Row::new(format!("hypercode, {callers} callers"))
            .samples(&ours.samples)
            .rate(ours.rate())
            .ratio(ratio);
        let goal = callers == GOAL_CALLERS;
        table.row(if goal { row.goal(format!(">= {GOAL} of bare"), ratio >= GOAL) } else { row });
    }
    table.note("one event of about 240 bytes an append, full envelope; WAL, synchronous=FULL, both alike");
    table.note("bare: one thread, prepared INSERTs, group commit up to 512, same columns and indexes; no hash, no checks");
    table.note("ours beside that: SHA-256 chain, expected version, idempotency, head row");
    Ok(table)
}

async fn compare(setup: &Setup, callers: usize) -> Result<(Side, Side)> {
    let turn = Duration::from_secs(setup.seconds) / TURNS;
    let directory = setup.directory.join(callers.to_string());
    let store: Arc<dyn EventStore> = Arc::new(Sqlite::open(&directory, sqlite::Options::default()).await?);
    let writer = bare::Writer::start(&directory.join("bare.db"))?;
    let (mut bare, mut ours) = (Side::default(), Side::default());
    for round in 0..TURNS {
        let start = Instant::now();
        let intake = writer.intake();
        let samples = call(callers, turn, |caller| {
            let (intake, stream) = (intake.clone(), stream(round, caller));
            move |version| {
                let (intake, row) = (intake.clone(), row(&stream, version));
                async move {
                    let (answer, done) = oneshot::channel();
                    intake.send((row, answer)).await?;
                    done.await?;
                    Ok(())
                }
            }
        });
        bare.add(samples.await?, start.elapsed());
        let start = Instant::now();
        let samples = call(callers, turn, |caller| {
            let (store, stream) = (Arc::clone(&store), stream(round, caller));
            move |version| {
                let (store, request) = (Arc::clone(&store), request(&stream, version));
                async move {
                    store.append(request).await?;
                    Ok(())
                }
            }
        });
        ours.add(samples.await?, start.elapsed());
    }
    writer.finish()?;
    Ok((bare, ours))
}

/// Lets `callers` call one after the other for `turn`, and says how long each call took.
async fn call<C, F>(callers: usize, turn: Duration, caller: impl Fn(usize) -> C) -> Result<Samples>
where
    C: Fn(u64) -> F + Send + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let end = Instant::now() + turn;
    let mut running = JoinSet::new();
    for call in (0..callers).map(caller) {
        running.spawn(async move {
            let mut samples = Samples::default();
            for version in 1.. {
                let start = Instant::now();
                if start >= end {
                    break;
                }
                call(version).await?;
                samples.push(start.elapsed());
            }
            Result::Ok(samples)
        });
    }
    let mut all = Samples::default();
    while let Some(samples) = running.join_next().await {
        all.merge(samples??);
    }
    Ok(all)
}

pub(crate) fn stream(round: u32, caller: usize) -> StreamId {
    StreamId::new(EntityKind::Task, format!("tk_{round}_{caller:032}"))
}

/// An event as tasks have many.
pub(crate) fn event(version: u64) -> NewEvent {
    let payload = format!(
        "{{\"message\":\"reading the files of the part that was given to this attempt, one after the other, and \
         counting what is found in them\",\"progress\":{version}.0,\"total\":10000.0,\"note\":\"{:032x}\"}}",
        version
    );
    NewEvent { kind: "task_progressed".into(), schema: 1, payload: payload.into() }
}

pub(crate) fn request(stream: &StreamId, version: u64) -> AppendRequest {
    AppendRequest {
        stream: stream.clone(),
        expected: Expected::Exact(Version(version - 1)),
        command_id: CommandId(Uuid::now_v7()),
        command_digest: None,
        epoch: None,
        meta: Meta {
            tenant: Tenant::default(),
            principal: Principal::system("bench"),
            correlation_id: Some("0190a1b2c3d47e5f8a9b0c1d2e3f4a5b".into()),
            causation_id: Some(format!("{stream}@{}", version - 1).into()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        },
        recorded_at: Timestamp::now(),
        events: vec![event(version)],
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

/// The same as a row; the hash is as long as a real one.
fn row(stream: &StreamId, version: u64) -> bare::Row {
    let request = request(stream, version);
    let text = |text: Option<Arc<str>>| text.map(|text| text.to_string());
    bare::Row {
        stream: stream.to_string(),
        version: version.cast_signed(),
        kind: request.events[0].kind.to_string(),
        schema: 1,
        event_id: EventId(Uuid::now_v7()).0.as_bytes().to_vec(),
        command_id: request.command_id.0.as_bytes().to_vec(),
        ordinal: 0,
        tenant: request.meta.tenant.to_string(),
        principal: request.meta.principal.to_string(),
        correlation_id: text(request.meta.correlation_id),
        causation_id: text(request.meta.causation_id),
        traceparent: text(request.meta.traceparent),
        recorded_at: request.recorded_at.0,
        epoch: 0,
        payload: request.events[0].payload.to_string(),
        hash: vec![0xa5; 32],
    }
}
