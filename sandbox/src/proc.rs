//! Processes as `/proc` and pidfds show them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Pid, Signal};

/// One line of the process table: the fields of `/proc/<pid>/stat` that matter here (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) state: char,
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// `None` when there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &bytes)
    }

    /// The second field is the program's name in brackets and may hold anything, brackets and spaces too.
    fn parse(pid: u32, line: &[u8]) -> Option<Self> {
        let after_name = line.iter().rposition(|&byte| byte == b')')? + 1;
        let mut fields = std::str::from_utf8(&line[after_name..]).ok()?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self { pid, parent, state, start_ticks })
    }

    /// It has ended and only waits to be reaped.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// It cannot run, so it cannot fork, until someone continues it.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    pub(crate) fn id(&self) -> Pid {
        Pid { pid: self.pid, start_ticks: self.start_ticks }
    }
}

/// The process table, as far as it stands still.
pub(crate) struct Table(HashMap<u32, Stat>);

impl Table {
    pub(crate) fn read() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(pids.filter_map(Stat::of).map(|stat| (stat.pid, stat)).collect())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Stat> {
        self.0.values()
    }

    /// The children of `parent` that are not dead.
    pub(crate) fn children(&self, parent: u32) -> Vec<Stat> {
        self.0.values().filter(|stat| stat.parent == parent && !stat.is_dead()).copied().collect()
    }

    /// What is below any of `roots`, without the roots themselves and without the dead.
    pub(crate) fn below(&self, roots: impl IntoIterator<Item = u32>) -> Vec<Stat> {
        let mut children: HashMap<u32, Vec<&Stat>> = HashMap::new();
        for stat in self.0.values() {
            children.entry(stat.parent).or_default().push(stat);
        }
        let mut seen: HashSet<u32> = roots.into_iter().collect();
        let mut todo: Vec<u32> = seen.iter().copied().collect();
        let mut found = Vec::new();
        while let Some(parent) = todo.pop() {
            for stat in children.get(&parent).into_iter().flatten() {
                if seen.insert(stat.pid) {
                    todo.push(stat.pid);
                    if !stat.is_dead() {
                        found.push(**stat);
                    }
                }
            }
        }
        found
    }
}

/// Whether exactly this process, and no later one with its number, is there and not dead.
pub(crate) fn lives(process: Pid) -> bool {
    Stat::of(process.pid).is_some_and(|stat| stat.id() == process && !stat.is_dead())
}

/// Whether the process is `root`, or somewhere below it.
pub(crate) fn is_within(pid: u32, root: Pid) -> bool {
    let mut next = Stat::of(pid);
    while let Some(stat) = next {
        if stat.pid == root.pid {
            return stat.id() == root;
        }
        next = Stat::of(stat.parent);
    }
    false
}

/// Names this boot: process ids and start times mean nothing in another.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The signal's number.
pub(crate) fn number(signal: Signal) -> i32 {
    match signal {
        Signal::Interrupt => libc::SIGINT,
        Signal::Terminate => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
    }
}

/// A hold on one process: it can be awaited and signalled without ever meeting a later one of the same number.
#[derive(Debug)]
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// `None` when exactly this process is gone. One that has ended and waits to be reaped is not gone.
    pub(crate) fn open(process: Pid) -> io::Result<Option<Self>> {
        let fd = match pidfd_open(process.pid) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Checked after opening: what the pidfd holds can no longer be exchanged for another.
        let same = Stat::of(process.pid).is_some_and(|stat| stat.id() == process);
        Ok(same.then_some(Self(fd)))
    }

    /// Sends a signal; that the process has ended meanwhile is no error but `false`.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the process has ended; `false` when it has not within `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        readable(self.0.as_fd(), limit)
    }

    /// The descriptor, which becomes readable when the process has ended.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// Removes an ended process from the table if it is our child; another's is left to its parent.
pub(crate) fn reap(pidfd: impl AsFd) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let _ = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
}

impl AsFd for Handle {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until `fd` has something to read or its other end is closed.
pub(crate) fn readable(fd: std::os::fd::BorrowedFd<'_>, limit: Duration) -> bool {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}

#[allow(unsafe_code, reason = "neither the standard library nor nix wraps pidfd_open(2)")]
fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call reads its two integers only.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[allow(unsafe_code, reason = "neither the standard library nor nix wraps pidfd_send_signal(2)")]
fn pidfd_send_signal(fd: &OwnedFd, signal: i32) -> io::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open, and a null pointer asks for what kill(2) would send.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, no_info, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_confuse() {
        let line = b"42 (a) R 7 (b) S 13 42 42 0 -1 4194560 1 0 0 0 1 0 0 0 20 0 1 0 987654 1000 2 3";
        let stat = Stat::parse(42, line).expect("legal");
        assert_eq!(stat, Stat { pid: 42, parent: 13, state: 'S', start_ticks: 987_654 });
    }

    #[test]
    fn a_recycled_process_id_is_not_held() {
        let me = Stat::of(std::process::id()).expect("it runs this test").id();
        assert!(Handle::open(me).expect("allowed").is_some());
        let earlier = Pid { start_ticks: me.start_ticks - 1, ..me };
        assert!(Handle::open(earlier).expect("allowed").is_none());
        assert!(lives(me) && !lives(earlier));
    }

    #[test]
    fn a_process_is_within_itself_and_its_ancestors() {
        let me = Stat::of(std::process::id()).expect("it runs this test");
        let parent = Stat::of(me.parent).expect("it started this test");
        assert!(is_within(me.pid, me.id()) && is_within(me.pid, parent.id()));
        assert!(!is_within(parent.pid, me.id()));
        assert!(!is_within(me.pid, Pid { start_ticks: me.start_ticks - 1, ..me.id() }), "an earlier process");
    }

    #[test]
    fn what_is_below_is_found_to_any_depth_and_without_the_dead() {
        let stat = |pid, parent, state| (pid, Stat { pid, parent, state, start_ticks: 0 });
        let table = Table(HashMap::from([
            stat(1, 0, 'S'),
            stat(2, 1, 'S'),
            stat(3, 2, 'Z'),
            stat(4, 3, 'T'),
            stat(5, 1, 'S'),
        ]));
        let mut below: Vec<u32> = table.below([2]).iter().map(|stat| stat.pid).collect();
        below.sort_unstable();
        assert_eq!(below, [4]);
        assert_eq!(table.below([1]).len(), 3);
    }
}
