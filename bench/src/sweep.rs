//! `sweep`: claims that come more and more often, until the pool drains; and claims of a pool that has nothing.
//!
//! Arrivals are open-loop: a Poisson process at a rate that does not care how long claims take, each timed from when it
//! was due.

mod plot;

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::api::{Problem, ProblemKind};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use self::plot::{Curve, Point};
use crate::bare::start::Bare;
use crate::door::Door;
use crate::pools::{self, Pool};
use crate::rig::Rig;
use crate::samples::Samples;
use crate::sandboxes::Sandbox;
use crate::steps::{Seen, Steps};
use crate::table::{Row, Table, time};
use crate::{Result, Setup, claim, machine};

/// Arrivals a second, one after the other, each from a full pool, until one drains it.
const RATES: [u32; 8] = [5, 10, 20, 45, 90, 180, 360, 720];
/// The rate of the published figures that ours stand beside, and which a full pool is to serve.
const PEER_RATE: u32 = 45;
/// Arrivals at a rate, at least.
const ARRIVALS_MIN: u32 = 40;
/// What stands by: so many as come in the time of a measurement at the peer's rate, within these.
const POOL: (usize, usize) = (20, 200);
/// What a claim may take beside two appends at that rate, and at the 99th percentile.
const GOAL: Duration = Duration::from_millis(3);
const GOAL_P99: Duration = Duration::from_millis(20);
/// The share of the bare cold rate at which claims of an empty pool are to take at most so many times a bare start.
const COLD_SHARE: f64 = 0.7;
const COLD_GOAL: f64 = 1.5;
/// How many times the bare cold rate is too much, and how soon a refusal is to come.
const TOO_MUCH: f64 = 3.0;
const REFUSAL_GOAL: Duration = Duration::from_millis(10);
/// The same arrivals in every run.
const SEED: u64 = 45;
/// Crews that may wait for an empty pool.
const QUEUE: usize = 8;
/// The pool that never has anything.
const EMPTY: &str = "empty";

/// What became of the claims at one rate.
#[derive(Default)]
struct Outcome {
    claimed: Samples,
    ready: Samples,
    refused: Samples,
    /// Taken, but not served within the pool's deadline.
    failed: u64,
    warm: u64,
    cold: u64,
}

impl Outcome {
    /// Whether any claim was not served at once with what stood by.
    fn is_drained(&self) -> bool {
        self.cold + self.failed > 0 || self.refused.count() > 0
    }
}

/// A platform with its pools, to which claims come.
struct Stage {
    kind: Sandbox,
    rig: Arc<Rig>,
    door: Arc<Door>,
    steps: Arc<Steps>,
    bare: Bare,
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let mut table = Table::default();
    let mut curves = Vec::new();
    for kind in &setup.sandboxes {
        let stage = Stage::open(setup, *kind).await?;
        curves.push(stage.rates(setup, &mut table).await?);
        stage.empty(setup, &mut table).await?;
        stage.close().await?;
    }
    table.note(
        "crews of one, each disbanded once it is ready; Poisson arrivals, timed from when each was due",
    );
    table.note(format!(
        "the pool: handlers up before the claim, {} stand by at first, at most {} made at once; the last rate of a kind drains it",
        standing(setup),
        Pool::AT_ONCE
    ));
    table.note(format!(
        "the empty pool: {} cold starts at once, {QUEUE} wait; bare: as many at once, each removed before the next",
        Pool::AT_ONCE
    ));
    write(setup, &curves, &table)?;
    Ok(table)
}

/// Writes table and plot beside each other.
fn write(setup: &Setup, curves: &[Curve], table: &Table) -> Result<()> {
    std::fs::create_dir_all(&setup.plots)?;
    std::fs::write(setup.plots.join("claim-rates.svg"), plot::svg(curves))?;
    let place = setup.directory.parent().unwrap_or(&setup.directory);
    let about = machine::describe(place);
    let text = format!("{}\n{about}\n\n{table}- {}\n", plot::PAGE, setup.fsync_note());
    std::fs::write(setup.plots.join("claim-rates.md"), text)?;
    Ok(())
}

