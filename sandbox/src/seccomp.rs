//! The system calls that a confined sandbox may make. Everything else is refused with `EPERM`.
//!
//! An allow list: what programs in common languages need to run (shells, Python with threads and subprocesses, Node,
//! the JVM, Go), and nothing that reaches further into the kernel. Left out are, among others, `mount`, `unshare`,
//! `setns`, `ptrace`, `process_vm_readv`, `bpf`, `perf_event_open`, `keyctl`, `userfaultfd`, `io_uring_setup`,
//! `kexec_load` and `open_by_handle_at`, and sockets of all families but Unix, internet and the routing half of
//! netlink: no `AF_PACKET`, `AF_VSOCK` or `AF_ALG`.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// A system call, by its name and by its number on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name, as in syscalls(2).
    pub name: &'static str,
    /// Its number.
    pub number: c_long,
}

impl Call {
    const fn new(constant: &'static str, number: c_long) -> Self {
        Self { name: constant.split_at("SYS_".len()).1, number }
    }
}

/// What the bits of an argument that count must be; its upper 32 bits never count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Which argument, from 0.
    pub index: u8,
    /// The bits that count.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

impl Argument {
    const fn is(index: u8, value: u32) -> Self {
        Self { index, mask: u32::MAX, value }
    }
}

/// A call that is allowed when, in any one of its cases, all arguments are as they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditional {
    /// The call.
    pub call: Call,
    /// The cases.
    pub cases: &'static [&'static [Argument]],
}

macro_rules! calls {
    ($($constant:ident),* $(,)?) => { &[$(Call::new(stringify!($constant), libc::$constant)),*] };
}

macro_rules! call {
    ($constant:ident) => {
        Call::new(stringify!($constant), libc::$constant)
    };
}

/// Calls that are allowed whatever their arguments.
#[rustfmt::skip]
pub const ALLOWED: &[Call] = calls![
    SYS_accept, SYS_accept4, SYS_bind, SYS_brk, SYS_capget, SYS_chdir, SYS_clock_getres, SYS_clock_gettime,
    SYS_clock_nanosleep, SYS_close, SYS_close_range, SYS_connect, SYS_copy_file_range, SYS_dup, SYS_dup3,
    SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_execve,
    SYS_execveat, SYS_exit, SYS_exit_group, SYS_faccessat, SYS_faccessat2, SYS_fadvise64, SYS_fallocate,
    SYS_fchdir, SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_fcntl, SYS_fdatasync, SYS_fgetxattr,
    SYS_flistxattr, SYS_flock, SYS_fstat, SYS_fstatfs, SYS_fsync, SYS_ftruncate, SYS_futex, SYS_futex_waitv,
    SYS_get_robust_list, SYS_getcpu, SYS_getcwd, SYS_getdents64, SYS_getegid, SYS_geteuid, SYS_getgid,
    SYS_getgroups, SYS_getitimer, SYS_getpeername, SYS_getpgid, SYS_getpid, SYS_getppid, SYS_getpriority,
    SYS_getrandom, SYS_getresgid, SYS_getresuid, SYS_getrusage, SYS_getsid, SYS_getsockname, SYS_getsockopt,
    SYS_gettid, SYS_gettimeofday, SYS_getuid, SYS_getxattr, SYS_inotify_add_watch, SYS_inotify_init1,
    SYS_inotify_rm_watch, SYS_ioctl, SYS_ioprio_get, SYS_kill, SYS_landlock_add_rule,
    SYS_landlock_create_ruleset, SYS_landlock_restrict_self, SYS_lgetxattr, SYS_linkat, SYS_listen,
    SYS_listxattr, SYS_llistxattr, SYS_lseek, SYS_madvise, SYS_membarrier, SYS_memfd_create, SYS_mincore,
    SYS_mkdirat, SYS_mlock, SYS_mlock2, SYS_mlockall, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_msync,
    SYS_munlock, SYS_munlockall, SYS_munmap, SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_openat2,
    SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pipe2, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect,
    SYS_ppoll, SYS_prctl, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_prlimit64, SYS_pselect6, SYS_pwrite64,
    SYS_pwritev, SYS_pwritev2, SYS_read, SYS_readahead, SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmmsg,
    SYS_recvmsg, SYS_renameat2, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigpending,
    SYS_rt_sigprocmask, SYS_rt_sigqueueinfo, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigtimedwait,
    SYS_rt_tgsigqueueinfo, SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_sched_getaffinity,
    SYS_sched_getattr, SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_setaffinity, SYS_sched_setparam,
    SYS_sched_setscheduler, SYS_sched_yield, SYS_seccomp, SYS_semctl, SYS_semget, SYS_semop, SYS_semtimedop,
    SYS_sendfile, SYS_sendmmsg, SYS_sendmsg, SYS_sendto, SYS_set_robust_list, SYS_set_tid_address, SYS_setgid,
    SYS_setgroups, SYS_setitimer, SYS_setpgid, SYS_setpriority, SYS_setregid, SYS_setresgid, SYS_setresuid,
    SYS_setreuid, SYS_setsid, SYS_setsockopt, SYS_setuid, SYS_setxattr, SYS_shmat, SYS_shmctl, SYS_shmdt,
    SYS_shmget, SYS_shutdown, SYS_sigaltstack, SYS_signalfd4, SYS_socketpair, SYS_splice, SYS_statfs,
    SYS_statx, SYS_symlinkat, SYS_sync, SYS_syncfs, SYS_sysinfo, SYS_tee, SYS_tgkill, SYS_timer_create,
    SYS_timer_delete, SYS_timer_getoverrun, SYS_timer_gettime, SYS_timer_settime, SYS_timerfd_create,
    SYS_timerfd_gettime, SYS_timerfd_settime, SYS_times, SYS_tkill, SYS_truncate, SYS_umask, SYS_uname,
    SYS_unlinkat, SYS_utimensat, SYS_wait4, SYS_waitid, SYS_write, SYS_writev,
];

