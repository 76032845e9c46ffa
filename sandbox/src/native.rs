//! Sandboxes made of namespaces: what one sees of the host, and what it may do.
//!
//! The keeper forks the runner's process into new namespaces. Before that process becomes the runner, it puts a root
//! of its own together out of a read-only view of the host's programs and some memory file systems, leaves the
//! host's root for ever, and gives up all that it does not need: its user, its capabilities, most system calls.
//! No other program and no daemon takes part, and where the kernel lets users make namespaces, no rights are needed.
//!
//! ```text
//! /usr /bin /lib …      the host's, or those of an unpacked image; read-only
//! /etc                  what programs need of the host's, and a user `agent`; read-only
//! /dev /proc            few devices; processes of this sandbox only
//! /run/hypercode        the directory of the link's socket; read-only
//! /run/runner           the runner's program; read-only
//! /tmp /workspace       its own, in memory, bounded; the work directory survives as long as the sandbox
//! ```

mod canary;
mod privileges;
mod view;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid as RawPid, getegid, geteuid, sethostname};
use serde::{Deserialize, Serialize};

use crate::kept::{Keeper, limit};
use crate::{Error, Pid, Resources, Runner, Spec};

pub use self::canary::{CANARY, canary_main, prove};

/// The user and group that everything in a sandbox runs as, inside; outside too where the platform may choose.
pub(crate) const USER: u32 = 10_001;

/// The work directory, inside.
pub(crate) const WORK: &str = "/workspace";

/// The directory of the link's socket, inside.
const LINK: &str = "/run/hypercode";

/// The directory of the runner's program, inside.
const RUNNER: &str = "/run/runner";

/// The search path where nothing else is visible.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What is a sandbox's own, and what in it is the kernel's.
const OWN: [&str; 7] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var", "/workspace"];
const KERNELS: [&str; 4] = ["/dev", "/proc", "/run/hypercode", "/sys"];

/// Where every image and every host has its programs.
const PROGRAMS: [&str; 3] = ["/usr", "/bin", "/sbin"];

/// What a sandbox of namespaces is given of the host, and who it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Directories of the host that every sandbox may read, each under its own path.
    shares: Vec<PathBuf>,
    /// A directory that holds an unpacked image, whose files are seen in place of the host's programs.
    image: Option<PathBuf>,
    /// Who the sandbox is to the host.
    uid: u32,
    gid: u32,
    /// Whether the platform has rights over the host that a sandbox must give up itself. Then its namespaces belong to
    /// the host's root, and the user namespace comes last: nothing inside could change a mount even with all
    /// capabilities.
    is_privileged: bool,
}

/// How the runner is started inside.
pub(crate) struct Inside {
    pub(crate) runner: Runner,
    pub(crate) socket: PathBuf,
    pub(crate) work: PathBuf,
}

impl Confinement {
    /// Sees the host's programs and no other files of it.
    ///
    /// To the host a sandbox is the user 10001 where this process may choose, as root may; else its own user.
    #[must_use]
    pub fn new() -> Self {
        let knows = |map| covers(&fs::read_to_string(map).unwrap_or_default(), USER);
        let is_privileged = geteuid().is_root() && knows("/proc/self/uid_map") && knows("/proc/self/gid_map");
        let (uid, gid) = match is_privileged {
            true => (USER, USER),
            false => (geteuid().as_raw(), getegid().as_raw()),
        };
        Self { shares: Vec::new(), image: None, uid, gid, is_privileged }
    }

    /// Lets every sandbox read this directory of the host, under its own path.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is no directory, or would hide what is a sandbox's own.
    pub fn share(&mut self, directory: &Path) -> Result<(), Error> {
        let invalid = || {
            let right = "an existing directory, and none that a sandbox has of its own, such as `/`, `/tmp` or `/proc`";
            Error::invalid("share", &directory.to_string_lossy(), right)
        };
        let path = directory.canonicalize().ok().filter(|path| path.is_dir()).ok_or_else(invalid)?;
        let is_own = OWN.iter().any(|own| Path::new(own).starts_with(&path))
            || KERNELS.iter().any(|own| path.starts_with(own));
        if is_own {
            return Err(invalid());
        }
        self.shares.push(path);
        Ok(())
    }

    /// Has every sandbox see this directory, an unpacked image, in place of the host's programs.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is no directory.
    pub fn unpacked_image(&mut self, directory: &Path) -> Result<(), Error> {
        let invalid =
            || Error::invalid("image", &directory.to_string_lossy(), "a directory with an unpacked image");
        self.image = Some(directory.canonicalize().ok().filter(|path| path.is_dir()).ok_or_else(invalid)?);
        Ok(())
    }

