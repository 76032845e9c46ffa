//! What a process gives up before it becomes the runner.

use std::io;

use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setresgid, setresuid};

use super::USER;
use crate::seccomp;

/// The version of capset(2) whose sets have 64 bits.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Makes the loopback device of a new network namespace work: the runner serves the handler's API there.
#[allow(unsafe_code, reason = "nix has no safe wrapper of the interface ioctls, netdevice(7)")]
pub(super) fn raise_loopback() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all fields may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a whole `ifreq`, with a name that ends in a zero, and outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Becomes the sandbox's user, without any capability and without a way to gain one, and with few system calls.
pub(super) fn drop_all(pids: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    // Counted within the user namespace (getrlimit(2), Linux 5.14), so for this sandbox alone.
    setrlimit(Resource::RLIMIT_NPROC, pids.into(), pids.into())?;
    drop_capabilities()?;
    prctl::set_no_new_privs()?;
    // Should the keeper be killed, all of this sandbox ends with it. Forgotten whenever the user changes.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    for program in seccomp::programs().map_err(io::Error::other)? {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Empties every set of capabilities (capabilities(7)).
#[allow(unsafe_code, reason = "neither the standard library nor nix wraps capset(2)")]
fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// Effective, permitted and inheritable, 32 bits each.
    type Sets = [[u32; 3]; 2];

    // SAFETY: the call takes plain numbers. It fails after the last capability that the kernel knows.
    let forget = |capability: libc::c_int| unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    let known = (0..64).take_while(|capability| forget(*capability) == 0).count();
    if known == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let none: Sets = [[0; 3]; 2];
    // SAFETY: header and sets are laid out as this version wants them, and outlive the call.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
