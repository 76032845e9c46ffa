//! `claim`: from the command to an agent that is ready, from a warm pool and cold, and as often as until the pool drains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::api::Command;
use serde_json::json;

use crate::rig::{Rig, execute};
use crate::samples::Samples;
use crate::table::{Row, Table, time};
use crate::{Result, Setup};

/// The crew that the rig has, and the pool.
const MANIFESTS: &str = "
apiVersion: hypercode.dev/v1
kind: Pool
metadata: {name: warm}
spec:
  size: {min: 30, max: 30, target: 30}
  refill: {concurrency: 4}
  queue: {whenEmpty: cold, length: 20, deadline: 10s}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: bench}
spec:
  entry: one
  members:
    - {name: one, profile: worker}
";

/// Agents that are started one after the other, each way.
const ALONE: usize = 60;
/// Arrivals a second, one after the other, each from a full pool.
const RATES: [u32; 5] = [5, 10, 20, 45, 90];
/// What a claim may take beside two appends.
const GOAL: Duration = Duration::from_millis(3);
/// How long the pool may take to be full again.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

/// How long an agent's start took, up to each step.
#[derive(Default)]
struct Steps {
    claimed: Samples,
    ready: Samples,
    assembled: Samples,
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let rig = Arc::new(Rig::start(&setup.directory, MANIFESTS).await?);
    let (mut warm, mut cold) = (Steps::default(), Steps::default());
    for number in 0..ALONE {
        full(&rig).await?;
        one(&rig, &format!("warm-{number}"), true, &mut warm).await?;
        one(&rig, &format!("cold-{number}"), false, &mut cold).await?;
    }
    let mut table = Table::default();
    for (name, steps) in [("cold", &cold), ("warm", &warm)] {
        table.row(Row::new(format!("{name}: claim durable")).samples(&steps.claimed));
        let mut ready = Row::new(format!("{name}: handler READY")).samples(&steps.ready);
        if name == "warm" {
            let goal = GOAL + 2 * setup.fsync.p50();
            ready = ready.ratio(steps.ready.p50().as_secs_f64() / cold.ready.p50().as_secs_f64());
            ready = ready.goal(format!("p50 <= 3 ms + 2 fsyncs = {}", time(goal)), steps.ready.p50() <= goal);
        }
        table.row(ready);
        table.row(Row::new(format!("{name}: crew of one assembled")).samples(&steps.assembled));
    }
    for rate in RATES {
        table.row(arrivals(&rig, rate, setup.seconds).await?);
    }
    table.note("the ratio is that of warm to cold; the handler is started at the claim, not ahead");
    table.note("arrivals: crews of one, each disbanded once it is assembled, from a full pool of 30, at most 4 made at once");
    let rig = Arc::into_inner(rig).ok_or("something still uses the platform")?;
    let drain = Command::PoolDrain { name: "warm".to_owned(), reason: "the bench is over".to_owned() };
    execute(&rig.platform, None, drain).await?;
    until(|| rig.platform.pools().iter().all(|pool| pool.ready + pool.warming + pool.claimed == 0)).await?;
    rig.stop().await?;
    Ok(table)
}

async fn until(done: impl Fn() -> bool) -> Result<()> {
    let waited = async {
        while !done() {
            tokio::time::sleep(LOOK).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, waited).await.map_err(|_| "the pool does not come to rest")?)
}

/// Waits until the pool is full and at rest.
async fn full(rig: &Rig) -> Result<()> {
    until(|| rig.platform.pools().iter().all(|pool| pool.ready == pool.target && pool.claimed == 0)).await
}

fn assemble(name: &str, from_pool: bool) -> Command {
    let sandbox = if from_pool { json!({"pool": "warm"}) } else { json!({}) };
    let text = json!({
        "apiVersion": "hypercode.dev/v1",
        "kind": "Crew",
        "metadata": {"name": name},
        "spec": {"entry": "one", "members": [{"name": "one", "profile": "worker"}], "sandbox": sandbox},
    });
    let parsed = manifest::parse("bench", text.to_string().as_bytes());
    let spec = parsed.manifests.first().map(|manifest| match manifest {
        manifest::Manifest::Crew(crew) => json!(crew.spec),
        _ => json!(null),
    });
    Command::CrewAssemble {
        name: name.to_owned(),
        labels: Default::default(),
        spec: spec.unwrap_or_default(),
    }
}

/// Starts one agent, and ends it.
async fn one(rig: &Rig, name: &str, from_pool: bool, steps: &mut Steps) -> Result<()> {
    let before = rig.platform.store.head().await?.position;
    let start = Instant::now();
    let claimed = async {
        rig.next(before, "sandbox_claimed").await?;
        let claimed = start.elapsed();
        rig.next(before, "agent_ready").await?;
        Ok((claimed, start.elapsed()))
    };
    let assembled = async {
        let reply = execute(&rig.platform, None, assemble(name, from_pool)).await?;
        Ok((reply.id, start.elapsed()))
    };
    let (seen, assembled): (Result<_>, Result<_>) = tokio::join!(claimed, assembled);
    let ((claimed, ready), (crew, assembled)) = (seen?, assembled?);
    steps.claimed.push(claimed);
    steps.ready.push(ready);
    steps.assembled.push(assembled);
    disband(rig, &crew).await
}

async fn disband(rig: &Rig, crew: &str) -> Result<()> {
    let reason = "it was measured".to_owned();
    execute(&rig.platform, None, Command::CrewDisband { crew: crew.parse()?, reason }).await?;
    Ok(())
}

/// Has crews of one come so often, from a pool that is full at first.
async fn arrivals(rig: &Arc<Rig>, per_second: u32, seconds: u64) -> Result<Row> {
    full(rig).await?;
    let before: Vec<_> = rig.platform.pools().iter().map(|pool| pool.counts).collect();
    let count = u64::from(per_second) * seconds;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    let start = Instant::now();
    let mut coming = Vec::new();
    for number in 0..count {
        tick.tick().await;
        let (rig, name) = (Arc::clone(rig), format!("at-{per_second}-{number}"));
        coming.push(tokio::spawn(async move {
            let start = Instant::now();
            let reply = execute(&rig.platform, None, assemble(&name, true)).await;
            let took = start.elapsed();
            if let Ok(reply) = &reply {
                disband(&rig, &reply.id).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(reply.is_ok().then_some(took))
        }));
    }
    let mut samples = Samples::default();
    for come in coming {
        if let Some(took) = come.await?? {
            samples.push(took);
        }
    }
    let took = start.elapsed().as_secs_f64();
    let after = rig.platform.pools();
    let (warm, cold) = after.iter().zip(before).fold((0, 0), |(warm, cold), (pool, before)| {
        (warm + pool.counts.warm - before.warm, cold + pool.counts.cold - before.cold)
    });
    let refused = count - samples.count() as u64;
    let what = format!("{per_second}/s arrive: {warm} warm, {cold} cold, {refused} refused");
    Ok(Row::new(what).samples(&samples).rate(samples.count() as f64 / took))
}
