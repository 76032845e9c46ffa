//! `peers`: event stores of others and ours, on the same server, in turn.

mod install;

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::EventStore;
use serde_json::Value;

use self::install::{Peer, Program};
use crate::append::{Ours, Side};
use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup, load};

/// How many write at once.
const WRITERS: [u64; 2] = [1, 8];
/// How often everybody takes turns.
const TURNS: u32 = 3;
/// How long a peer may take for one turn beyond the time that it is to measure.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is to be done.
#[derive(Clone, Copy)]
enum Work {
    /// Commits of one event by so many writers, each to a stream of its own.
    Append(u64),
    /// Loads of a stream.
    Load,
}

/// What somebody did in all turns: quantiles are the median turn's p50 and the worst turn's p99.
#[derive(Default)]
struct Done {
    count: u64,
    seconds: f64,
    p50: Samples,
    p99: Samples,
}

impl Done {
    fn add(&mut self, count: u64, seconds: f64, p50: Duration, p99: Duration) {
        (self.count, self.seconds) = (self.count + count, self.seconds + seconds);
        self.p50.push(p50);
        self.p99.push(p99);
    }

    /// Calls a second.
    fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    fn row(&self, what: String, events: f64) -> Row {
        let row = Row::new(what).measured(self.count, self.p50.p50(), self.p99.quantile(1.0));
        row.rate(self.rate() * events)
    }
}

/// A peer that could be installed.
struct Contestant {
    name: &'static str,
    program: Program,
    database: String,
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let mut table = Table::default();
    let mut contestants = Vec::new();
    for Peer { name, program } in tokio::task::block_in_place(install::all) {
        match program {
            Ok(program) => {
                let database = common(&setup.place(name).await.database.unwrap_or_default());
                contestants.push(Contestant { name, program, database });
            }
            Err(reason) => table.note(format!("{name} is not measured: {reason}")),
        }
    }
    let log = setup.place("ours").await.open().await?;
    let store = log.store();
    load::fill(&*store).await?;
    for work in WRITERS.map(Work::Append).into_iter().chain([Work::Load]) {
        compare(setup, work, &store, &mut contestants, &mut table).await?;
    }
    log.close().await;
    table
        .note("everybody on the same server, each with a database of its own, in turn; the ratio is to ours");
    table.note("commit: one event with the same text of about 240 bytes, durable, expected version checked unless said");
    table.note(
        "load: all 10 000 events of a stream as typed values; n is loads, the rate events; ours is a fold",
    );
    table.note(format!("p50 is the median of {TURNS} turns, p99 the worst of them"));
    Ok(table)
}

/// The URL of a database in a form that every client knows: the socket's directory is a parameter.
fn common(url: &str) -> String {
    let parts = url.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once('/')?)));
    match parts {
        Some((user, (socket, name))) => {
            format!("{user}@localhost/{name}?host={}", socket.replace("%2F", "/"))
        }
        None => url.to_owned(),
    }
}

/// Has ours and every peer do the same work in turn; a peer that fails is out.
async fn compare(
    setup: &Setup,
    work: Work,
    store: &Arc<dyn EventStore>,
    contestants: &mut Vec<Contestant>,
    table: &mut Table,
) -> Result<()> {
    let turn = Duration::from_secs(setup.seconds) / TURNS;
    let mut ours = Done::default();
    let mut theirs: Vec<Done> = contestants.iter().map(|_| Done::default()).collect();
    let mut failed = vec![None; contestants.len()];
    for round in 0..TURNS {
        take_turn(work, store, round, turn, &mut ours).await?;
        for (index, contestant) in contestants.iter().enumerate() {
            if failed[index].is_none()
                && let Err(error) = contestant.take_turn(work, turn, &mut theirs[index]).await
            {
                failed[index] = Some(error.to_string());
            }
        }
    }
    let (name, events) = match work {
        Work::Append(1) => ("commit, 1 writer".to_owned(), 1.0),
        Work::Append(writers) => (format!("commit, {writers} writers"), 1.0),
        Work::Load => ("load".to_owned(), load::STREAM_EVENTS as f64),
    };
    table.row(ours.row(format!("{name}: hypercode"), events));
    for ((contestant, done), failed) in contestants.iter().zip(&theirs).zip(&failed) {
        match failed {
            None => {
                let row = done.row(format!("{name}: {}", contestant.name), events);
                table.row(row.ratio(done.rate() / ours.rate()));
            }
            Some(reason) => table.note(format!("{} failed at `{name}`: {reason}", contestant.name)),
        }
    }
    let mut failed = failed.iter();
    contestants.retain(|_| failed.next().is_none_or(Option::is_none));
    Ok(())
}

/// Ours.
async fn take_turn(
    work: Work,
    store: &Arc<dyn EventStore>,
    round: u32,
    turn: Duration,
    done: &mut Done,
) -> Result<()> {
    let start = Instant::now();
    let samples = match work {
        Work::Append(writers) => {
            let mut side = Side::new(usize::try_from(writers)?);
            side.turn(&Ours(Arc::clone(store)), round, turn).await?;
            side.samples
        }
        Work::Load => {
            let mut samples = Samples::default();
            while samples.count() == 0 || start.elapsed() < turn {
                samples.push(load::timed(load::fold(store, &load::stream(0))).await?);
            }
            samples
        }
    };
    done.add(samples.count() as u64, start.elapsed().as_secs_f64(), samples.p50(), samples.p99());
    Ok(())
}

/// The line in which a program said why it failed: Python has its trace before it, Node the trace and its version behind
/// it, Rust a hint.
fn complaint(said: &str) -> &str {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut errors = lines().filter(|line| line.contains("rror:") && !line.starts_with("at "));
    errors.next_back().or_else(|| lines().next_back()).unwrap_or("it says nothing")
}

impl Contestant {
    async fn take_turn(&self, work: Work, turn: Duration, done: &mut Done) -> Result<()> {
        let (work, number) = match work {
            Work::Append(writers) => ("append", writers),
            Work::Load => ("load", load::STREAM_EVENTS),
        };
        let mut command = self.program.command();
        command.arg(&self.database).arg(work).arg(number.to_string()).arg(turn.as_millis().to_string());
        let output = tokio::time::timeout(turn + PATIENCE, command.output()).await;
        let output = output.map_err(|_| "it does not come to an end")??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(complaint(&said).to_owned().into());
        }
        let told: Value = serde_json::from_slice(&output.stdout)?;
        let whole = |field: &str| told[field].as_u64().ok_or_else(|| format!("it says nothing of `{field}`"));
        let seconds = told["seconds"].as_f64().ok_or("it says nothing of `seconds`")?;
        let us = |field| whole(field).map(Duration::from_micros);
        done.add(whole("count")?, seconds, us("p50Us")?, us("p99Us")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why_is_found_in_what_runtimes_write() {
        let python =
            "Traceback (most recent call last):\n  File \"peer.py\", line 3\nValueError: no server\n\n";
        let node = "peer.js:3\nError: no server\n    at main (peer.js:3:9)\n\nNode.js v18.20.4\n";
        let rust = "Error: no server\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(complaint(python), "ValueError: no server");
        assert_eq!([node, rust].map(complaint), ["Error: no server"; 2]);
        assert_eq!(complaint("killed\n\n"), "killed");
        assert_eq!(complaint(""), "it says nothing");
    }
}
