//! `recover`: from `kill -9` of an agent's process to its next incarnation being ready.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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
  entry: worker
  members: [{name: worker, profile: worker}]
  supervision: {strategy: one_for_one, maxRestarts: 1000, within: 1s, backoff: {initial: 1ms, max: 1ms, jitter: 0}}
";

/// Processes that a sandbox consists of: keeper, runner and handler.
const PROCESSES: usize = 3;
/// How much longer than bare starts a recovery may take.
const GOAL: f64 = 1.2;
/// Kills in a second of the bench.
const KILLS: u64 = 8;

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let rig = Rig::start(&setup.directory, CREW).await?;
    let (mut bare, mut ours) = (Samples::default(), Samples::default());
    for _ in 0..KILLS * setup.seconds {
        bare.push(tokio::task::block_in_place(bare_start)?);
        ours.push(recovery(&rig).await?);
    }
    rig.stop().await?;
    let ratio = ours.p50().as_secs_f64() / bare.p50().as_secs_f64();
    let mut table = Table::default();
    table.row(Row::new("bare start of 3 processes").samples(&bare));
    let row = Row::new("kill -9 of a handler to ready, cold").samples(&ours).ratio(ratio);
    table.row(row.goal(format!("p50 <= {GOAL} bare"), ratio <= GOAL));
    table.note("process sandbox, no pool; the backoff of 1 ms is part of it");
    table.note(
        "bare: keeper, runner and handler are processes; three of ours, each started and asked once, in turn",
    );
    Ok(table)
}

/// Kills the agent's handler, and waits until its next incarnation is ready.
async fn recovery(rig: &Rig) -> Result<Duration> {
    let pid =
        rig.run(None, json!({"do": "say_pid"})).await?["pid"].as_i64().ok_or("the handler has no pid")?;
    let before = rig.platform.store.head().await?.position;
    let start = Instant::now();
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    rig.next(before, "agent_ready").await?;
    Ok(start.elapsed())
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
