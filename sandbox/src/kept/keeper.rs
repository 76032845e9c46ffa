//! The keeper: a tiny process above each runner.
//!
//! It does one thing. As a *subreaper* (prctl(2)) it inherits every process below it whose parent ends, however
//! often that one forked, called setsid, or cleared its environment, so nothing can leave. When the runner ends,
//! however it ended, the keeper kills until waitpid(2) says that it has no child any more: then nothing is left,
//! exactly. It is not a child of the platform in any way that matters, so it outlives it.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid as RawPid, setsid};

use super::cgroup::Groups;
use super::place::{Ending, Place};
use super::{birth, sweep};
use crate::proc;

/// What a keeper says on its stdout once the runner's program was executed; anything else is a reason why not.
pub(super) const STARTED: &str = "started";

/// How long the kernel is given to finish what it kills as a whole before the keeper looks for itself.
const KILL_GRACE: Duration = Duration::from_millis(100);

/// How long the keeper waits for the killed to end before it looks again.
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// The keeper's whole life: `hypercode-keeper DIR`, with `args` as the process got them, name first.
///
/// Only [`crate::Kept`] starts it, with the sandbox's lock as its stdin. It is meant to be the first thing
/// that a `main` does when its own name is `hypercode-keeper`: it needs a process with one thread, for it forks.
pub fn keeper_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(dir) = args.into_iter().nth(1) else {
        complain("the keeper is started by the platform, with the directory of a sandbox");
        return ExitCode::from(2);
    };
    let mut stdout = io::stdout();
    match Keeper::start(Place::at(PathBuf::from(dir))) {
        Ok(keeper) => {
            // Whoever asked may be gone by now; the sandbox stays.
            let _ = writeln!(stdout, "{STARTED}");
            keeper.keep()
        }
        Err(reason) => {
            let _ = writeln!(stdout, "{}", reason.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// Its standard error may be a file on a full disk: then there is nobody to tell.
fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

struct Keeper {
    place: Place,
    groups: Groups,
    signals: SignalFd,
    runner: RawPid,
    /// Whether the runner is the first of a process namespace, whose end is the end of all in it.
    is_confined: bool,
    ending: Ending,
}

impl Keeper {
    fn start(place: Place) -> Result<Self, String> {
        let record = place.record()?;
        shut_off().map_err(|error| format!("cannot shut itself off: {error}"))?;
        let signals = SigSet::all()
            .thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            })
            .map_err(|error| format!("cannot take its signals: {error}"))?;
        let groups = record.groups.make(&record.spec.resources).map_err(|error| error.to_string())?;
        let runner = birth::start_runner(&place, &record, &groups).map_err(|error| {
            groups.remove();
            format!("cannot execute `{}`: {error}", record.spec.runner.program.display())
        })?;
        let is_confined = record.confinement.is_some();
        Ok(Self { place, groups, signals, runner, is_confined, ending: Ending::default() })
    }

    /// Waits for the runner's end or for the order to end it, then ends everything.
    fn keep(mut self) -> ExitCode {
        while self.reap() && !self.has_ended() && !self.is_told_to_end(None) {}
        self.end_all();
        self.ending.oom = self.groups.was_out_of_memory();
        self.groups.remove();
        match self.place.write_ending(&self.ending) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(format_args!("the keeper cannot record how the runner ended: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.ending.code.is_some() || self.ending.signal.is_some()
    }

    /// Kills until there is no child left.
    fn end_all(&mut self) {
        if self.is_confined && !self.has_ended() {
            let _ = kill(self.runner, Signal::SIGKILL);
        }
        let killed = self.is_confined || (!self.groups.is_empty() && self.groups.kill());
        let patience = Instant::now() + if killed { KILL_GRACE } else { Duration::ZERO };
        let me = std::process::id();
        let mut is_again = false;
        while self.reap() {
            if Instant::now() >= patience {
                if is_again {
                    sweep::chase(me);
                }
                sweep::freeze_and_kill(|table| table.below([me]));
                is_again = true;
            }
            self.is_told_to_end(Some(KILL_PAUSE));
        }
    }

    /// Takes up all children that have ended; `false` when there is no child at all.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.runner => self.ending.code = Some(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.runner => {
                    self.ending.signal = Some(signal as i32);
                }
                Ok(WaitStatus::StillAlive) => return true,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Sleeps until some signal comes, or the limit passes, and says whether it was the order to end.
    fn is_told_to_end(&self, limit: Option<Duration>) -> bool {
        let forever = Duration::MAX;
        proc::readable(self.signals.as_fd(), limit.unwrap_or(forever));
        let mut is_told = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            is_told |= info.ssi_signo == Signal::SIGTERM as u32;
        }
        is_told
    }
}

/// Leaves the platform's session and makes sure that nothing below can leave ours.
fn shut_off() -> nix::Result<()> {
    close_others_on_exec();
    umask(Mode::from_bits_truncate(0o077));
    // Refused to the leader of a process group, which then has a session or group of its own already.
    let _ = setsid();
    prctl::set_child_subreaper(true)
}

/// What whoever started the platform left open must not reach the runner.
#[allow(unsafe_code, reason = "neither the standard library nor nix wraps close_range(2)")]
fn close_others_on_exec() {
    // SAFETY: the flag makes it mark descriptors only; none is closed under its owner here.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}
