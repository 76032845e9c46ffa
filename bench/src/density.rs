//! `density`: how much memory many agents and many sandboxes take, and how soon an empty platform is up.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::api::{Command, Target};
use events::domain::DomainEvent;
use events::domain::agent::{Event, Quarantined, Requested};
use events::store::sqlite::{self, Sqlite};
use events::{
    AgentId, AppendRequest, CommandId, CrewId, Digest, EntityKind, EventStore, Expected, Meta, Principal,
    StreamId, Tenant, Timestamp,
};
use hypercode::config::Config;
use hypercode::platform::Platform;
use tokio::task::JoinSet;

use crate::bare::start::Bare;
use crate::pools::{self, Pool};
use crate::rig::{Rig, execute};
use crate::samples::Samples;
use crate::sandboxes::Sandbox;
use crate::table::{Row, Table};
use crate::{Result, Setup, claim};

/// Agents that the log knows.
const KNOWN: u32 = 100_000;
/// Of those, agents whose actors are in memory.
const RESIDENT: u32 = 10_000;
/// Agents of a crew.
const CREW_AGENTS: u32 = 100;
/// Appends and commands at once.
const AT_ONCE: usize = 256;
/// Sandboxes that stand by: of those that start in milliseconds, and containers.
const STANDING: (u32, u32) = (50, 20);
const GOAL_BYTES: u64 = 1 << 30;
/// Starts over an empty directory.
const STARTS: usize = 10;
const GOAL_START: Duration = Duration::from_millis(150);

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let mut table = Table::default();
    let starts = starts(&setup.directory).await?;
    let row = Row::new("start over an empty directory").samples(&starts);
    table.row(row.goal("p50 <= 150 ms", starts.p50() <= GOAL_START));
    let directory = setup.directory.join("many");
    fill(&directory.join("data")).await?;
    let empty = resident_bytes()?;
    let config = Config { data_dir: directory.join("data"), ..Config::default() };
    let start = Instant::now();
    let platform = Arc::new(Platform::start(&config).await?);
    let first = start.elapsed();
    touch(&platform).await?;
    let (entities, bytes) = (platform.figures().resident_entities, resident_bytes()?);
    let row =
        Row::new(format!("{KNOWN} agents known, {entities} actors in memory")).measured(1, first, first);
    table.row(
        row.memory(bytes)
            .goal("<= 1 GiB, 10 000 actors", bytes <= GOAL_BYTES && entities >= RESIDENT as usize),
    );
    Arc::into_inner(platform).ok_or("the platform is still in use")?.shutdown().await;
    table.note(format!(
        "resident memory of the whole process; {} MiB of it before the platform started",
        empty >> 20
    ));
    table.note("the agents are quarantined: known, loadable, without sandboxes; their time is that of the start, views made anew");
    for kind in &setup.sandboxes {
        standing(setup, *kind, &mut table).await?;
    }
    table.note("sandboxes: what of the machine's memory is less available while they stand by, each; rates are those of filling");
    Ok(table)
}

/// How much of the machine's memory sandboxes take that stand by with a handler each, beside bare ones.
async fn standing(setup: &Setup, kind: Sandbox, table: &mut Table) -> Result<()> {
    let count: u32 = kind.either(STANDING.0, STANDING.1);
    let bare = Bare::open(kind).await?;
    let (before, start) = (available_bytes()?, Instant::now());
    let mut ups = Vec::new();
    for _ in 0..count {
        ups.push(bare.start().await?);
    }
    let each = |before: u64, now: u64| before.saturating_sub(now) / u64::from(count);
    let row = Row::new(format!("{kind}: each of {count}, {}", bare.what())).count(count.into());
    table.row(row.each(each(before, available_bytes()?), f64::from(count) / start.elapsed().as_secs_f64()));
    for up in ups {
        up.end().await?;
    }
    let empty = Pool::ahead(0).manifest() + &claim::crew("bench", 1, None).to_string();
    let rig = Rig::start_in(&setup.directory.join(kind.to_string()), kind, &empty).await?;
    pools::at_rest(&rig.platform, 1).await?;
    let (before, start) = (available_bytes()?, Instant::now());
    let resize = Command::PoolResize {
        name: "ahead".to_owned(),
        min: None,
        max: None,
        target: Some(Target::Pinned(count)),
    };
    execute(&rig.platform, None, resize).await?;
    pools::at_rest(&rig.platform, 1).await?;
    let row = Row::new(format!("{kind}: each of {count} that stand by, handler up")).count(count.into());
    table.row(row.each(each(before, available_bytes()?), f64::from(count) / start.elapsed().as_secs_f64()));
    rig.stop().await
}