/// Calls of the same kind that only this machine's architecture has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub const ALLOWED_HERE: &[Call] = calls![
    SYS_access, SYS_alarm, SYS_arch_prctl, SYS_chmod, SYS_chown, SYS_creat, SYS_dup2, SYS_epoll_create,
    SYS_epoll_wait, SYS_eventfd, SYS_fchmodat2, SYS_fork, SYS_getdents, SYS_getpgrp, SYS_getrlimit,
    SYS_inotify_init, SYS_lchown, SYS_link, SYS_lstat, SYS_mkdir, SYS_open, SYS_pause, SYS_pipe, SYS_poll,
    SYS_readlink, SYS_rename, SYS_renameat, SYS_rmdir, SYS_select, SYS_setrlimit, SYS_signalfd, SYS_stat,
    SYS_symlink, SYS_sync_file_range, SYS_time, SYS_unlink, SYS_utime, SYS_utimes, SYS_vfork,
];

/// Calls of the same kind that only this machine's architecture has: the newer ones have none.
#[cfg(not(target_arch = "x86_64"))]
pub const ALLOWED_HERE: &[Call] = &[];

/// The flags of clone(2) that make a namespace.
const CLONE_NEW_ANY: u32 = (libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS) as u32;

/// Calls that are allowed with some arguments only.
pub const CONDITIONAL: &[Conditional] = &[
    // Threads and processes, but no namespaces.
    Conditional { call: call!(SYS_clone), cases: &[&[Argument { index: 0, mask: CLONE_NEW_ANY, value: 0 }]] },
    // What personality(2) is asked to read, and the plain Linux ones with and without random addresses.
    Conditional {
        call: call!(SYS_personality),
        cases: &[
            &[Argument::is(0, 0)],
            &[Argument::is(0, 0x8)],
            &[Argument::is(0, 0x2_0000)],
            &[Argument::is(0, 0x2_0008)],
            &[Argument::is(0, u32::MAX)],
        ],
    },
    Conditional {
        call: call!(SYS_socket),
        cases: &[
            &[Argument::is(0, libc::AF_UNIX as u32)],
            &[Argument::is(0, libc::AF_INET as u32)],
            &[Argument::is(0, libc::AF_INET6 as u32)],
            &[Argument::is(0, libc::AF_NETLINK as u32), Argument::is(2, libc::NETLINK_ROUTE as u32)],
        ],
    },
];

/// A call whose flags lie in memory, where no filter can look: `ENOSYS` has a C library use clone(2) instead.
pub const ABSENT: Call = call!(SYS_clone3);

/// The table as programs of the kernel's filter machine. Each call must pass all of them.
///
/// # Errors
/// Where this machine's architecture is none that can be filtered.
pub(crate) fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let compile = |rules, otherwise, matched| {
        BpfProgram::try_from(SeccompFilter::new(rules, otherwise, matched, arch)?)
    };
    let absent = BTreeMap::from([(ABSENT.number, Vec::new())]);
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).chain([&ABSENT]).map(|call| (call.number, Vec::new())).collect();
    for conditional in CONDITIONAL {
        let rules: Result<_, _> = conditional.cases.iter().map(|case| rule(case)).collect();
        allowed.insert(conditional.call.number, rules?);
    }
    Ok([
        compile(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?,
        compile(allowed, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?,
    ])
}

fn rule(case: &[Argument]) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = |argument: &Argument| {
        let masked = SeccompCmpOp::MaskedEq(argument.mask.into());
        SeccompCondition::new(argument.index, SeccompCmpArgLen::Dword, masked, argument.value.into())
    };
    SeccompRule::new(case.iter().map(condition).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_becomes_programs() {
        let programs = programs().unwrap();
        assert!(programs.iter().all(|program| !program.is_empty() && program.len() < 4096));
    }

    #[test]
    fn no_call_is_named_twice_and_none_that_opens_the_kernel() {
        let names: Vec<_> = ALLOWED.iter().chain(ALLOWED_HERE).map(|call| call.name).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name}");
        }
        for name in [
            "mount",
            "unshare",
            "setns",
            "ptrace",
            "bpf",
            "keyctl",
            "add_key",
            "userfaultfd",
            "io_uring_setup",
            "process_vm_readv",
            "pidfd_getfd",
            "open_by_handle_at",
            "kexec_load",
            "chroot",
            "pivot_root",
            "mknod",
            "perf_event_open",
            "init_module",
            "swapon",
            "reboot",
            "clone3",
            "socket",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
    }
}
