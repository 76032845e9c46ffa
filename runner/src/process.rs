//! The runner as the root of a process tree: nothing that a handler starts outlives it.

use std::{
    collections::HashSet,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{Pid, SysconfVar, sysconf},
};

/// How long the end of a runner may spend on killing what is left. A process in uninterruptible sleep cannot be killed.
const KILL_MS_MAX: u64 = 5_000;

/// Makes this process the one that orphans fall to, and keeps its memory (it holds a token and secrets) from being read
/// by the handler, which runs as the same user.
pub(crate) fn become_root_of_tree() -> nix::Result<()> {
    prctl::set_child_subreaper(true)?;
    prctl::set_dumpable(false)
}

/// The processes that the runner itself started and whose end someone awaits; all other children are orphans.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    pids: Arc<Mutex<HashSet<i32>>>,
    adopts_orphans: bool,
}

impl Family {
    /// The family of a process that [`become_root_of_tree`] made the one that orphans fall to.
    pub(crate) fn of_root() -> Self {
        Self { pids: Arc::default(), adopts_orphans: true }
    }

    /// The family of a process that may have other children, which are none of ours.
    pub(crate) fn of_guest() -> Self {
        Self { pids: Arc::default(), adopts_orphans: false }
    }

    fn pids(&self) -> MutexGuard<'_, HashSet<i32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, pid: i32) {
        self.pids().insert(pid);
    }

    pub(crate) fn remove(&self, pid: i32) {
        self.pids().remove(&pid);
    }

    /// Takes note of dead orphans, so that none stays a zombie. A dead child that someone awaits is left to them.
    pub(crate) fn reap_orphans(&self) {
        if !self.adopts_orphans {
            return;
        }
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) = waitid(Id::All, peek) {
            if self.pids().contains(&pid.as_raw()) {
                return;
            }
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }

    /// What the runner and the processes that it started use now. CPU time includes that of their ended children.
    pub(crate) fn usage(&self) -> Usage {
        let mut pids: Vec<i32> = self.pids().iter().copied().collect();
        pids.push(std::process::id().cast_signed());
        pids.iter().filter_map(|pid| Stat::read(*pid)).fold(Usage::default(), |sum, stat| Usage {
            memory_bytes: sum.memory_bytes + stat.memory_bytes,
            cpu_ms: sum.cpu_ms + stat.cpu_ms,
        })
    }
}

/// Resources in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_ms: u64,
}

/// What `/proc/<pid>/stat` says (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    state: u8,
    parent: i32,
    memory_bytes: u64,
    cpu_ms: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the command's name in parentheses and may itself hold anything, so count from its end.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks: u64 = (11..=14).map(number).sum::<Option<u64>>()?;
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            memory_bytes: number(21)? * system(SysconfVar::PAGE_SIZE, 4096),
            cpu_ms: ticks * 1000 / system(SysconfVar::CLK_TCK, 100),
        })
    }
}

fn system(name: SysconfVar, otherwise: u64) -> u64 {
    sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(otherwise)
}

/// Whether a process is stopped, by SIGSTOP or by a debugger: it will not make progress.
pub(crate) fn is_stopped(pid: i32) -> bool {
    Stat::read(pid).is_some_and(|stat| matches!(stat.state, b'T' | b't'))
}

/// Sends a signal to a process group. One that is gone already is as good.
pub(crate) fn signal_group(leader: i32, signal: Signal) {
    let _ = nix::sys::signal::killpg(Pid::from_raw(leader), signal);
}

/// Kills every descendant, and what they start meanwhile, until none is left. Whether it came to that.
pub(crate) fn kill_descendants() -> bool {
    let give_up = Instant::now() + Duration::from_millis(KILL_MS_MAX);
    loop {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
        if waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD) {
            return true;
        }
        if Instant::now() > give_up {
            return false;
        }
        for pid in descendants(std::process::id().cast_signed()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Every process below `root`, however deep. As a subreaper the root keeps even those that changed their session.
fn descendants(root: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> = pids.filter_map(|pid| Some((pid, Stat::read(pid)?.parent))).collect();
    let mut found = HashSet::from([root]);
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| found.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            found.remove(&root);
            return found.into_iter().collect();
        }
    }
}

/// How often the kernel has killed a process of this control group for want of memory, where it tells.
pub(crate) fn oom_kills() -> u64 {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let events = fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.events"))
        // Version 1, in a container that sees its own group as the root.
        .or_else(|_| fs::read_to_string("/sys/fs/cgroup/memory/memory.oom_control"))
        .unwrap_or_default();
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_named_to_deceive_is_read_right() {
        let stat = "77 (a) R 1 (b) T 12 77 77 0 -1 4194304 100 0 0 0 3 4 5 6 20 0 1 0 100 1000000 25 1844674";
        let parsed = Stat::parse(stat).unwrap();
        assert_eq!((parsed.state, parsed.parent), (b'T', 12));
        assert_eq!(parsed.memory_bytes, 25 * system(SysconfVar::PAGE_SIZE, 4096));
        assert_eq!(parsed.cpu_ms, 18 * 1000 / system(SysconfVar::CLK_TCK, 100));
        assert_eq!(Stat::parse("nothing"), None);
    }

    #[test]
    fn this_process_is_seen_to_run() {
        let own = std::process::id().cast_signed();
        assert!(!is_stopped(own));
        assert!(Family::of_guest().usage().memory_bytes > 0);
        assert!(!descendants(own).contains(&own));
    }
}
