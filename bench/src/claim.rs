//! `claim` and `assemble`: from the request to a crew of one, or of five, whose agents are ready: from warm pools and
//! cold, beside the bare start of such sandboxes.

use std::time::{Duration, Instant};

use events::api::Command;
use serde_json::{Value, json};

use crate::bare::start::Bare;
use crate::door::Door;
use crate::pools::{self, Pool};
use crate::rig::{Rig, execute};
use crate::samples::Samples;
use crate::sandboxes::Sandbox;
use crate::steps::Steps;
use crate::table::{Row, Table, time};
use crate::{Result, Setup};

/// What a claim by one agent may take beside two appends.
const CLAIM_GOAL: Duration = Duration::from_millis(3);
/// How long the assembly of five may take at the 95th percentile.
const ASSEMBLE_GOAL: Duration = Duration::from_millis(30);
/// How long a cold start in a native sandbox may take.
const NATIVE_GOAL: Duration = Duration::from_millis(15);
/// Rounds in a second of the bench, of sandboxes that start in milliseconds and of containers.
const ROUNDS: (u64, u64) = (15, 4);
/// How often a bare container is restarted and unpaused.
const BARE_CALLS: usize = 10;

/// One way to a sandbox, and how long it took up to each step.
struct Way {
    name: &'static str,
    /// The pool's name; `None` starts cold.
    pool: Option<&'static str>,
    claimed: Samples,
    ready: Samples,
    answered: Samples,
}

impl Way {
    fn new(name: &'static str, pool: Option<&'static str>) -> Self {
        let (claimed, ready, answered) = Default::default();
        Self { name, pool, claimed, ready, answered }
    }
}

/// Measures crews of so many agents.
pub(crate) async fn run(setup: &Setup, kind: Sandbox, agents: usize) -> Result<Table> {
    let rig = Rig::start_in(&setup.directory.join("rig"), kind, &manifests(kind, agents)).await?;
    let (steps, door) = (Steps::follow(&rig.platform.store).await?, Door::open(&rig).await?);
    let bare = Bare::open(kind).await?;
    let mut ways = vec![
        Way::new("cold", None),
        Way::new("warm, handler started at the claim", Some("running")),
        Way::new("warm, handler up before", Some("ahead")),
    ];
    if kind == Sandbox::Docker {
        ways.push(Way::new("warm, paused until the claim", Some("paused")));
    }
    let mut starts = Samples::default();
    for round in 0..kind.either(ROUNDS.0, ROUNDS.1) * setup.seconds {
        starts.push(together(&bare, agents).await?);
        for (number, way) in ways.iter_mut().enumerate() {
            // The crew of the rig has one agent.
            pools::at_rest(&rig.platform, 1).await?;
            one(&rig, &door, &steps, &format!("crew-{round}-{number}"), agents, way).await?;
        }
    }
    let mut table = Table::default();
    let what =
        if agents == 1 { bare.what().to_owned() } else { format!("{agents} at once: {}", bare.what()) };
    table.row(Row::new(what).samples(&starts));
    if kind == Sandbox::Docker && agents == 1 {
        calls(&bare, &mut table).await?;
    }
    for way in &ways {
        rows(&mut table, way, &starts, kind, agents, setup);
    }
    door.close().await?;
    rig.stop().await?;
    table.note("from the HTTP request on; a claim is durable and a handler READY when the log tells of it, of the last agent");
    table.note(
        "ratios are to the bare start; all are measured in turn, each from pools that are full and at rest",
    );
    Ok(table)
}

fn manifests(kind: Sandbox, agents: usize) -> String {
    let target = 2 * agents;
    let running = Pool { name: "running", target, ahead: false, paused: false, queue: 100 };
    let paused = Pool { name: "paused", target, ahead: false, paused: true, queue: 100 };
    let mut text = running.manifest() + &Pool::ahead(target).manifest();
    if kind == Sandbox::Docker {
        text += &paused.manifest();
    }
    text + &crew("bench", 1, None).to_string()
}

