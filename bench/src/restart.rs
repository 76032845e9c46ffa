//! `restart`: from `kill -9` of the platform to all its agents at work again.
//!
//! The platform is a process of its own: this program as `platform DIR`, which says on its standard output how far
//! it is, and goes on when it is told to on its standard input.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use events::{EventStore, Position};
use serde_json::json;

use crate::rig::Rig;
use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup};

const CREW: &str = "
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: bench}
spec:
  entry: one
  members:
    - {name: one, profile: worker, replicas: 100}
    - {name: two, profile: worker, replicas: 100}
";

/// The members, and how many agents each has.
const MEMBERS: [&str; 2] = ["one", "two"];
const REPLICAS: usize = 100;
/// Tasks in hand when the platform is killed, and how long each takes.
const HELD: usize = 100;
const HELD_MS: u64 = 3_000;
/// How often it is killed.
const KILLS: usize = 3;
const GOAL: Duration = Duration::from_secs(2);
/// Events read at a time.
const READ_EVENTS: usize = 1_000;

/// The platform's process.
struct Platform {
    child: Child,
    said: BufReader<ChildStdout>,
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let directory = setup.directory.clone();
    let samples = tokio::task::spawn_blocking(move || measure(&directory)).await??;
    let mut table = Table::default();
    let agents = MEMBERS.len() * REPLICAS;
    let row = Row::new(format!("kill -9 of the platform to {agents} agents at work")).samples(&samples);
    table.row(row.goal("<= 2 s", samples.quantile(1.0) <= GOAL));
    table.note("until each agent has completed a task of its own after the restart; every agent was adopted, none started anew");
    table.note(format!("{HELD} tasks were in hand at each kill; all completed"));
    Ok(table)
}

fn measure(directory: &Path) -> Result<Samples> {
    let mut platform = Platform::start(directory)?;
    platform.wait_for("at work")?;
    let mut samples = Samples::default();
    for _ in 0..KILLS {
        platform.tell("hold")?;
        platform.wait_for("held")?;
        let start = Instant::now();
        platform.child.kill()?;
        platform.child.wait()?;
        platform = Platform::start(directory)?;
        platform.wait_for("at work")?;
        samples.push(start.elapsed());
        platform.wait_for("all done")?;
    }
    platform.tell("stop")?;
    platform.child.wait()?;
    Ok(samples)
}

impl Platform {
    fn start(directory: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child =
            command.arg("platform").arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, said })
    }

    fn tell(&mut self, word: &str) -> Result<()> {
        Ok(writeln!(self.child.stdin.as_mut().ok_or("no stdin")?, "{word}")?)
    }

    fn wait_for(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        if line.trim_end() == expected {
            return Ok(());
        }
        Err(format!("the platform's process said `{}` instead of `{expected}`", line.trim_end()).into())
    }
}

/// The platform's process itself.
pub(crate) async fn serve(directory: PathBuf) -> Result<()> {
    let (crew, held) = (directory.join("crew"), directory.join("held"));
    let rig = if crew.exists() {
        Rig::resume(&directory, fs::read_to_string(&crew)?.parse()?).await?
    } else {
        let rig = Rig::start(&directory, CREW).await?;
        fs::write(&crew, rig.crew.as_str())?;
        rig
    };
    let mut tasks = Vec::new();
    for (member, replica) in
        MEMBERS.iter().flat_map(|member| (0..REPLICAS).map(move |replica| (member, replica)))
    {
        let to = format!("{member}[{replica}]");
        tasks.push(rig.submit(Some(&to), json!({"do": "nothing"})).await?);
    }
    for task in &tasks {
        rig.output(task).await?;
    }
    println!("at work");
    none_started_anew(&*rig.platform.store).await?;
    if held.exists() {
        for task in fs::read_to_string(&held)?.lines() {
            rig.output(task).await?;
        }
        println!("all done");
    }
    obey(rig, &held).await
}

/// Each agent has had one sandbox, whatever happened to the platform.
async fn none_started_anew(store: &dyn EventStore) -> Result<()> {
    let (mut position, mut sandboxes) = (Position(0), 0);
    loop {
        let events = store.read(position, READ_EVENTS).await?;
        let Some(last) = events.last() else { break };
        position = last.position;
        sandboxes += events.iter().filter(|event| &*event.kind == "sandbox_claimed").count();
    }
    let agents = MEMBERS.len() * REPLICAS;
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
