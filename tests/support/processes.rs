//! What runs on the machine.

use std::collections::HashSet;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

impl Process {
    /// Ends it; that it has ended by itself is as good.
    pub(crate) fn kill(&self) {
        send(self.pid, Signal::SIGKILL);
    }
}

/// Sends a signal to a process that may be gone.
pub(crate) fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Every process with `path` in its command line or its environment, and all below it: platforms that were given it as
/// their data directory, and keepers, runners and handlers, which carry the path of their sandbox or are below one
/// that does.
pub(crate) fn that_know(path: &Path) -> Vec<Process> {
    let path = path.to_str().expect("a path of a test is text").as_bytes();
    let own = std::process::id().cast_signed();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all: Vec<(Process, i32, bool)> =
        pids.filter(|pid| *pid != own).filter_map(|pid| look(pid, path)).collect();
    let mut found: HashSet<i32> =
        all.iter().filter(|(.., knows)| *knows).map(|(process, ..)| process.pid).collect();
    loop {
        let below: Vec<i32> = all
            .iter()
            .filter(|(_, parent, _)| found.contains(parent))
            .map(|(process, ..)| process.pid)
            .collect();
        let before = found.len();
        found.extend(below);
        if found.len() == before {
            return all.into_iter().map(|(process, ..)| process).filter(|p| found.contains(&p.pid)).collect();
        }
    }
}

/// A process, its parent, and whether it knows `path`.
fn look(pid: i32, path: &[u8]) -> Option<(Process, i32, bool)> {
    // What ended in between has none of these.
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (command, environment, stat) = (read("cmdline"), read("environ"), read("stat"));
    let has = |bytes: &[u8]| bytes.windows(path.len()).any(|window| window == path);
    let knows = has(&command) || has(&environment);
    let stat = String::from_utf8_lossy(&stat);
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    (state != "Z").then_some((Process { pid, command }, parent, knows))
}
