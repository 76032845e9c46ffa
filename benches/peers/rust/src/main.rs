//! Event stores of others, put to the same work: `PEER URL append WRITERS MILLISECONDS`, or `PEER URL load EVENTS
//! MILLISECONDS`. Prints one line of JSON about the calls that it made.

mod disintegrate;
mod postgres_es;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Events of one append while a stream is made.
const FILL_EVENTS: u64 = 500;

/// What an event says, the same for every peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progressed {
    message: String,
    progress: u64,
    total: u64,
    note: String,
}

impl Progressed {
    fn new(version: u64) -> Self {
        let message = "reading the files of the part that was given to this attempt, one after the other, and \
                       counting what is found in them";
        let note = format!("{version:032x}");
        Self { message: message.to_owned(), progress: version, total: 10_000, note }
    }
}

/// An event store.
trait Peer: Clone + Send + Sync + 'static {
    /// A writer to one stream, with what it must remember between two appends.
    type Writer: Send;

    fn writer(&self, stream: String) -> Self::Writer;
    /// Appends events behind those that the writer has appended, and returns when they are durable.
    fn append(
        &self,
        writer: &mut Self::Writer,
        events: Vec<Progressed>,
    ) -> impl Future<Output = Result<()>> + Send;
    /// Reads a stream as typed events, and says how many there are.
    fn load(&self, stream: &str) -> impl Future<Output = Result<u64>> + Send;
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[String]) -> Result<()> {
    let [peer, url, work, number, ms] = args else {
        return Err("expected `PEER URL append|load NUMBER MILLISECONDS`".into());
    };
    let (number, ms) = (number.parse()?, Duration::from_millis(ms.parse()?));
    let pool = PgPoolOptions::new().max_connections(10).connect(url).await?;
    match peer.as_str() {
        "postgres-es" => measure(postgres_es::Store::open(pool).await?, work, number, ms).await,
        "disintegrate" => measure(disintegrate::Store::open(pool, true).await?, work, number, ms).await,
        "disintegrate-unvalidated" => {
            measure(disintegrate::Store::open(pool, false).await?, work, number, ms).await
        }
        peer => Err(format!("there is no peer `{peer}`").into()),
    }
}

async fn measure(peer: impl Peer, work: &str, number: u64, turn: Duration) -> Result<()> {
    let start = Instant::now();
    let mut times = match work {
        "append" => append(&peer, number, turn).await?,
        "load" => return load(&peer, number, turn).await,
        work => return Err(format!("there is no work `{work}`").into()),
    };
    tell(&mut times, start.elapsed());
    Ok(())
}

/// Lets so many writers append one event after the other, each to a stream of its own.
async fn append(peer: &impl Peer, writers: u64, turn: Duration) -> Result<Vec<Duration>> {
    let (end, run) = (Instant::now() + turn, std::process::id());
    let mut running = JoinSet::new();
    for number in 0..writers {
        let peer = peer.clone();
        running.spawn(async move {
            let mut writer = peer.writer(format!("task-{run}-{number}"));
            let mut times = Vec::new();
            for version in 1.. {
                let start = Instant::now();
                if start >= end {
                    break;
                }
                peer.append(&mut writer, vec![Progressed::new(version)]).await?;
                times.push(start.elapsed());
            }
            Result::Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = running.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}

/// Reads a stream of so many events again and again; makes it first where there is none.
async fn load(peer: &impl Peer, events: u64, turn: Duration) -> Result<()> {
    let stream = "task-long";
    if peer.load(stream).await? == 0 {
        let mut writer = peer.writer(stream.to_owned());
        for first in (1..=events).step_by(usize::try_from(FILL_EVENTS)?) {
            let last = events.min(first + FILL_EVENTS - 1);
            peer.append(&mut writer, (first..=last).map(Progressed::new).collect()).await?;
        }
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || begun.elapsed() < turn {
        let start = Instant::now();
        let found = peer.load(stream).await?;
        if found != events {
            return Err(format!("read {found} events instead of {events}").into());
        }
        times.push(start.elapsed());
    }
    tell(&mut times, begun.elapsed());
    Ok(())
}

fn tell(times: &mut [Duration], elapsed: Duration) {
    times.sort_unstable();
    let us = |share: f64| {
        let rank = (times.len() as f64 * share).ceil() as usize;
        times.get(rank.saturating_sub(1)).map_or(0, |time| time.as_micros() as u64)
    };
    let told = json!({
        "count": times.len(), "seconds": elapsed.as_secs_f64(), "p50Us": us(0.5), "p99Us": us(0.99),
    });
    println!("{told}");
}

/// Runs statements that make tables, in a database that may have them already.
async fn prepare(pool: &PgPool, sql: &'static str) -> Result<()> {
    sqlx::raw_sql(sql).execute(pool).await?;
    Ok(())
}