/// The manifest of a crew of so many agents.
pub(crate) fn crew(name: &str, agents: usize, pool: Option<&str>) -> Value {
    let member = json!({"name": "one", "profile": "worker", "replicas": agents, "env": {"DEPTH": "2"}});
    let sandbox = pool.map_or_else(|| json!({}), |pool| json!({"pool": pool}));
    json!({
        "apiVersion": "hypercode.dev/v1",
        "kind": "Crew",
        "metadata": {"name": name},
        "spec": {"entry": "one", "members": [member], "sandbox": sandbox},
    })
}

/// Has a crew assembled, and answers with its id.
pub(crate) async fn assemble(door: &Door, name: &str, agents: usize, pool: Option<&str>) -> Result<String> {
    let body = json!({"manifest": crew(name, agents, pool)});
    let done = door.client.post("/v1/crews/assemble", &body, None).await?;
    Ok(done["id"].as_str().ok_or("the answer has no id")?.to_owned())
}

/// Has a crew's agents end.
pub(crate) async fn disband(rig: &Rig, crew: &str) -> Result<()> {
    let reason = "it was measured".to_owned();
    execute(&rig.platform, None, Command::CrewDisband { crew: crew.parse()?, reason }).await?;
    Ok(())
}

/// How long so many bare starts at once take.
async fn together(bare: &Bare, agents: usize) -> Result<Duration> {
    if agents == 1 {
        return bare.once().await;
    }
    let start = Instant::now();
    let ups = futures_util::future::try_join_all((0..agents).map(|_| bare.start())).await?;
    let took = start.elapsed();
    for up in ups {
        up.end().await?;
    }
    Ok(took)
}

/// Measures what else is asked of bare containers.
async fn calls(bare: &Bare, table: &mut Table) -> Result<()> {
    let (mut unpauses, mut restarts) = (Samples::default(), Samples::default());
    let mut up = bare.start().await?;
    for _ in 0..BARE_CALLS {
        unpauses.push(up.unpause().await?);
        restarts.push(up.restart().await?);
    }
    up.end().await?;
    table.row(Row::new("bare Docker unpause").samples(&unpauses));
    table.row(Row::new("bare Docker restart").samples(&restarts));
    Ok(())
}

/// Has one crew assembled, and ends it.
async fn one(rig: &Rig, door: &Door, steps: &Steps, name: &str, agents: usize, way: &mut Way) -> Result<()> {
    let start = Instant::now();
    let crew = assemble(door, name, agents, way.pool).await?;
    way.answered.push(start.elapsed());
    let seen = steps.of(&crew, agents).await?;
    way.claimed.push(seen.claimed.duration_since(start));
    way.ready.push(seen.ready.duration_since(start));
    disband(rig, &crew).await
}

fn rows(table: &mut Table, way: &Way, starts: &Samples, kind: Sandbox, agents: usize, setup: &Setup) {
    let name = way.name;
    let ratio = way.ready.p50().as_secs_f64() / starts.p50().as_secs_f64();
    table.row(Row::new(format!("{name}: claim durable")).samples(&way.claimed));
    let mut ready = Row::new(format!("{name}: handler READY")).samples(&way.ready).ratio(ratio);
    match way.pool {
        None if agents == 1 && kind == Sandbox::Native => {
            let goal = format!("p50 <= {}", time(NATIVE_GOAL));
            ready = ready.goal(goal, way.ready.p50() <= NATIVE_GOAL);
        }
        Some("ahead") if agents == 1 => {
            let goal = CLAIM_GOAL + 2 * setup.fsync.p50();
            let text = format!("p50 <= {} + 2 fsyncs = {}", time(CLAIM_GOAL), time(goal));
            ready = ready.goal(text, way.ready.p50() <= goal);
        }
        _ => {}
    }
    table.row(ready);
    let mut answered = Row::new(format!("{name}: request answered")).samples(&way.answered);
    if way.pool == Some("ahead") && agents > 1 {
        let p95 = way.answered.quantile(0.95);
        let text = format!("p95 <= {}, is {}", time(ASSEMBLE_GOAL), time(p95));
        answered = answered.goal(text, p95 <= ASSEMBLE_GOAL);
    }
    table.row(answered);
}
