//! `recover`: from `kill -9` of an agent's process to its next incarnation being ready, cold and from a warm pool; and
//! from its being stopped.

use std::time::{Duration, Instant};

use events::Position;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{Id, State, Target};
use serde_json::Value;

use crate::bare::start::Bare;
use crate::pools::{self, Pool};
use crate::rig::Rig;
use crate::samples::Samples;
use crate::sandboxes::Sandbox;
use crate::table::{Row, Table, time};
use crate::{Result, Setup};

/// How much longer than a bare start a cold recovery may take.
const GOAL: f64 = 1.2;
/// How long a recovery into a fresh native sandbox may take.
const NATIVE_GOAL: Duration = Duration::from_millis(25);
/// How long a recovery from a warm pool may take.
const WARM_GOAL: Duration = Duration::from_millis(10);
const WARM_GOAL_P99: Duration = Duration::from_millis(50);
/// Kills in a second of the bench, of sandboxes that start in milliseconds and of containers.
const KILLS: (u64, u64) = (8, 3);
/// How often an agent is stopped in a second of the bench.
const STOPS: u64 = 2;
/// The agent's heartbeat, and how many may be missing.
const HEARTBEAT: Duration = Duration::from_millis(200);
const MISSED: u32 = 3;
/// What stands by.
const STANDING: usize = 3;

/// An agent that dies again and again.
struct Patient {
    rig: Rig,
    sandbox: Id,
}

pub(crate) async fn run(setup: &Setup, kind: Sandbox) -> Result<Table> {
    let bare = Bare::open(kind).await?;
    let mut cold = Patient::start(setup, kind, None).await?;
    let mut warm = Patient::start(setup, kind, Some(Pool::ahead(STANDING))).await?;
    let (mut starts, mut restarts) = (Samples::default(), Samples::default());
    let (mut without, mut with, mut stopped) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..kind.either(KILLS.0, KILLS.1) * setup.seconds {
        let mut up = bare.start().await?;
        starts.push(up.took);
        if kind == Sandbox::Docker {
            restarts.push(up.restart().await?);
        }
        up.end().await?;
        without.push(cold.recovery().await?);
        with.push(warm.recovery().await?);
    }
    for _ in 0..STOPS * setup.seconds {
        stopped.push(warm.stopped().await?);
    }
    cold.rig.stop().await?;
    warm.rig.stop().await?;
    let mut table = Table::default();
    table.row(Row::new(bare.what()).samples(&starts));
    if kind == Sandbox::Docker {
        table.row(Row::new("bare Docker restart").samples(&restarts));
    }
    let ratio = |samples: &Samples| samples.p50().as_secs_f64() / starts.p50().as_secs_f64();
    let row = Row::new("kill -9 of a handler to READY, cold").samples(&without).ratio(ratio(&without));
    table.row(match kind {
        Sandbox::Native => row.goal(format!("p50 <= {}", time(NATIVE_GOAL)), without.p50() <= NATIVE_GOAL),
        _ => row.goal(format!("p50 <= {GOAL} bare"), ratio(&without) <= GOAL),
    });
    let is_met = with.p50() <= WARM_GOAL && with.p99() <= WARM_GOAL_P99;
    let row = Row::new("kill -9 of a handler to READY, warm").samples(&with).ratio(ratio(&with));
    table.row(row.goal(format!("p50 <= {}, p99 <= {}", time(WARM_GOAL), time(WARM_GOAL_P99)), is_met));
    let limit = MISSED * HEARTBEAT + WARM_GOAL;
    let row = Row::new("SIGSTOP of a runner to READY, warm").samples(&stopped);
    table.row(row.goal(format!("p50 <= {MISSED} heartbeats + {}", time(WARM_GOAL)), stopped.p50() <= limit));
    table.note("the backoff of 1 ms is part of it; READY when the log tells of it");
    table.note(format!(
        "warm: from a pool of {STANDING}, full and at rest, with handlers up before; a heartbeat is {}",
        time(HEARTBEAT)
    ));
    Ok(table)
}

fn crew(pool: Option<&Pool>) -> String {
    let sandbox = pool.map(|pool| format!("  sandbox: {{pool: {}}}\n", pool.name)).unwrap_or_default();
    format!(
        "apiVersion: hypercode.dev/v1\nkind: Crew\nmetadata: {{name: bench}}\nspec:\n  entry: worker\n  \
         members: [{{name: worker, profile: worker}}]\n  supervision: {{strategy: one_for_one, maxRestarts: 1000, \
         within: 1s, backoff: {{initial: 1ms, max: 1ms, jitter: 0}}}}\n  \
         liveness: {{heartbeat: {}ms, missed: {MISSED}}}\n{sandbox}",
        HEARTBEAT.as_millis()
    )
}

impl Patient {
    async fn start(setup: &Setup, kind: Sandbox, pool: Option<Pool>) -> Result<Self> {
        let name = if pool.is_some() { "warm" } else { "cold" };
        let pool_manifest = pool.as_ref().map(Pool::manifest).unwrap_or_default();
        let manifests = pool_manifest + &crew(pool.as_ref());
        let rig = Rig::start_in(&setup.directory.join(name), kind, &manifests).await?;
        let sandbox = claimed(&rig, Position(0)).await?;
        Ok(Self { rig, sandbox })
    }

    /// Kills the agent's handler, and waits until its next incarnation is ready.
    async fn recovery(&mut self) -> Result<Duration> {
        pools::at_rest(&self.rig.platform, 1).await?;
        // Its process as this host sees it, which a handler itself cannot tell.
        let handler = self.handler().await?;
        let before = self.rig.platform.store.head().await?.position;
        let start = Instant::now();
        kill(Pid::from_raw(handler), Signal::SIGKILL)?;
        self.ready(before, start).await
    }

    /// Has the agent's runner stand still, and waits until its next incarnation is ready.
    async fn stopped(&mut self) -> Result<Duration> {
        pools::at_rest(&self.rig.platform, 1).await?;
        let before = self.rig.platform.store.head().await?.position;
        let start = Instant::now();
        self.rig.platform.provider.signal(&self.sandbox, Target::Runner, sandbox::Signal::Stop).await?;
        self.ready(before, start).await
    }

    async fn ready(&mut self, before: Position, start: Instant) -> Result<Duration> {
        self.rig.next(before, "agent_ready").await?;
        let took = start.elapsed();
        self.sandbox = claimed(&self.rig, before).await?;
        Ok(took)
    }

    /// The handler's process: its runner's only child.
    async fn handler(&self) -> Result<i32> {
        let found = self.rig.platform.provider.find(&self.sandbox).await?;
        let Some(State::Running(Some(runner))) = found.map(|found| found.state) else {
            return Err("the agent's sandbox does not run".into());
        };
        let runner = runner.pid;
        let children = std::fs::read_to_string(format!("/proc/{runner}/task/{runner}/children"))?;
        Ok(children.split_whitespace().next().ok_or("the runner has no handler")?.parse()?)
    }
}

/// The sandbox that was claimed first after `before`.
async fn claimed(rig: &Rig, before: Position) -> Result<Id> {
    let event = rig.next(before, "sandbox_claimed").await?;
    let payload: Value = serde_json::from_str(&event.payload)?;
    Ok(Id::new(payload["sandbox"].as_str().unwrap_or_default())?)
}