fn standing(setup: &Setup) -> usize {
    let arrivals = u64::from(PEER_RATE) * setup.seconds;
    usize::try_from(arrivals).unwrap_or(POOL.1).clamp(POOL.0, POOL.1)
}

impl Stage {
    async fn open(setup: &Setup, kind: Sandbox) -> Result<Self> {
        let empty = Pool { name: EMPTY, target: 0, ahead: false, paused: false, queue: QUEUE };
        let manifests = Pool::ahead(standing(setup)).manifest() + &empty.manifest();
        let manifests = manifests + &claim::crew("bench", 1, None).to_string();
        let rig = Rig::start_in(&setup.directory.join(kind.to_string()), kind, &manifests).await?;
        let (steps, door) = (Steps::follow(&rig.platform.store).await?, Door::open(&rig).await?);
        let (rig, door, steps, bare) =
            (Arc::new(rig), Arc::new(door), Arc::new(steps), Bare::open(kind).await?);
        Ok(Self { kind, rig, door, steps, bare })
    }

    async fn close(self) -> Result<()> {
        Arc::into_inner(self.door).ok_or("something still uses the API")?.close().await?;
        Arc::into_inner(self.rig).ok_or("something still uses the platform")?.stop().await
    }

    /// More and more claims of a pool that is full at first.
    async fn rates(&self, setup: &Setup, table: &mut Table) -> Result<Curve> {
        let mut points = Vec::new();
        for rate in RATES {
            let outcome = self.arrivals("ahead", rate.into(), setup.seconds).await?;
            let what = format!("{}, {rate}/s", self.kind);
            table.row(Row::new(format!("{what}: claim durable")).samples(&outcome.claimed));
            let Outcome { warm, cold, failed, .. } = outcome;
            let refused = outcome.refused.count();
            let what =
                format!("{what}: READY ({warm} warm, {cold} cold, {refused} refused, {failed} failed)");
            let mut row = Row::new(what).samples(&outcome.ready);
            let (p50, p99) = (outcome.ready.p50(), outcome.ready.p99());
            if rate == PEER_RATE {
                let goal = GOAL + 2 * setup.fsync.p50();
                let text = format!("p50 <= {}, p99 <= {}", time(goal), time(GOAL_P99));
                row = row.goal(text, p50 <= goal && p99 <= GOAL_P99);
            }
            table.row(row);
            let is_drained = outcome.is_drained();
            if outcome.ready.count() > 0 {
                points.push(Point { per_second: rate.into(), p50, p99, is_drained });
            }
            if is_drained {
                break;
            }
        }
        Ok(Curve { kind: self.kind, points })
    }

    /// Claims of a pool that has nothing, below and above what the machine can start.
    async fn empty(&self, setup: &Setup, table: &mut Table) -> Result<()> {
        pools::at_rest(&self.rig.platform, 1).await?;
        let begun = Instant::now();
        let bare = self.bare_starts(Duration::from_secs(setup.seconds)).await?;
        let rate = bare.count() as f64 / begun.elapsed().as_secs_f64();
        let name = format!("{}, empty pool", self.kind);
        let what = format!("{name}: {}, {} at once", self.bare.what(), Pool::AT_ONCE);
        table.row(Row::new(what).samples(&bare).rate(rate));
        let below = self.arrivals(EMPTY, COLD_SHARE * rate, setup.seconds).await?;
        let ratio = below.ready.p99().as_secs_f64() / bare.p99().as_secs_f64();
        let missing = below.refused.count() as u64 + below.failed;
        let what = format!("{name}, {COLD_SHARE} of that rate: READY ({missing} refused or failed)");
        let row = Row::new(what).samples(&below.ready).ratio(ratio);
        table.row(
            row.goal(
                format!("p99 <= {COLD_GOAL} of bare p99, all served"),
                ratio <= COLD_GOAL && missing == 0,
            ),
        );
        let above = self.arrivals(EMPTY, TOO_MUCH * rate, setup.seconds).await?;
        let what = format!("{name}, {TOO_MUCH} times that rate: READY ({} failed)", above.failed);
        table.row(Row::new(what).samples(&above.ready));
        let (refused, p99) = (&above.refused, above.refused.p99());
        let row = Row::new(format!("{name}, {TOO_MUCH} times that rate: refused")).samples(refused);
        let is_met = refused.count() > 0 && p99 <= REFUSAL_GOAL;
        table.row(row.goal(format!("some, p99 <= {}", time(REFUSAL_GOAL)), is_met));
        Ok(())
    }

