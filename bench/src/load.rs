//! `load`: a long stream folded into its entity, and the whole log read from its beginning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::domain::task::Task;
use events::domain::{Decider, DomainEvent};
use events::store::Pages;
use events::store::sqlite::LOG_FILE;
use events::{AppendRequest, EntityKind, EventStore, Position, StreamId, Version, chain};
use sqlx::PgPool;

use crate::append::{event, request};
use crate::place::Place;
use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup, bare};

/// Events of the stream that is folded.
pub(crate) const STREAM_EVENTS: u64 = 10_000;
/// Other streams of the same length, so that the stream lies among others as it would.
const OTHER_STREAMS: u64 = 9;
/// Events of one append while the log is made.
const APPEND_EVENTS: u64 = 100;
/// Events read at a time, as by the platform's actors.
const READ_EVENTS: usize = 1_000;
/// The share of the bare load's rate that is to be reached.
const FOLD_GOAL: f64 = 0.7;
/// Events of the log to be read in a second.
const REPLAY_GOAL: f64 = 200_000.0;

/// The log's rows, read without the platform's store.
pub(crate) enum Rows {
    File(rusqlite::Connection),
    Database(PgPool),
}

impl Rows {
    /// Those of the log in this place.
    pub(crate) async fn open(place: &Place) -> Result<Self> {
        Ok(match &place.database {
            Some(url) => Self::Database(PgPool::connect(url).await?),
            None => Self::File(bare::sqlite::open(&place.directory.join(LOG_FILE))?),
        })
    }

    /// Hands every row to `each`, with all its columns.
    pub(crate) async fn read(&self, each: impl FnMut(bare::Row)) -> Result<()> {
        match self {
            Self::File(file) => tokio::task::block_in_place(|| bare::sqlite::read_log(file, each)),
            Self::Database(pool) => bare::postgres::read_log(pool, each).await,
        }
    }

    /// Reads what a fold of `stream` needs, each payload as its event.
    async fn fold(&self, stream: &StreamId) -> Result<()> {
        let each = |kind: &str, schema, payload: &str| {
            std::hint::black_box(<Task as Decider>::Event::decode(kind, schema, payload)?);
            Ok(())
        };
        let stream = stream.to_string();
        let read = match self {
            Self::File(file) => {
                tokio::task::block_in_place(|| bare::sqlite::read_stream(file, &stream, each))
            }
            Self::Database(pool) => bare::postgres::read_stream(pool, &stream, each).await,
        };
        expect(read?, STREAM_EVENTS)
    }
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let place = setup.place("log").await;
    let log = place.open().await?;
    let (store, rows) = (log.store(), Rows::open(&place).await?);
    fill(&*store).await?;
    let stream = stream(0);
    let (mut bare, mut ours) = (Samples::default(), Samples::default());
    let (mut bare_log, mut replay, mut verify) = (Samples::default(), Samples::default(), Samples::default());
    let end = Instant::now() + Duration::from_secs(setup.seconds);
    while Instant::now() < end {
        bare.push(timed(rows.fold(&stream)).await?);
        ours.push(timed(fold(&store, &stream)).await?);
        bare_log.push(timed(read_bare(&rows)).await?);
        replay.push(timed(read(&*store)).await?);
        verify.push(timed(async { Ok(chain::verify(&*store).await.map(drop)?) }).await?);
    }
    log.close().await;
    Ok(table(&bare, &ours, &bare_log, &replay, &verify))
}

fn table(bare: &Samples, ours: &Samples, bare_log: &Samples, replay: &Samples, verify: &Samples) -> Table {
    let fold_rate = |samples: &Samples| STREAM_EVENTS as f64 / samples.p50().as_secs_f64();
    let log_rate = |samples: &Samples| fold_rate(samples) * (OTHER_STREAMS + 1) as f64;
    let row = |name: &str, samples: &Samples, rate: f64| Row::new(name).samples(samples).rate(rate);
    let mut table = Table::default();
    table.row(row("bare typed load of 10 000 events", bare, fold_rate(bare)));
    let share = fold_rate(ours) / fold_rate(bare);
    let fold = row("hypercode, fold of 10 000 events", ours, fold_rate(ours)).ratio(share);
    table.row(fold.goal(format!(">= {FOLD_GOAL} of bare"), share >= FOLD_GOAL));
    table.row(row("bare read of the log, 100 000 events", bare_log, log_rate(bare_log)));
    let rate = log_rate(replay);
    let read = row("hypercode, replay of the log", replay, rate).ratio(rate / log_rate(bare_log));
    table.row(read.goal(">= 200 000/s", rate >= REPLAY_GOAL));
    let verified = row("hypercode, replay and check of every hash", verify, log_rate(verify));
    table.row(verified.ratio(log_rate(verify) / log_rate(bare_log)));
    table.note("rates are those of the median run; files are in the page cache");
    table.note("bare: one query; for the load only what a fold needs, each payload as its event; for the log every column as a Rust value");
    table
}

/// How long `work` takes.
pub(crate) async fn timed(work: impl Future<Output = Result<()>>) -> Result<Duration> {
    let start = Instant::now();
    work.await?;
    Ok(start.elapsed())
}

/// The stream of this number.
pub(crate) fn stream(number: u64) -> StreamId {
    StreamId::new(EntityKind::Task, format!("tk_{number:032}"))
}

/// Makes a log in which the streams lie through each other.
pub(crate) async fn fill(store: &dyn EventStore) -> Result<()> {
    for first in (1..=STREAM_EVENTS).step_by(usize::try_from(APPEND_EVENTS)?) {
        for number in 0..=OTHER_STREAMS {
            let events = (first..first + APPEND_EVENTS).map(event).collect();
            store.append(AppendRequest { events, ..request(&stream(number), first) }).await?;
        }
    }
    Ok(())
}

/// As the platform's actors load an entity.
pub(crate) async fn fold(store: &Arc<dyn EventStore>, stream: &StreamId) -> Result<()> {
    let mut state = <Task as Decider>::State::default();
    let mut version = Version(0);
    let mut pages = Pages::after(version, READ_EVENTS, |after| {
        let (store, stream) = (Arc::clone(store), stream.clone());
        async move { store.read_stream(&stream, after, READ_EVENTS).await }
    });
    loop {
        let batch = pages.next().await?;
        if batch.is_empty() {
            break;
        }
        for recorded in batch {
            let event = <Task as Decider>::Event::decode(&recorded.kind, recorded.schema, &recorded.payload)?;
            state = Task::evolve(state, &event);
            version = recorded.version;
        }
    }
    std::hint::black_box(state);
    expect(version.0, STREAM_EVENTS)
}

async fn read_bare(rows: &Rows) -> Result<()> {
    let mut count = 0;
    rows.read(|row| {
        std::hint::black_box(row);
        count += 1;
    })
    .await?;
    expect(count, STREAM_EVENTS * (OTHER_STREAMS + 1))
}

async fn read(store: &dyn EventStore) -> Result<()> {
    let mut position = Position(0);
    while let Some(last) = store.read(position, READ_EVENTS).await?.last() {
        position = last.position;
    }
    expect(position.0, STREAM_EVENTS * (OTHER_STREAMS + 1))
}

fn expect(found: u64, expected: u64) -> Result<()> {
    if found == expected { Ok(()) } else { Err(format!("read {found} events instead of {expected}").into()) }
}
