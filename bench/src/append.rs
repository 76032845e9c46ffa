//! `append`: events made durable by many callers at once, each on a stream of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{
    AppendRequest, CommandId, EntityKind, EventStore, Expected, Meta, NewEvent, Principal, StreamId, Tenant,
    Timestamp, Version,
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup, bare};

/// How many append at once.
const CALLERS: [usize; 3] = [1, 32, 256];
/// How many connections insert at once, where each insert is a commit of its own.
const CONNECTIONS: [usize; 3] = [1, 8, 32];
/// How often ours and the raw limit take turns.
const TURNS: u32 = 4;
/// The share of the bare writer's rate that is to be reached by [`MANY`] callers.
const GOAL: f64 = 0.6;
const MANY: usize = 256;
/// The share of a plain insert's rate that is to be reached by one caller.
const ALONE_GOAL: f64 = 0.8;
/// How many times the best plain insert's rate is to be reached by [`MANY`] callers.
const PLAIN_GOAL: f64 = 3.0;

/// Something that makes events durable.
pub(crate) trait Target: Clone + Send + Sync + 'static {
    /// Appends one event, and returns when it is durable.
    fn append(&self, stream: &StreamId, version: u64) -> impl Future<Output = Result<()>> + Send;
}

/// The platform's own store.
#[derive(Clone)]
pub(crate) struct Ours(pub(crate) Arc<dyn EventStore>);

impl Target for Ours {
    async fn append(&self, stream: &StreamId, version: u64) -> Result<()> {
        self.0.append(request(stream, version)).await?;
        Ok(())
    }
}

/// What one side did in all its turns.
pub(crate) struct Side {
    callers: usize,
    pub(crate) samples: Samples,
    time: Duration,
}

impl Side {
    /// A side of so many callers.
    pub(crate) fn new(callers: usize) -> Self {
        Self { callers, samples: Samples::default(), time: Duration::ZERO }
    }

    /// Has all callers append for a while.
    pub(crate) async fn turn(&mut self, target: &impl Target, round: u32, turn: Duration) -> Result<()> {
        let start = Instant::now();
        self.samples.merge(call(target, self.callers, round, turn).await?);
        self.time += start.elapsed();
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.samples.count() as f64 / self.time.as_secs_f64()
    }

    fn row(&self, what: &str) -> Row {
        let plural = if self.callers == 1 { "" } else { "s" };
        let row = Row::new(format!("{what}, {} caller{plural}", self.callers));
        row.samples(&self.samples).rate(self.rate())
    }

    /// The row of ours, beside what it is held against.
    fn beside(&self, other: &Self) -> (Row, f64) {
        let ratio = self.rate() / other.rate();
        (self.row("hypercode").ratio(ratio), ratio)
    }
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let mut table = match setup.server {
        None => files(setup).await?,
        Some(_) => database(setup).await?,
    };
    table.note("one event of about 240 bytes an append, full envelope, each caller on streams of its own");
    table.note("ours beside the bare writer: SHA-256 chain, expected version, idempotency, head row");
    Ok(table)
}

async fn files(setup: &Setup) -> Result<Table> {
    let turn = Duration::from_secs(setup.seconds) / TURNS;
    let mut table = Table::default();
    for callers in CALLERS {
        let place = setup.place(&callers.to_string()).await;
        let log = place.open().await?;
        let writer = bare::sqlite::Writer::start(&place.directory.join("bare.db"))?;
        let (mut bare, mut ours) = (Side::new(callers), Side::new(callers));
        for round in 0..TURNS {
            bare.turn(&writer.group(), round, turn).await?;
            ours.turn(&Ours(log.store()), round, turn).await?;
        }
        writer.finish()?;
        log.close().await;
        table.row(bare.row("bare writer"));
        table.row(held_to_bare(&ours, &bare));
    }
    table.note("WAL, synchronous=FULL, both alike");
    table.note("bare: one thread, prepared INSERTs, group commit up to 512, same columns and indexes; no hash, no checks");
    Ok(table)
}

async fn database(setup: &Setup) -> Result<Table> {
    let (plain, group) = (setup.place("plain").await, setup.place("group").await);
    let (plain, group) = (plain.database.unwrap_or_default(), group.database.unwrap_or_default());
    bare::postgres::create(&plain).await?;
    bare::postgres::create(&group).await?;
    let most = CONNECTIONS.iter().max().copied().unwrap_or_default();
    let plain = bare::postgres::Plain::open(&plain, u32::try_from(most)?).await?;
    let writer = bare::postgres::Writer::start(&group).await?;
    let log = setup.place("ours").await.open().await?;
    let (target, group) = (Ours(log.store()), writer.group());
    let turn = Duration::from_secs(setup.seconds) / TURNS;
    let mut inserts = CONNECTIONS.map(Side::new);
    let (mut groups, mut ours) = (CALLERS.map(Side::new), CALLERS.map(Side::new));
    for round in 0..TURNS {
        for side in &mut inserts {
            side.turn(&plain, round, turn).await?;
        }
        for (bare, ours) in groups.iter_mut().zip(&mut ours) {
            bare.turn(&group, round, turn).await?;
            ours.turn(&target, round, turn).await?;
        }
    }
    drop(group);
    writer.finish().await?;
    log.close().await;
    let mut table = Table::default();
    inserts.iter().for_each(|side| table.row(side.row("plain insert")));
    let (row, ratio) = ours[0].beside(&inserts[0]);
    table.row(row.goal(format!(">= {ALONE_GOAL} of plain"), ratio >= ALONE_GOAL));
    for (bare, ours) in groups.iter().zip(&ours) {
        table.row(bare.row("bare group commit"));
        table.row(held_to_bare(ours, bare));
    }
    let best = inserts.iter().max_by(|a, b| a.rate().total_cmp(&b.rate()));
    if let (Some(best), Some(many)) = (best, ours.last()) {
        let (row, ratio) = many.beside(best);
        table.row(row.goal(format!(">= {PLAIN_GOAL} of best plain"), ratio >= PLAIN_GOAL));
    }
    table.note("plain: prepared, each insert a commit of its own over a connection of its own, same columns and indexes");
    table.note("bare group commit: one connection, one INSERT of UNNEST a commit, up to 512 rows; no hash, no checks, no head");
    Ok(table)
}

fn held_to_bare(ours: &Side, bare: &Side) -> Row {
    let (row, ratio) = ours.beside(bare);
    if ours.callers == MANY { row.goal(format!(">= {GOAL} of bare"), ratio >= GOAL) } else { row }
}

/// Lets `callers` append one event after the other for `turn`, and says how long each took.
async fn call(target: &impl Target, callers: usize, round: u32, turn: Duration) -> Result<Samples> {
    let end = Instant::now() + turn;
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let (target, stream) = (target.clone(), stream(callers, round, caller));
        running.spawn(async move {
            let mut samples = Samples::default();
            for version in 1.. {
                let start = Instant::now();
                if start >= end {
                    break;
                }
                target.append(&stream, version).await?;
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

/// The stream of one of so many callers, in one of the rounds.
fn stream(callers: usize, round: u32, caller: usize) -> StreamId {
    StreamId::new(EntityKind::Task, format!("tk_{callers}_{round}_{caller:032}"))
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

/// An append of one such event to `stream`.
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
