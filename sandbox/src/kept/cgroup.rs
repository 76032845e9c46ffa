//! Control groups for a sandbox, where the kernel lets us have some.
//!
//! The unified hierarchy (cgroup v2, Documentation/admin-guide/cgroup-v2.rst) kills all of a sandbox at once, before
//! any of it can fork again (`cgroup.kill`, Linux 5.14), and holds what a sandbox uses as a whole. Where limits are
//! still in hierarchies of version 1, those are used for them. Without any the keeper still ends everything, only by
//! more work.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Resources;

/// How often a group is asked to be removed while its last processes leave it.
const REMOVE_TRIES: u32 = 50;

/// How often it is looked whether all of a group stands still.
const FREEZE_LOOKS: u32 = 1_000;

/// The time over which processor time is measured out, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Room for the runner itself, beside what its handler may use, in bytes.
const RUNNER_BYTES: u64 = 16 << 20;

/// What a hierarchy of groups does for a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    /// Version 2 without controllers for us: it kills and freezes.
    Unified,
    /// Version 2 with its controllers.
    UnifiedLimits,
    /// Of version 1: total memory.
    Memory,
    /// Of version 1: number of processes.
    Pids,
    /// Of version 1: processor time.
    Cpu,
}

impl Role {
    /// The controllers of version 1 that are of use.
    const FIRST_VERSION: [(&'static str, Self); 3] =
        [("memory", Self::Memory), ("pids", Self::Pids), ("cpu", Self::Cpu)];

    fn is_unified(self) -> bool {
        matches!(self, Self::Unified | Self::UnifiedLimits)
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Unified => "version 2, to end a sandbox at once,",
            Self::UnifiedLimits => "version 2, to end a sandbox at once and for its limits,",
            Self::Memory => "version 1, for total memory,",
            Self::Pids => "version 1, for the number of processes,",
            Self::Cpu => "version 1, for processor time,",
        }
    }

    /// The files that hold a sandbox to `resources`, and what to write into them. What is missing here is no fault
    /// where the flag is unset.
    fn limits(self, resources: &Resources) -> Vec<(&'static str, String, bool)> {
        // A handler that takes too much alone is refused more before its group is at its end.
        let memory = resources.memory_bytes.saturating_add(RUNNER_BYTES).to_string();
        let pids = resources.pids.to_string();
        let quota = u64::from(resources.cpu_millis) * CPU_PERIOD_US / 1_000;
        match self {
            Self::Unified => Vec::new(),
            Self::UnifiedLimits => vec![
                ("memory.max", memory, true),
                ("memory.swap.max", "0".to_owned(), false),
                ("pids.max", pids, true),
                ("cpu.max", format!("{quota} {CPU_PERIOD_US}"), false),
            ],
            Self::Memory => vec![
                ("memory.limit_in_bytes", memory.clone(), true),
                // Memory and swap together, where swap is counted at all.
                ("memory.memsw.limit_in_bytes", memory, false),
            ],
            Self::Pids => vec![("pids.max", pids, true)],
            Self::Cpu => vec![
                ("cpu.cfs_period_us", CPU_PERIOD_US.to_string(), true),
                ("cpu.cfs_quota_us", quota.to_string(), true),
            ],
        }
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    path: PathBuf,
    role: Role,
}

/// One sandbox's groups, or those below which every sandbox gets its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Groups(Vec<Group>);

/// What groups hold a sandbox to, as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) memory: bool,
    pub(super) pids: bool,
    pub(super) cpu: bool,
}

impl Groups {
    /// The groups below which this process may make others: for ending sandboxes, and for limits where they are
    /// wanted. Each was tried out with a group of this name.
    pub(super) fn bases(name: &str, with_limits: bool) -> Self {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let (mounts, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
        let mut bases = Vec::new();
        bases.extend(unified_base(&mounts, &own, name, with_limits));
        if with_limits && !bases.iter().any(|base: &Group| base.role == Role::UnifiedLimits) {
            let found = Role::FIRST_VERSION
                .iter()
                .filter_map(|(controller, role)| Some((own_group(&mounts, &own, controller)?, *role)));
            bases.extend(found.map(|(path, role)| Group { path, role }).filter(|base| base.works(name)));
        }
        Self(bases)
    }

    /// Where each of them is, and what it is good for.
    pub(super) fn in_words(&self) -> Vec<String> {
        let words = |group: &Group| format!("{} at `{}`", group.role.in_words(), group.path.display());
        self.0.iter().map(words).collect()
    }

    /// The groups that a sandbox has below these.
    pub(super) fn below(&self, name: &str) -> Self {
        Self(self.0.iter().map(|base| Group { path: base.path.join(name), role: base.role }).collect())
    }

    /// What groups like these hold.
    pub(super) fn held(&self) -> Held {
        let has = |role| self.0.iter().any(|group| group.role == role);
        let all = has(Role::UnifiedLimits);
        Held {
            memory: all || has(Role::Memory),
            pids: all || has(Role::Pids),
            // The one controller of version 2 that a user is often not given.
            cpu: has(Role::Cpu) || self.0.iter().any(Group::hands_down_cpu),
        }
    }

    /// Makes them, and has them hold the sandbox to its limits.
    ///
    /// # Errors
    /// When a limit cannot be set. A group that only helps to end is done without.
    pub(super) fn make(&self, resources: &Resources) -> io::Result<Self> {
        let mut made = Vec::new();
        for group in &self.0 {
            match group.make(resources) {
                Ok(()) => made.push(group.clone()),
                Err(_) if group.role == Role::Unified => {}
                Err(error) => {
                    Self(made).remove();
                    let what = format!("make the control group `{}`: {error}", group.path.display());
                    return Err(io::Error::new(error.kind(), what));
                }
            }
        }
        Ok(Self(made))
    }

    /// Those of them that are there.
    pub(super) fn existing(&self) -> Self {
        Self(self.0.iter().filter(|group| group.path.is_dir()).cloned().collect())
    }

    /// The group of the unified hierarchy as a descriptor, for clone3(2).
    pub(super) fn open_unified(&self) -> Option<File> {
        File::open(&self.unified()?.path).ok()
    }

    /// Has this process, which must have a single thread, join the groups that no process can be born in; that of the
    /// unified hierarchy too, unless it was born there.
    ///
    /// # Errors
    /// When one that holds a limit cannot be joined: nothing runs without its limits.
    ///
    /// A thread that moves itself costs microseconds; moving another process costs some ten milliseconds, because
    /// the kernel then has to wait for all processors.
    pub(super) fn join(&self, is_in_unified: bool) -> io::Result<()> {
        for group in self.0.iter().filter(|group| !(is_in_unified && group.role.is_unified())) {
            let list = group.path.join(if group.role.is_unified() { "cgroup.procs" } else { "tasks" });
            match fs::write(&list, "0") {
                Err(error) if group.role != Role::Unified => {
                    let what = format!("join the control group `{}`: {error}", group.path.display());
                    return Err(io::Error::new(error.kind(), what));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The file in which the kernel tells how often it killed for want of memory, and where programs look for it.
    pub(super) fn oom_file(&self) -> Option<(PathBuf, &'static Path)> {
        self.0.iter().find_map(|group| match group.role {
            Role::UnifiedLimits => {
                Some((group.path.join("memory.events"), Path::new("/sys/fs/cgroup/memory.events")))
            }
            Role::Memory => {
                let seen = Path::new("/sys/fs/cgroup/memory/memory.oom_control");
                Some((group.path.join("memory.oom_control"), seen))
            }
            _ => None,
        })
    }

    /// Whether the kernel killed anything of the sandbox for want of memory.
    pub(super) fn was_out_of_memory(&self) -> bool {
        let text = self.oom_file().and_then(|(file, _)| fs::read_to_string(file).ok()).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
    }

    /// Has the kernel kill all of the sandbox; whether it does.
    pub(super) fn kill(&self) -> bool {
        self.unified().is_some_and(|group| fs::write(group.path.join("cgroup.kill"), "1").is_ok())
    }

    /// Whether the kernel can have all of it stand still.
    pub(super) fn can_freeze(&self) -> bool {
        self.unified().is_some_and(|group| group.path.join("cgroup.freeze").exists())
    }

    /// Has all of it stand still, or go on. What is killed meanwhile ends all the same.
    pub(super) fn freeze(&self, still: bool) -> io::Result<()> {
        let group = self.unified().ok_or(io::ErrorKind::Unsupported)?;
        fs::write(group.path.join("cgroup.freeze"), if still { "1" } else { "0" })?;
        // Said at once, done as soon as each process comes to where it can stand.
        for _ in 0..FREEZE_LOOKS {
            let events = fs::read_to_string(group.path.join("cgroup.events"))?;
            if !still || events.lines().any(|line| line == "frozen 1") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        fs::write(group.path.join("cgroup.freeze"), "0")?;
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Whether nothing is in the groups or below them.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Group::is_empty)
    }

    /// Removes the groups and the groups that the sandbox made below them.
    pub(super) fn remove(&self) {
        self.0.iter().for_each(Group::remove);
    }

    fn unified(&self) -> Option<&Group> {
        self.0.iter().find(|group| group.role.is_unified())
    }
}

impl Group {
    /// Whether groups below this one can be made and held to something.
    fn works(&self, name: &str) -> bool {
        let probe = Self { path: self.path.join(name), role: self.role };
        let made = probe.make(&Resources::default()).is_ok();
        probe.remove();
        made
    }

    fn hands_down_cpu(&self) -> bool {
        let controllers = fs::read_to_string(self.path.join("cgroup.subtree_control")).unwrap_or_default();
        self.role == Role::UnifiedLimits && controllers.split_whitespace().any(|name| name == "cpu")
    }

    fn make(&self, resources: &Resources) -> io::Result<()> {
        match fs::create_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let set = || {
            if self.role.is_unified() && !self.path.join("cgroup.kill").exists() {
                return Err(io::ErrorKind::Unsupported.into());
            }
            for (file, value, is_needed) in self.role.limits(resources) {
                match fs::write(self.path.join(file), value) {
                    Err(error) if is_needed => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        };
        set().inspect_err(|_| self.remove())
    }

    fn is_empty(&self) -> bool {
        let read = |file| fs::read_to_string(self.path.join(file)).unwrap_or_default();
        match self.role.is_unified() {
            true => !read("cgroup.events").lines().any(|line| line == "populated 1"),
            false => read("cgroup.procs").is_empty(),
        }
    }

    fn remove(&self) {
        for _ in 0..REMOVE_TRIES {
            match remove_below(&self.path) {
                // A process that was reaped a moment ago may still count.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => return,
            }
        }
        tracing::warn!(group = %self.path.display(), "a control group could not be removed");
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

/// The group of the unified hierarchy to make others in. Its controllers work in a group beside ours rather than
/// below it, since a group that has processes cannot hand them down.
fn unified_base(mounts: &str, own: &str, name: &str, with_limits: bool) -> Option<Group> {
    let path = own_group(mounts, own, "")?;
    let beside = path.parent().map(Path::to_owned);
    let limits = [Some(path.clone()), beside].into_iter().flatten();
    let mut limits = limits.map(|path| Group { path, role: Role::UnifiedLimits });
    let held = with_limits.then(|| limits.find(|base| base.works(name))).flatten();
    held.or(Some(Group { path, role: Role::Unified }))
}

/// The group that this process is in, of the hierarchy with this controller (cgroups(7), `/proc/self/cgroup`); ""
/// is the unified one. `None` where its part of the tree is not mounted.
fn own_group(mounts: &str, own: &str, controller: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|found| found == controller).then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut about = filesystem.split(' ');
        let is_it = match about.next()? {
            "cgroup2" => controller.is_empty(),
            "cgroup" => !controller.is_empty() && about.nth(1)?.split(',').any(|option| option == controller),
            _ => false,
        };
        let below = Path::new(own).strip_prefix(root).ok().filter(|_| is_it)?;
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "25 1 0:22 / /proc rw shared:2 - proc proc rw\n\
                          30 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                          33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                          31 25 0:28 /below /elsewhere rw - cgroup2 cgroup2 rw\n\
                          32 25 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_group_that_limits_is_joined_or_it_is_said_that_it_is_not() {
        let home = tempfile::tempdir().unwrap();
        let group = |name: &str, role| Group { path: home.path().join(name), role };
        fs::create_dir(home.path().join("there")).unwrap();
        let joined = || fs::read_to_string(home.path().join("there/cgroup.procs")).ok();
        let there = Groups(vec![group("there", Role::UnifiedLimits)]);
        there.join(true).unwrap();
        assert_eq!(joined(), None, "it was born there");
        there.join(false).unwrap();
        assert_eq!(joined().as_deref(), Some("0"));
        let error = Groups(vec![group("gone", Role::UnifiedLimits)]).join(false).unwrap_err();
        assert!(error.to_string().contains("join the control group"), "{error}");
        Groups(vec![group("gone", Role::Unified)]).join(false).unwrap();
    }

    #[test]
    fn groups_are_told_with_what_they_are_good_for() {
        let group = |path: &str, role| Group { path: path.into(), role };
        let hybrid = Groups(vec![group("/unified", Role::Unified), group("/pids", Role::Pids)]);
        let told = [
            "version 2, to end a sandbox at once, at `/unified`",
            "version 1, for the number of processes, at `/pids`",
        ];
        assert_eq!(hybrid.in_words(), told);
        assert!(Groups::default().in_words().is_empty());
    }

    #[test]
    fn every_hierarchy_is_found_among_mounts() {
        let own = "9:pids:/a\n4:cpu,cpuacct:/\n0::/b/c\n";
        let found = |controller| own_group(MOUNTS, own, controller);
        assert_eq!(found(""), Some("/sys/fs/cgroup/unified/b/c".into()));
        assert_eq!(found("pids"), Some("/sys/fs/cgroup/pids/a".into()));
        assert_eq!(found("cpu"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(found("memory"), None);
        assert_eq!(own_group(MOUNTS, "0::/below/d\n", ""), Some("/elsewhere/d".into()));
    }
}
