//! What runs on the machine.

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

/// Every process with `path` in its command line or its environment: platforms that were given it as their data
/// directory, and keepers, runners and handlers, all of which carry the path of their sandbox.
pub(crate) fn that_know(path: &Path) -> Vec<Process> {
    let path = path.to_str().expect("a path of a test is text").as_bytes();
    let own = std::process::id().cast_signed();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own).filter_map(|pid| knows(pid, path)).collect()
}

fn knows(pid: i32, path: &[u8]) -> Option<Process> {
    // What ended in between has neither.
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (command, environment) = (read("cmdline"), read("environ"));
    let has = |bytes: &[u8]| bytes.windows(path.len()).any(|window| window == path);
    let command_text = String::from_utf8_lossy(&command).replace('\0', " ");
    (has(&command) || has(&environment)).then_some(Process { pid, command: command_text })
}
