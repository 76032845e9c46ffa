//! `restart`: from `kill -9` of the platform to all its agents at work again.
//!
//! The platform is a process of its own: this program as `platform DIR KIND`, which says on its standard output how far
//! it is, and goes on when it is told to on its standard input.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use events::{EventStore, Position};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::bare::start::Bare;
use crate::rig::Rig;
use crate::samples::Samples;
use crate::sandboxes::{IMAGE_VARIABLE, Sandbox, image};
use crate::table::{Row, Table};
use crate::{Result, Setup};

/// The members, and how many agents each has: of sandboxes that start in milliseconds, and of containers.
const MEMBERS: [&str; 2] = ["one", "two"];
const REPLICAS: (usize, usize) = (100, 20);
/// Tasks in hand when the platform is killed, and how long each takes.
const HELD: usize = 100;
const HELD_MS: u64 = 3_000;
/// How often it is killed, and how often a bare sandbox is started beside that.
const KILLS: usize = 3;
const GOAL: Duration = Duration::from_secs(2);
/// Events read at a time.
const READ_EVENTS: usize = 1_000;
/// How long the platform may take to its next word.
const PATIENCE: Duration = Duration::from_secs(300);

/// The platform's process; killed when it is dropped.
struct Platform {
    child: Child,
    told: ChildStdin,
    said: BufReader<ChildStdout>,
}

pub(crate) async fn run(setup: &Setup, kind: Sandbox) -> Result<Table> {
    let bare = Bare::open(kind).await?;
    let (samples, mut starts, mut restarts) =
        (measure(&setup.directory, kind).await?, Samples::default(), Samples::default());
    for _ in 0..KILLS {
        let mut up = bare.start().await?;
        starts.push(up.took);
        if kind == Sandbox::Docker {
            restarts.push(up.restart().await?);
        }
        up.end().await?;
    }
    let mut table = Table::default();
    table.row(Row::new(bare.what()).samples(&starts));
    if kind == Sandbox::Docker {
        table.row(Row::new("bare Docker restart").samples(&restarts));
    }
    let agents = agents(kind);
    let row = Row::new(format!("kill -9 of the platform to {agents} agents at work")).samples(&samples);
    table.row(match kind {
        Sandbox::Docker => row,
        _ => row.goal("<= 2 s", samples.quantile(1.0) <= GOAL),
    });
    table.note("until each agent has completed a task of its own after the restart; every agent was adopted, none started anew");
    table.note("the platform's start is part of it, with the canary that looks for a way out of a sandbox");
    table.note(format!("{HELD} tasks were in hand at each kill; all completed"));
    Ok(table)
}

fn replicas(kind: Sandbox) -> usize {
    kind.either(REPLICAS.0, REPLICAS.1)
}

fn agents(kind: Sandbox) -> usize {
    MEMBERS.len() * replicas(kind)
}

fn crew(kind: Sandbox) -> String {
    let member = |name| format!("    - {{name: {name}, profile: worker, replicas: {}}}\n", replicas(kind));
    format!(
        "apiVersion: hypercode.dev/v1\nkind: Crew\nmetadata: {{name: bench}}\nspec:\n  entry: one\n  members:\n{}",
        MEMBERS.map(member).concat()
    )
}

async fn measure(directory: &Path, kind: Sandbox) -> Result<Samples> {
    let mut platform = Platform::start(directory, kind)?;
    platform.wait_for("at work").await?;
    let mut samples = Samples::default();
    for _ in 0..KILLS {
        platform.tell("hold").await?;
        platform.wait_for("held").await?;
        let start = Instant::now();
        platform.child.kill().await?;
        platform = Platform::start(directory, kind)?;
        platform.wait_for("at work").await?;
        samples.push(start.elapsed());
        platform.wait_for("all done").await?;
    }
    platform.tell("stop").await?;
    tokio::time::timeout(PATIENCE, platform.child.wait())
        .await
        .map_err(|_| "the platform does not end")??;
    Ok(samples)
}

impl Platform {
    fn start(directory: &Path, kind: Sandbox) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("platform").arg(directory).arg(kind.to_string()).env(IMAGE_VARIABLE, image());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let told = child.stdin.take().ok_or("no stdin")?;
        let said = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, told, said })
    }

    async fn tell(&mut self, word: &str) -> Result<()> {
        Ok(self.told.write_all(format!("{word}\n").as_bytes()).await?)
    }

    async fn wait_for(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.said.read_line(&mut line)).await;
        read.map_err(|_| format!("the platform's process does not say `{expected}`"))??;
        if line.trim_end() == expected {
            return Ok(());
        }
        Err(format!("the platform's process said `{}` instead of `{expected}`", line.trim_end()).into())
    }
}

/// The platform's process itself.
pub(crate) async fn serve(directory: PathBuf, kind: &str) -> Result<()> {
    let kind = Sandbox::from_str(kind, false)?;
    let (crew_file, held) = (directory.join("crew"), directory.join("held"));
    let rig = if crew_file.exists() {
        Rig::resume(&directory, kind, fs::read_to_string(&crew_file)?.parse()?).await?
    } else {
        let rig = Rig::start_in(&directory, kind, &crew(kind)).await?;
        fs::write(&crew_file, rig.crew.as_str())?;
        rig
    };
    let mut tasks = Vec::new();
    for (member, replica) in
        MEMBERS.iter().flat_map(|member| (0..replicas(kind)).map(move |replica| (member, replica)))
    {
        let to = format!("{member}[{replica}]");
        tasks.push(rig.submit(Some(&to), json!({"do": "nothing"})).await?);
    }
    for task in &tasks {
        rig.output(task).await?;
    }
    println!("at work");
    none_started_anew(&*rig.platform.store, agents(kind)).await?;
    if held.exists() {
        for task in fs::read_to_string(&held)?.lines() {
            rig.output(task).await?;
        }
        println!("all done");
    }
    obey(rig, &held).await
}

/// Each agent has had one sandbox, whatever happened to the platform.
async fn none_started_anew(store: &dyn EventStore, agents: usize) -> Result<()> {
    let (mut position, mut sandboxes) = (Position(0), 0);
    loop {
        let events = store.read(position, READ_EVENTS).await?;
        let Some(last) = events.last() else { break };
        position = last.position;
        sandboxes += events.iter().filter(|event| &*event.kind == "sandbox_claimed").count();
    }
    if sandboxes == agents {
        Ok(())
    } else {
        Err(format!("{agents} agents had {sandboxes} sandboxes").into())
    }
}

async fn obey(rig: Rig, held: &Path) -> Result<()> {
    loop {
        let mut word = String::new();
        tokio::task::block_in_place(|| io::stdin().read_line(&mut word))?;
        if word.trim_end() != "hold" {
            return rig.stop().await;
        }
        let mut tasks = String::new();
        for _ in 0..HELD {
            tasks += &rig.submit(None, json!({"do": "sleep", "ms": HELD_MS})).await?;
            tasks.push('\n');
        }
        fs::write(held, tasks)?;
        println!("held");
    }
}
