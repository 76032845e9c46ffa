//! `task`: from the command to the durable end of a task whose handler does nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::rig::Rig;
use crate::samples::Samples;
use crate::sandboxes::Sandbox;
use crate::table::{Row, Table, time};
use crate::{Result, Setup};

const CREW: &str = "
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: bench}
spec:
  entry: worker
  members: [{name: worker, profile: worker, replicas: 4}]
";

/// Tasks at once, where many are.
const IN_FLIGHT: usize = 256;
/// Tasks of a second, where many are in flight.
const GOAL_RATE: f64 = 5_000.0;

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let rig = Arc::new(Rig::start_at(&setup.place("rig").await, Sandbox::Process, CREW).await?);
    let turn = Duration::from_secs(setup.seconds);
    repeat(&rig, 1, turn / 4).await?;
    let alone = repeat(&rig, 1, turn).await?;
    let begun = Instant::now();
    let many = repeat(&rig, IN_FLIGHT, turn).await?;
    let rate = many.count() as f64 / begun.elapsed().as_secs_f64();
    Arc::into_inner(rig).ok_or("the rig is still in use")?.stop().await?;
    let mut table = Table::default();
    let limit = 5 * setup.fsync.p50() + Duration::from_millis(1);
    let fsyncs = alone.p50().as_secs_f64() / setup.fsync.p50().as_secs_f64();
    let row = Row::new("one at a time").samples(&alone).rate(1.0 / alone.p50().as_secs_f64()).ratio(fsyncs);
    table.row(row.goal(format!("p50 <= 5 fsyncs + 1 ms = {}", time(limit)), alone.p50() <= limit));
    let row = Row::new(format!("{IN_FLIGHT} in flight")).samples(&many).rate(rate);
    table.row(row.goal(">= 5 000/s", rate >= GOAL_RATE));
    table.note("submitted, attempt started and completed are durable; until the end is read from the log");
    table.note("four handlers of one process each, on stdio; every task completed; the ratio is in fsyncs");
    Ok(table)
}

/// Gives tasks for `turn`, `at_once` in flight, and says how long each took.
async fn repeat(rig: &Arc<Rig>, at_once: usize, turn: Duration) -> Result<Samples> {
    let end = Instant::now() + turn;
    let mut running = JoinSet::new();
    for _ in 0..at_once {
        let rig = Arc::clone(rig);
        running.spawn(async move {
            let mut samples = Samples::default();
            while Instant::now() < end {
                let start = Instant::now();
                rig.run(None, json!({"do": "nothing"})).await?;
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
