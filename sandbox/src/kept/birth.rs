//! How the runner's process is made: the keeper's side of it, and the child's until it becomes the runner.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal as set_disposition};
use nix::unistd::{ForkResult, Pid as RawPid, getpid, setsid};

use super::cgroup::Groups;
use super::place::{Birth, Place, Record};
use crate::proc::{self, Stat};
use crate::{Confinement, Pid, Resources, Runner, Spec};

/// From clone3(2); `libc` has it in a type that is too small.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child says when it needs its user namespace to be given its user. All else it says is why it failed.
const MAP: u8 = 0;

/// What the keeper says when the child may go on.
const GO: u8 = 1;

/// Forks, and executes the runner's program in the child.
pub(super) fn start_runner(place: &Place, record: &Record, groups: &Groups) -> io::Result<RawPid> {
    let (hears, mut tell) = io::pipe()?;
    let (mut hear, tells) = io::pipe()?;
    let namespaces = record.confinement.as_ref().map_or(0, Confinement::namespaces);
    let runner = match fork(groups, namespaces)? {
        Forked::Keeper(runner) => runner,
        Forked::Child { is_in_group } => {
            drop((hear, tell));
            let mut keeper = Keeper { hears, tells };
            let error = become_runner(place, record, groups, is_in_group, &mut keeper);
            let _ = write!(keeper.tells, "{error}");
            std::process::exit(1)
        }
    };
    drop((hears, tells));
    let map = || record.confinement.as_ref().map_or(Ok(()), |confinement| confinement.map_user(runner));
    if namespaces & libc::CLONE_NEWUSER != 0 {
        map()?;
    }
    // Before it may do anything: a runner that runs is known.
    let (keeper, born) = (identify(getpid())?, identify(runner)?);
    place.write_birth(&Birth { boot: proc::boot(), keeper, runner: born })?;
    // A child that has failed meanwhile says why.
    let _ = tell.write_all(&[GO]);
    let mut reason = Vec::new();
    let mut byte = [0];
    // Closed by a successful exec, without a word.
    while hear.read(&mut byte)? > 0 {
        if byte == [MAP] {
            map()?;
            let _ = tell.write_all(&[GO]);
        } else {
            reason.extend(byte);
        }
    }
    if reason.is_empty() { Ok(runner) } else { Err(io::Error::other(String::from_utf8_lossy(&reason))) }
}

/// The keeper, as the child talks to it.
pub(crate) struct Keeper {
    hears: PipeReader,
    tells: PipeWriter,
}

impl Keeper {
    /// Has the keeper say which users there are in the new user namespace of this process.
    pub(crate) fn map_user(&mut self) -> io::Result<()> {
        self.tells.write_all(&[MAP])?;
        self.await_go()
    }

    fn await_go(&mut self) -> io::Result<()> {
        self.hears.read_exact(&mut [0]).map_err(|_| io::Error::other("the keeper is gone"))
    }
}

/// What the child does between fork and exec, and why it failed.
fn become_runner(
    place: &Place,
    record: &Record,
    groups: &Groups,
    is_in_group: bool,
    keeper: &mut Keeper,
) -> io::Error {
    let spec = &record.spec;
    let mut prepare = || {
        keeper.await_go()?;
        setsid()?;
        reset_signals()?;
        match &record.confinement {
            None => {
                limit(&spec.resources)?;
                Ok(command(spec, &spec.runner, &spec.socket, &place.work()))
            }
            Some(confinement) => {
                groups.join(is_in_group)?;
                let inside = confinement.enter(spec, &place.root(), groups.oom_file(), keeper)?;
                let mut command = command(spec, &inside.runner, &inside.socket, &inside.work);
                command.env_remove(place.marker().0);
                Ok(command)
            }
        }
    };
    match prepare() {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    }
}

fn command(spec: &Spec, runner: &Runner, socket: &Path, work: &Path) -> Command {
    let mut command = Command::new(&runner.program);
    command.arg0(&runner.argv0).arg("--socket").arg(socket);
    command.arg("--sandbox").arg(spec.id.as_str()).arg("--work").arg(work);
    command.arg("--orphan-grace-ms").arg(spec.orphan_grace_ms.to_string());
    command.current_dir(work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
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

/// What a fork is to each of the two.
enum Forked {
    /// The keeper has this child.
    Keeper(RawPid),
    /// The child was born in its group of the unified hierarchy, or has yet to join it.
    Child { is_in_group: bool },
}

/// Forks into new namespaces, the child into its control group where a child can be born in one.
///
/// A child that is born in its group costs nothing; moving it there later takes some ten milliseconds, because the
/// kernel has to wait for all processors.
#[allow(unsafe_code, reason = "neither the standard library nor nix wraps clone3(2)")]
fn fork(groups: &Groups, namespaces: libc::c_int) -> io::Result<Forked> {
    let group = groups.open_unified();
    // SAFETY: all fields may be zero.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = namespaces as u64;
    how.exit_signal = libc::SIGCHLD as u64;
    if let Some(group) = &group {
        how.flags |= CLONE_INTO_CGROUP;
        how.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: without flags that share memory this is a fork, and the keeper has a single thread: its child finds no
    // lock held, and may allocate and write files as any process.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) };
    match i32::try_from(pid).map_err(io::Error::other)? {
        // Nobody can be born in the group, on an older kernel or where rights are missing: the child tries to join it.
        ..0 if group.is_some() => fork(&Groups::default(), namespaces),
        // Older containers do not know the call.
        // SAFETY: as above.
        ..0 if namespaces == 0 => match unsafe { nix::unistd::fork() }? {
            ForkResult::Parent { child } => Ok(Forked::Keeper(child)),
            ForkResult::Child => Ok(Forked::Child { is_in_group: false }),
        },
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child { is_in_group: group.is_some() }),
        pid => Ok(Forked::Keeper(RawPid::from_raw(pid))),
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
pub(crate) fn limit(resources: &Resources) -> io::Result<()> {
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
