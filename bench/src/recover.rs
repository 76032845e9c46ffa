//! `recover`: from `kill -9` of an agent's process to its next incarnation being ready.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hypercode::config::SandboxKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::State;

use crate::rig::Rig;
use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup};

const CREW: &str = "
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: bench}
spec:
  entry: worker
  members: [{name: worker, profile: worker}]
  supervision: {strategy: one_for_one, maxRestarts: 1000, within: 1s, backoff: {initial: 1ms, max: 1ms, jitter: 0}}
";

/// Processes that a sandbox consists of: keeper, runner and handler.
const PROCESSES: usize = 3;
/// How much longer than bare starts a recovery may take.
const GOAL: f64 = 1.2;
/// How long a recovery into a fresh native sandbox may take.
const NATIVE_GOAL: Duration = Duration::from_millis(25);
/// Kills in a second of the bench.
const KILLS: u64 = 5;

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let place = |name| setup.directory.join(name);
    let process = Rig::start_in(&place("process"), SandboxKind::Process, CREW).await?;
    let native = Rig::start_in(&place("native"), SandboxKind::Native, CREW).await?;
    let (mut bare, mut plain, mut confined) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..KILLS * setup.seconds {
        bare.push(tokio::task::block_in_place(bare_start)?);
        plain.push(recovery(&process).await?);
        confined.push(recovery(&native).await?);
    }
    process.stop().await?;
    native.stop().await?;
    let ratio = |samples: &Samples| samples.p50().as_secs_f64() / bare.p50().as_secs_f64();
    let mut table = Table::default();
    table.row(Row::new("bare start of 3 processes").samples(&bare));
    let row = Row::new("process: kill -9 of a handler to ready, cold").samples(&plain).ratio(ratio(&plain));
    table.row(row.goal(format!("p50 <= {GOAL} bare"), ratio(&plain) <= GOAL));
    let row =
        Row::new("native: kill -9 of a handler to ready, cold").samples(&confined).ratio(ratio(&confined));
    table.row(row.goal(format!("p50 <= {} ms", NATIVE_GOAL.as_millis()), confined.p50() <= NATIVE_GOAL));
    table.note("no pool; the backoff of 1 ms is part of it");
    table.note(
        "bare: keeper, runner and handler are processes; three of ours, each started and asked once, in turn",
    );
    Ok(table)
}

/// Kills the agent's handler, and waits until its next incarnation is ready.
async fn recovery(rig: &Rig) -> Result<Duration> {
    // Its process as this host sees it, which a handler itself cannot tell.
    let handler = handler(rig).await?;
    let before = rig.platform.store.head().await?.position;
    let start = Instant::now();
    kill(Pid::from_raw(handler), Signal::SIGKILL)?;
    rig.next(before, "agent_ready").await?;
    Ok(start.elapsed())
}

/// The one handler's process: its runner's only child.
async fn handler(rig: &Rig) -> Result<i32> {
    let found = rig.platform.provider.list().await?;
    let runner = found.iter().find_map(|found| match found.state {
        State::Running(Some(runner)) => Some(runner.pid),
        _ => None,
    });
    let runner = runner.ok_or("no sandbox runs")?;
    let children = std::fs::read_to_string(format!("/proc/{runner}/task/{runner}/children"))?;
    Ok(children.split_whitespace().next().ok_or("the runner has no handler")?.parse()?)
}

/// Starts as many processes as a sandbox has, each up to its first answer.
fn bare_start() -> Result<Duration> {
    let start = Instant::now();
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) =
            (child.stdin.as_mut().ok_or("no stdin")?, child.stdout.as_mut().ok_or("no stdout")?);
        writeln!(input, r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{}}}}"#)?;
        BufReader::new(output).read_line(&mut String::new())?;
        children.push(child);
    }
    let elapsed = start.elapsed();
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    Ok(elapsed)
}
