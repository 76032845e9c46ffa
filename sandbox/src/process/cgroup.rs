//! A control group per sandbox, where the kernel lets us have one: the kernel then kills all of a sandbox at
//! once, before any of it can fork again.
//!
//! Only cgroup v2 has that (`cgroup.kill`, Linux 5.14; Documentation/admin-guide/cgroup-v2.rst). Without it the
//! keeper still ends everything, only by more work.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a group is asked to be removed while its last processes leave it.
const REMOVE_TRIES: u32 = 50;

/// One sandbox's group.
#[derive(Clone, Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// The group that this process is in and below which it may make others; `None` where there is no cgroup v2.
    pub(super) fn base() -> Option<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        Some(mount_point(&mounts)?.join(own))
    }

    /// Makes the group if that is allowed here and it would be of use.
    pub(super) fn make(path: &Path) -> Option<Self> {
        let made = fs::create_dir(path);
        if made.is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
            return None;
        }
        let group = Self(path.to_owned());
        if !path.join("cgroup.kill").exists() {
            group.remove();
            return None;
        }
        Some(group)
    }

    /// The group that was made under this path, if it is still there.
    pub(super) fn find(path: &Path) -> Option<Self> {
        path.is_dir().then(|| Self(path.to_owned()))
    }

    /// The group as a descriptor, for clone3(2).
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.0)
    }

    /// Kills all in the group and below it.
    pub(super) fn kill(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1")
    }

    /// Whether nothing is in the group or below it.
    pub(super) fn is_empty(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        !events.lines().any(|line| line == "populated 1")
    }

    /// Removes the group and the groups that the sandbox made below it.
    pub(super) fn remove(&self) {
        for _ in 0..REMOVE_TRIES {
            match remove_below(&self.0) {
                // A process that was reaped a moment ago may still count.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => return,
            }
        }
        tracing::warn!(cgroup = %self.0.display(), "a control group could not be removed");
    }
}

/// A group's files go with it; only the groups below have to go first.
fn remove_below(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Finds where the whole cgroup v2 tree is mounted (proc_pid_mountinfo(5)).
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (kind.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_among_mounts() {
        let mounts = "25 1 0:22 / /proc rw shared:2 - proc proc rw\n\
                      30 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      31 25 0:28 /below /elsewhere rw - cgroup2 cgroup2 rw\n\
                      32 25 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("30 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids"), None);
    }
}