    /// As many bare starts at once as a pool has, one after the other for so long.
    async fn bare_starts(&self, turn: Duration) -> Result<Samples> {
        let end = Instant::now() + turn;
        let lane = async || {
            let mut samples = Samples::default();
            while Instant::now() < end {
                samples.push(self.bare.once().await?);
            }
            Result::Ok(samples)
        };
        let lanes = futures_util::future::try_join_all((0..Pool::AT_ONCE).map(|_| lane())).await?;
        let mut all = Samples::default();
        lanes.into_iter().for_each(|samples| all.merge(samples));
        Ok(all)
    }

    /// Has crews of one come so often, once the pools are full and at rest.
    async fn arrivals(&self, pool: &'static str, per_second: f64, seconds: u64) -> Result<Outcome> {
        pools::at_rest(&self.rig.platform, 1).await?;
        let (warm, cold) = self.counted(pool);
        let count = (per_second * seconds as f64).max(f64::from(ARRIVALS_MIN)) as u32;
        let mut random = SmallRng::seed_from_u64(SEED);
        let (mut due, mut coming) = (Instant::now(), Vec::new());
        for number in 0..count {
            due += Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() / per_second);
            tokio::time::sleep_until(due.into()).await;
            let (rig, door, steps) = (Arc::clone(&self.rig), Arc::clone(&self.door), Arc::clone(&self.steps));
            coming.push(tokio::spawn(async move {
                let name = format!("{pool}-{:.0}-{number}", per_second * 100.0);
                let arrived = claimed(&rig, &door, &steps, &name, pool).await;
                arrived.map(|arrived| (arrived, due, Instant::now()))
            }));
        }
        let mut outcome = Outcome::default();
        for come in coming {
            match come.await?? {
                (Arrived::Ready(seen), due, _) => {
                    outcome.claimed.push(seen.claimed.duration_since(due));
                    outcome.ready.push(seen.ready.duration_since(due));
                }
                (Arrived::Refused, due, at) => outcome.refused.push(at.duration_since(due)),
                (Arrived::Failed, ..) => outcome.failed += 1,
            }
        }
        let (now_warm, now_cold) = self.counted(pool);
        (outcome.warm, outcome.cold) = (now_warm - warm, now_cold - cold);
        Ok(outcome)
    }

    /// How many claims of the pool were warm, and how many cold.
    fn counted(&self, name: &str) -> (u64, u64) {
        let figures = self.rig.platform.pools();
        let pool = figures.iter().find(|pool| pool.name == name);
        pool.map_or((0, 0), |pool| (pool.counts.warm, pool.counts.cold))
    }
}

/// What became of one claim.
enum Arrived {
    Ready(Seen),
    /// At once: too many wait already (429).
    Refused,
    Failed,
}

/// Has one crew of one assembled, and ends it.
async fn claimed(rig: &Rig, door: &Door, steps: &Steps, name: &str, pool: &str) -> Result<Arrived> {
    let crew = match claim::assemble(door, name, 1, Some(pool)).await {
        Ok(crew) => crew,
        Err(error) => match error.downcast_ref::<Problem>().map(|problem| problem.kind) {
            Some(ProblemKind::Busy) => return Ok(Arrived::Refused),
            Some(ProblemKind::Failed) => return Ok(Arrived::Failed),
            _ => return Err(error),
        },
    };
    let seen = steps.of(&crew, 1).await?;
    claim::disband(rig, &crew).await?;
    Ok(Arrived::Ready(seen))
}
