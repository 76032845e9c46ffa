//! The keeper: a tiny process above each runner.
//!
//! It does one thing. As a *subreaper* (prctl(2)) it inherits every process below it whose parent ends, however
//! often that one forked, called setsid, or cleared its environment, so nothing can leave. When the runner ends,
//! however it ended, the keeper kills until waitpid(2) says that it has no child any more: then nothing is left,
//! exactly. It is not a child of the platform in any way that matters, so it outlives it.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal as set_disposition};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid as RawPid, getpid, getppid, setsid};

use super::cgroup::Cgroup;
use super::place::{Birth, Ending, Place, Record};
use super::sweep;
use crate::proc::{self, Stat};
use crate::{Pid, Resources};

/// What a keeper says on its stdout once the runner's program was executed; anything else is a reason why not.
pub(super) const STARTED: &str = "started";

/// From clone3(2); `libc` has it in a type that is too small.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How long the kernel is given to finish a killed control group before the keeper looks for itself.
const CGROUP_GRACE: Duration = Duration::from_millis(100);

/// How long the keeper waits for the killed to end before it looks again.
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// The keeper's whole life: `hypercode-keeper DIR`, with `args` as the process got them, name first.
///
/// Only [`crate::Process`] starts it, with the sandbox's lock as its stdin. It is meant to be the first thing
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
    cgroup: Option<Cgroup>,
    signals: SignalFd,
    runner: RawPid,
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
        let cgroup = record.cgroup.as_deref().and_then(Cgroup::make);
        let runner = start_runner(&place, &record, cgroup.as_ref()).map_err(|error| {
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
            format!("cannot execute `{}`: {error}", record.spec.runner.program.display())
        })?;
        Ok(Self { place, cgroup, signals, runner, ending: Ending::default() })
    }

    /// Waits for the runner's end or for the order to end it, then ends everything.
    fn keep(mut self) -> ExitCode {
        while self.reap() && !self.has_ended() && !self.is_told_to_end(None) {}
        self.end_all();
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
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
        let killed = self.cgroup.as_ref().is_some_and(|cgroup| !cgroup.is_empty() && cgroup.kill().is_ok());
        let patience = Instant::now() + if killed { CGROUP_GRACE } else { Duration::ZERO };
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

/// Forks, and executes the runner's program in the child.
fn start_runner(place: &Place, record: &Record, cgroup: Option<&Cgroup>) -> io::Result<RawPid> {
    let (mut reason, mut tell) = io::pipe()?;
    if let Some(runner) = fork(cgroup)? {
        drop(tell);
        let mut text = String::new();
        // Closed by a successful exec, without a word.
        reason.read_to_string(&mut text)?;
        return if text.is_empty() { Ok(runner) } else { Err(io::Error::other(text)) };
    }
    let error = become_runner(place, record);
    let _ = write!(tell, "{error}");
    std::process::exit(1)
}

/// What the child does between fork and exec, and why it failed.
fn become_runner(place: &Place, record: &Record) -> io::Error {
    let spec = &record.spec;
    let mut command = Command::new(&spec.runner.program);
    command.arg0(&spec.runner.argv0).arg("--socket").arg(&spec.socket);
    command.arg("--sandbox").arg(spec.id.as_str()).arg("--work").arg(place.work());
    command.arg("--orphan-grace-ms").arg(spec.orphan_grace_ms.to_string());
    command.current_dir(place.work()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let prepare = || {
        setsid()?;
        reset_signals()?;
        let (keeper, runner) = (identify(getppid())?, identify(getpid())?);
        place.write_birth(&Birth { boot: proc::boot(), keeper, runner })?;
        limit(&spec.resources)
    };
    match prepare() {
        Ok(()) => command.exec(),
        Err(error) => error,
    }
}

/// What is ignored or blocked stays so across exec, and the platform may run under nohup(1).
#[allow(unsafe_code, reason = "nix cannot know that no handler of ours is set")]
fn reset_signals() -> nix::Result<()> {
    for signal in Signal::iterator() {
        // SAFETY: the default disposition runs none of our code. SIGKILL and SIGSTOP refuse, having no other.
        let _ = unsafe { set_disposition(signal, SigHandler::SigDfl) };
    }
    SigSet::empty().thread_set_mask()
}

/// Forks, the child into the control group if there is one and that is allowed: `None` in the child.
///
/// A child that is born in its group costs nothing; moving it there later takes some ten milliseconds, because the
/// kernel has to wait for all processors.
#[allow(
    unsafe_code,
    reason = "neither the standard library nor nix wraps clone3(2), and fork(2) is what it is"
)]
fn fork(cgroup: Option<&Cgroup>) -> io::Result<Option<RawPid>> {
    if let Some(group) = cgroup.and_then(|cgroup| cgroup.open().ok()) {
        // SAFETY: all fields may be zero.
        let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
        how.flags = CLONE_INTO_CGROUP;
        how.exit_signal = libc::SIGCHLD as u64;
        how.cgroup = group.as_raw_fd() as u64;
        // SAFETY: without flags that share memory this is a fork, and the keeper has a single thread: its child
        // finds no lock held, and may allocate and write files as any process.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) };
        if pid >= 0 {
            let pid = i32::try_from(pid).map_err(io::Error::other)?;
            return Ok((pid > 0).then(|| RawPid::from_raw(pid)));
        }
    }
    // SAFETY: as above.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

fn identify(pid: RawPid) -> io::Result<Pid> {
    Stat::of(pid.as_raw().unsigned_abs())
        .map(|stat| stat.id())
        .ok_or_else(|| io::Error::other("`/proc` is not readable"))
}

/// Sets what a plain process can be held to; each process below the runner has the same limits for itself.
///
/// Memory is RLIMIT_DATA (getrlimit(2)), which counts what a process can write to. RLIMIT_AS would also count
/// address space that is only reserved, of which some language runtimes take many gigabytes. RLIMIT_NPROC would
/// count all processes of the user on the host, so it is left alone.
fn limit(resources: &Resources) -> io::Result<()> {
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_DATA, resources.memory_bytes),
        (Resource::RLIMIT_FSIZE, resources.work_bytes),
        (Resource::RLIMIT_NOFILE, u64::from(resources.open_files)),
    ];
    for (resource, wanted) in limits {
        let (_, most) = getrlimit(resource)?;
        let value = wanted.min(most);
        setrlimit(resource, value, value)?;
    }
    Ok(())
}