    /// Whether a sandbox sees the host's file or directory of this path, or what lies on the way to a part of it.
    #[must_use]
    pub fn shows(&self, path: &Path) -> bool {
        self.shares.iter().any(|share| share.starts_with(path) || path.starts_with(share))
    }

    /// The user that a sandbox's processes have to the host, by which the gateway knows its peers.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The flags of clone(2) with which the runner's process is made.
    pub(crate) fn namespaces(&self) -> libc::c_int {
        let all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        match self.is_privileged {
            true => all.bits(),
            false => (all | CloneFlags::CLONE_NEWUSER).bits(),
        }
    }

    /// Says for a process in a new user namespace who its one user is (user_namespaces(7)).
    pub(crate) fn map_user(&self, process: RawPid) -> io::Result<()> {
        let write = |file: &str, text: String| fs::write(format!("/proc/{process}/{file}"), text);
        if !self.is_privileged {
            write("setgroups", "deny".to_owned())?;
        }
        write("uid_map", format!("{USER} {} 1", self.uid))?;
        write("gid_map", format!("{USER} {} 1", self.gid))
    }

    /// The runner's environment, and so `PATH` of handlers: of the platform's what is visible inside.
    pub(crate) fn environment(&self, path: &OsStr) -> [(&'static str, OsString); 3] {
        let is_visible = |dir: &PathBuf| {
            let host = PROGRAMS.iter().map(Path::new).any(|programs| dir.starts_with(programs));
            (host && self.image.is_none()) || self.shares.iter().any(|share| dir.starts_with(share))
        };
        let kept = env::split_paths(path).filter(is_visible).chain(env::split_paths(PATH));
        let mut dirs: Vec<PathBuf> = Vec::new();
        for dir in kept {
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        let path = env::join_paths(dirs).unwrap_or_else(|_| PATH.into());
        [("PATH", path), ("HOME", WORK.into()), ("TMPDIR", "/tmp".into())]
    }

    /// Shuts this process off, the first of its process namespace, just before it becomes the runner. `root` is an
    /// empty directory of the host.
    pub(crate) fn enter(
        &self,
        spec: &Spec,
        root: &Path,
        oom_file: Option<(PathBuf, &Path)>,
        keeper: &mut Keeper,
    ) -> io::Result<Inside> {
        let Resources { pids, work_bytes, .. } = spec.resources;
        // Only now, in its groups: they are what it sees as the roots of their trees.
        unshare(CloneFlags::CLONE_NEWCGROUP)?;
        sethostname("sandbox")?;
        privileges::raise_loopback()?;
        let inside = view::enter(self, spec, root, oom_file, work_bytes)?;
        limit(&spec.resources)?;
        if self.is_privileged {
            nix::unistd::setgroups(&[])?;
            unshare(CloneFlags::CLONE_NEWUSER)?;
            keeper.map_user()?;
        }
        privileges::drop_all(pids)?;
        Ok(inside)
    }
}

impl Default for Confinement {
    fn default() -> Self {
        Self::new()
    }
}

/// The work directory of a sandbox whose runner this is, as the host sees it.
pub(crate) fn work_of(runner: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{WORK}", runner.pid))
}

/// Whether a map of users has this one (user_namespaces(7)): inside, outside, count on each line.
fn covers(map: &str, user: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u64>().ok());
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first + count).contains(&user.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_users_covers_what_is_in_its_ranges() {
        assert!(covers("         0          0 4294967295\n", USER));
        assert!(covers("0 1000 1\n1 100000 65536\n", USER));
        assert!(!covers("0 1000 1\n", USER));
        assert!(!covers("", USER));
    }

    #[test]
    fn only_visible_directories_stay_in_the_search_path() {
        let mut confinement = Confinement::new();
        assert!(
            confinement.share(Path::new("/")).is_err() && confinement.share(Path::new("/proc/self")).is_err()
        );
        confinement.shares.push("/opt/tools".into());
        let path = |confinement: &Confinement| {
            confinement.environment(OsStr::new("/root/bin:/usr/games:/opt/tools/bin:/usr/bin"))[0].1.clone()
        };
        assert_eq!(path(&confinement), "/usr/games:/opt/tools/bin:/usr/bin:/usr/local/bin:/bin");
        confinement.image = Some("/images/one".into());
        assert_eq!(path(&confinement), "/opt/tools/bin:/usr/local/bin:/usr/bin:/bin");
    }
}