async fn starts(directory: &Path) -> Result<Samples> {
    let mut samples = Samples::default();
    for number in 0..STARTS {
        let config = Config { data_dir: directory.join(format!("empty-{number}")), ..Config::default() };
        let start = Instant::now();
        let platform = Platform::start(&config).await?;
        samples.push(start.elapsed());
        platform.shutdown().await;
    }
    Ok(samples)
}

fn agent(number: u32) -> AgentId {
    AgentId::derive(&["bench", &number.to_string()])
}

/// Writes the histories of agents that were set aside.
async fn fill(directory: &Path) -> Result<()> {
    let store = Sqlite::open(directory, sqlite::Options::default()).await?;
    let mut running = JoinSet::new();
    for number in 0..KNOWN {
        if running.len() >= AT_ONCE {
            running.join_next().await.ok_or("nothing runs")???;
        }
        let (store, request) = (store.clone(), history(number));
        running.spawn(async move { store.append(request).await.map(drop) });
    }
    while let Some(appended) = running.join_next().await {
        appended??;
    }
    store.close().await;
    Ok(())
}

fn history(number: u32) -> AppendRequest {
    let requested = Requested {
        agent: agent(number),
        tenant: Tenant::default(),
        crew: CrewId::derive(&["bench", &(number / CREW_AGENTS).to_string()]),
        member: "worker".to_owned(),
        replica: number % CREW_AGENTS,
        profile: "worker".to_owned(),
        profile_version: 1,
        profile_digest: Digest::of(b"worker"),
    };
    let quarantined = Quarantined { reason: "its restarts are used up".to_owned() };
    AppendRequest {
        stream: StreamId::new(EntityKind::Agent, agent(number).as_str()),
        expected: Expected::NONE,
        command_id: CommandId::fresh(),
        command_digest: None,
        epoch: None,
        meta: Meta {
            tenant: Tenant::default(),
            principal: Principal::system("bench"),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
        },
        recorded_at: Timestamp::now(),
        events: vec![Event::Requested(requested).encode(), Event::Quarantined(quarantined).encode()],
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

/// Has so many actors loaded. Their crews do not exist, so each command is refused once its agent was read.
async fn touch(platform: &Arc<Platform>) -> Result<()> {
    let mut running = JoinSet::new();
    for number in 0..RESIDENT {
        if running.len() >= AT_ONCE {
            running.join_next().await.ok_or("nothing runs")??;
        }
        let platform = Arc::clone(platform);
        running.spawn(async move {
            let refused = execute(&platform, None, Command::AgentRestart { agent: agent(number) }).await;
            drop(refused);
        });
    }
    while let Some(done) = running.join_next().await {
        done?;
    }
    Ok(())
}

/// The resident memory of this process, in bytes.
fn resident_bytes() -> Result<u64> {
    bytes("/proc/self/status", "VmRSS:")
}

/// What of the machine's memory could be used without swapping, in bytes (`MemAvailable`, proc_meminfo(5)).
fn available_bytes() -> Result<u64> {
    bytes("/proc/meminfo", "MemAvailable:")
}

fn bytes(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.starts_with(name)).ok_or_else(|| format!("no {name}"))?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib * 1024)
}
