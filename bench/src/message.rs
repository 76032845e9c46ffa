//! `message`: from an agent's `message/send` to another agent's handler, durable before it is delivered.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
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
  entry: sender
  members:
    - {name: sender, profile: worker, replicas: 4}
    - {name: receiver, profile: worker, replicas: 4}
  channels: [{from: sender, to: receiver, kinds: [message], rate: 100000/s}]
";

/// Pairs of agents, where many send.
const PAIRS: usize = 4;
/// Messages of one sender that are not durable yet, where many send; as many calls as a sandbox may have open.
const WINDOW: u64 = 64;
/// Messages of each sender in a second of the bench: one at a time, and with others.
const ALONE: u64 = 500;
const TOGETHER: u64 = 2_500;
/// Messages of a second, where many send.
const GOAL_RATE: f64 = 20_000.0;

/// What one receiver got.
struct Received {
    count: u64,
    p50: Duration,
    p99: Duration,
    first_us: u64,
    last_us: u64,
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let rig = Arc::new(Rig::start_at(&setup.place("rig").await, Sandbox::Process, CREW).await?);
    pass(&rig, 0, ALONE, 1).await?;
    let alone = pass(&rig, 0, ALONE * setup.seconds, 1).await?;
    let count = TOGETHER * setup.seconds;
    let mut running = JoinSet::new();
    for pair in 0..PAIRS {
        let rig = Arc::clone(&rig);
        running.spawn(async move { pass(&rig, pair, count, WINDOW).await });
    }
    let mut together = Vec::new();
    while let Some(received) = running.join_next().await {
        together.push(received??);
    }
    Arc::into_inner(rig).ok_or("the rig is still in use")?.stop().await?;
    Ok(table(setup, &alone, &together))
}

fn table(setup: &Setup, alone: &Received, together: &[Received]) -> Table {
    let mut table = Table::default();
    let limit = 2 * setup.fsync.p50() + Duration::from_micros(500);
    let row = Row::new("one at a time")
        .measured(alone.count, alone.p50, alone.p99)
        .rate(rate(std::slice::from_ref(alone)));
    let row = row.ratio(alone.p50.as_secs_f64() / setup.fsync.p50().as_secs_f64());
    table.row(row.goal(format!("p50 <= 2 fsyncs + 0.5 ms = {}", time(limit)), alone.p50 <= limit));
    let medians: Samples = together.iter().map(|received| received.p50).collect();
    let worst = together.iter().map(|received| received.p99).max().unwrap_or_default();
    let count = together.iter().map(|received| received.count).sum();
    let row =
        Row::new(format!("{PAIRS} pairs, {WINDOW} in flight each")).measured(count, medians.p50(), worst);
    table.row(row.rate(rate(together)).goal(">= 20 000/s", rate(together) >= GOAL_RATE));
    table.note(
        "from before `message/send` in one process to `message/deliver` in another; the ratio is in fsyncs",
    );
    table.note(
        "with pairs: p50 is the median of the pairs' p50, p99 the worst of theirs; every message arrived",
    );
    table
}

fn rate(all: &[Received]) -> f64 {
    let first = all.iter().map(|received| received.first_us).min().unwrap_or_default();
    let last = all.iter().map(|received| received.last_us).max().unwrap_or_default();
    let count: u64 = all.iter().map(|received| received.count).sum();
    count as f64 * 1e6 / last.saturating_sub(first).max(1) as f64
}

/// Has the `pair`-th sender send `count` messages to its receiver, `window` at a time, until all have come.
async fn pass(rig: &Rig, pair: usize, count: u64, window: u64) -> Result<Received> {
    let (sender, receiver) = (format!("sender[{pair}]"), format!("receiver[{pair}]"));
    let work = json!({"do": "send", "to": receiver, "count": count, "window": window});
    rig.run(Some(&sender), work).await?;
    let told = rig.run(Some(&receiver), json!({"do": "tell_received", "count": count})).await?;
    let number = |field: &str| told.get(field).and_then(Value::as_u64).ok_or("the receiver says nothing");
    let received = Received {
        count: number("count")?,
        p50: Duration::from_micros(number("p50Us")?),
        p99: Duration::from_micros(number("p99Us")?),
        first_us: number("firstUs")?,
        last_us: number("lastUs")?,
    };
    if received.count != count {
        return Err(format!("{} of {count} messages arrived", received.count).into());
    }
    Ok(received)
}
