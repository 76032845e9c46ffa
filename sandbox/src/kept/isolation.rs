//! How far the sandboxes of this host are shut off, in words for people.

use super::cgroup::Held;
use crate::{Isolation, Level};

pub(super) fn of_processes() -> Isolation {
    Isolation {
        level: Level::None,
        held: vec![
            "ends completely: every process it ever started is killed with it",
            "own session, work directory and environment",
            "writable memory, open files and file size of each process; no core dumps",
        ],
        not_held: vec![
            "files: it reads and writes whatever the platform's user may",
            "network: it reaches whatever the host reaches",
            "processes: it sees those of the host and may signal the platform's user's, its own keeper included",
            "processor time, number of processes, total memory and total size of the work directory",
        ],
    }
}

/// `held` is what control groups hold here.
pub(super) fn of_namespaces(held: Held) -> Isolation {
    let mut isolation = Isolation {
        level: Level::Namespaces,
        held: vec![
            "ends completely: the kernel kills all of it with its first process",
            "files: a read-only view of the host's programs, a root of its own, nothing else of the host",
            "network: none; its one way out is the link's socket",
            "processes, users, names and shared memory: its own only",
            "no root, no capabilities, no way to gain any, and an allow list of system calls",
            "size of the work directory and of `/tmp`, number of processes, open files of each; no core dumps",
        ],
        not_held: vec!["the kernel: it is the host's, so a fault in it may be a way out"],
    };
    let totals = [
        (
            held.memory,
            "total memory",
            "total memory: only that of each process is held, without control groups",
        ),
        (held.cpu, "processor time", "processor time, without control groups"),
    ];
    for (is_held, what, instead) in totals {
        match is_held {
            true => isolation.held.push(what),
            false => isolation.not_held.push(instead),
        }
    }
    isolation
}
