//! Ending processes that do not want to end.
//!
//! A process that is killed while it forks leaves its child, so killing one after the other can lose against a
//! program that forks all the time. Hence: stop all first, look again until nothing moves, then kill. SIGSTOP and
//! SIGKILL can be neither caught nor ignored.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::{SIGKILL, SIGSTOP};

use super::cgroup::Groups;
use super::place::{Birth, Place};
use crate::proc::{self, Handle, Stat, Table};

/// How often the process table is read to find all of them standing still. One that cannot be stopped
/// (uninterruptible, or changing its number all the time) must not keep the others alive.
const FREEZE_ROUNDS_MAX: u32 = 16;

/// How long the dying are given before the process table is read again.
const PAUSE: Duration = Duration::from_millis(2);

/// How often a process that keeps changing its number is aimed at before the whole table is read again.
const CHASE_SHOTS_MAX: u32 = 400;

/// How many misses in succession mean that nothing new is born.
const CHASE_MISSES_MAX: u32 = 20;

/// How many of the newest process ids are looked at for each shot.
const CHASE_WINDOW: u32 = 4;

/// Stops, then kills all that `find` finds, and answers what was there before.
pub(super) fn freeze_and_kill(find: impl Fn(&Table) -> Vec<Stat>) -> Vec<Stat> {
    let mut found = find(&Table::read());
    for _ in 0..FREEZE_ROUNDS_MAX {
        if found.iter().all(Stat::is_stopped) {
            break;
        }
        for stat in found.iter().filter(|stat| !stat.is_stopped()) {
            send(stat, SIGSTOP);
        }
        found = find(&Table::read());
    }
    for stat in &found {
        send(stat, SIGKILL);
    }
    found
}

/// Kills descendants of `root` that fork and exit faster than the process table can be read, so that each has
/// another number by the time it is found: by looking only at the numbers given out last.
pub(super) fn chase(root: u32) {
    let mut misses = 0;
    for _ in 0..CHASE_SHOTS_MAX {
        let newest = newest_pid();
        let targets = (newest.saturating_sub(CHASE_WINDOW)..=newest).rev().filter_map(Stat::of);
        let hits =
            targets.filter(|stat| !stat.is_dead() && is_below(stat, root) && send(stat, SIGKILL)).count();
        misses = if hits > 0 { 0 } else { misses + 1 };
        if misses == CHASE_MISSES_MAX {
            return;
        }
    }
}

/// The process id that the kernel gave out last (proc_loadavg(5)).
fn newest_pid() -> u32 {
    let line = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line.split_ascii_whitespace().next_back().and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Whether `root` is the parent of the process, or its parent's, and so on a few times.
fn is_below(stat: &Stat, root: u32) -> bool {
    let mut parent = stat.parent;
    for _ in 0..CHASE_WINDOW {
        if parent == root {
            return true;
        }
        match Stat::of(parent) {
            Some(above) => parent = above.parent,
            None => return false,
        }
    }
    false
}

fn send(stat: &Stat, signal: i32) -> bool {
    matches!(Handle::open(stat.id()), Ok(Some(handle)) if handle.signal(signal).is_ok_and(|sent| sent))
}

/// Ends what is left of a sandbox whose keeper is gone, or does not do its work: everything below keeper and
/// runner as far as they live, everything in its control group, and everything that was started with its marker
/// in the environment.
///
/// # Errors
/// The processes that are still there after `limit`.
pub(super) fn end_from_outside(
    place: &Place,
    birth: Option<&Birth>,
    groups: &Groups,
    limit: Duration,
) -> Result<(), Vec<u32>> {
    let deadline = Instant::now() + limit;
    let birth = birth.filter(|birth| birth.boot == proc::boot());
    loop {
        groups.kill();
        let found = freeze_and_kill(|table| belonging(table, place, birth));
        if found.is_empty() && groups.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(found.iter().map(|stat| stat.pid).collect());
        }
        thread::sleep(PAUSE);
    }
}

fn belonging(table: &Table, place: &Place, birth: Option<&Birth>) -> Vec<Stat> {
    let (name, dir) = place.marker();
    let marker = [name.as_bytes(), b"=", dir.as_bytes()].concat();
    let known = birth.into_iter().flat_map(|birth| [birth.keeper, birth.runner]);
    let mut roots: Vec<u32> =
        known.filter(|process| proc::lives(*process)).map(|process| process.pid).collect();
    roots.extend(table.all().filter(|stat| is_marked(stat.pid, &marker)).map(|stat| stat.pid));
    let mut found = table.below(roots.iter().copied());
    found.extend(table.all().filter(|stat| roots.contains(&stat.pid) && !stat.is_dead()));
    found.retain(|stat| stat.pid != std::process::id());
    found
}

fn is_marked(pid: u32, marker: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|variable| variable == marker)
}
