//! The files that a sandbox sees.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};

use super::{Confinement, Inside, LINK, OWN, RUNNER, USER, WORK};
use crate::{Runner, Spec};

/// The host's directories that hold programs and what programs need; where one is a link, so it is inside.
const HOST: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];

/// What of the host's settings programs need, none of it a secret.
const SETTINGS: [&str; 20] = [
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];

/// Devices that hold nothing of the host.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links that programs expect among the devices.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What tells of the host, or commands it: read-only, and nothing at all.
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const PROC_HIDDEN: [&str; 6] = ["kcore", "keys", "key-users", "kmsg", "latency_stats", "timer_list"];

/// Bounds of the file systems in memory that only hold mount points and small files.
const ROOT_OPTIONS: &str = "mode=0755,size=1m,nr_inodes=2048";
const DEVICE_OPTIONS: &str = "mode=0755,size=64k,nr_inodes=64";

/// Bounds of `/tmp` and of shared memory.
const TMP_OPTIONS: &str = "mode=1777,size=16m,nr_inodes=1024";
const SHARED_MEMORY_OPTIONS: &str = "mode=1777,size=8m,nr_inodes=128";

/// Bytes of the work directory for each file that it may have, and how many it has room for at least.
const WORK_BYTES_PER_FILE: u64 = 4096;
const WORK_FILES_MIN: u64 = 1024;

/// Puts the sandbox's root together in `root`, an empty directory, and makes it the root of this process, which is
/// alone in its mount namespace. The host's is out of reach then.
pub(super) fn enter(
    confinement: &Confinement,
    spec: &Spec,
    root: &Path,
    oom_file: Option<(PathBuf, &Path)>,
    work_bytes: u64,
) -> io::Result<Inside> {
    // Nothing that is mounted here is to be seen outside, nor the other way round.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    // All of it is for another user than the one who makes it.
    let private = umask(Mode::from_bits_truncate(0o022));
    let tree = Tree { root };
    tree.memory("/", MsFlags::MS_NODEV, ROOT_OPTIONS)?;
    match &confinement.image {
        None => tree.host()?,
        Some(image) => tree.image(image)?,
    }
    tree.own(work_bytes)?;
    tree.devices()?;
    tree.processes(oom_file)?;
    let inside = tree.link_and_runner(spec)?;
    for share in &confinement.shares {
        tree.show(share, share)?;
    }
    umask(private);
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    restrict(Path::new("/"), libc::MOUNT_ATTR_RDONLY, false)?;
    Ok(inside)
}

/// A root that is being put together.
struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    /// Where something will be, for now.
    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Makes a directory and those above it. A link on the way would lead into the host's tree, so it is refused.
    fn make_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut at = self.root.to_owned();
        for part in path.as_ref().components().filter(|part| matches!(part, Component::Normal(_))) {
            at.push(part);
            match fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(about("make", path.as_ref())(io::ErrorKind::NotADirectory.into())),
                Err(_) => DirBuilder::new().mode(0o755).create(&at).map_err(about("make", path.as_ref()))?,
            }
        }
        Ok(())
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        fs::write(self.at(path), text).map_err(about("write", Path::new(path)))
    }

    fn link(&self, path: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        symlink(to, self.at(&path)).map_err(about("link", path.as_ref()))
    }

    /// An empty file system in memory.
    fn memory(&self, path: &str, flags: MsFlags, options: &str) -> io::Result<()> {
        self.make_dir(path)?;
        let flags = flags | MsFlags::MS_NOSUID;
        mount(Some("tmpfs"), &self.at(path), Some("tmpfs"), flags, Some(options))
            .map_err(|error| about("mount a tmpfs on", Path::new(path))(error.into()))
    }

    /// A file or directory of the host, with what is mounted below it, as it is.
    fn bind(&self, from: &Path, path: &Path) -> io::Result<()> {
        let is_dir = fs::metadata(from).map_err(about("find", from))?.is_dir();
        match is_dir {
            true => self.make_dir(path)?,
            false => {
                self.make_dir(path.parent().unwrap_or(path))?;
                fs::File::create(self.at(path)).map_err(about("make", path))?;
            }
        }
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(from), &self.at(path), None::<&str>, flags, None::<&str>)
            .map_err(|error| about("show", from)(error.into()))
    }

    /// The same, read-only, without devices and without programs that run as someone else. What is seen under its
    /// path already needs nothing.
    fn show(&self, from: &Path, path: &Path) -> io::Result<()> {
        let identity = |path: &Path| fs::metadata(path).ok().map(|about| (about.dev(), about.ino()));
        if identity(from).is_some_and(|own| identity(&self.at(path)) == Some(own)) {
            return Ok(());
        }
        self.bind(from, path)?;
        let without = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
        restrict(&self.at(path), without, true)
    }

    /// The same under `path`, if there is such a thing; a link stays a link.
    fn show_if_any(&self, from: &Path, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(from) {
            Err(_) => Ok(()),
            Ok(about) if about.is_symlink() => {
                self.make_dir(path.parent().unwrap_or(path))?;
                self.link(path, fs::read_link(from)?)
            }
            Ok(_) => self.show(from, path),
        }
    }

    /// The host's programs, and settings that tell nothing about it.
    fn host(&self) -> io::Result<()> {
        for path in HOST.map(Path::new) {
            self.show_if_any(path, path)?;
        }
        for setting in SETTINGS {
            let path = Path::new("/etc").join(setting);
            self.show_if_any(&path, &path)?;
        }
        self.write(
            "/etc/passwd",
            &format!(
                "root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{USER}:{USER}:agent:{WORK}:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
            ),
        )?;
        self.write("/etc/group", &format!("root:x:0:\nagent:x:{USER}:\nnogroup:x:65534:\n"))?;
        self.write("/etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n")?;
        self.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
    }

    /// All that an unpacked image has but what is the sandbox's own.
    fn image(&self, image: &Path) -> io::Result<()> {
        for entry in fs::read_dir(image).map_err(about("list", image))? {
            let entry = entry?;
            let path = Path::new("/").join(entry.file_name());
            if !OWN.iter().any(|own| Path::new(own) == path) {
                self.show_if_any(&entry.path(), &path)?;
            }
        }
        Ok(())
    }

    /// Where the sandbox itself may write.
    fn own(&self, work_bytes: u64) -> io::Result<()> {
        self.memory("/tmp", MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, TMP_OPTIONS)?;
        self.make_dir("/var")?;
        self.link("/var/tmp", "../tmp")?;
        self.link("/var/run", "../run")?;
        let files = (work_bytes / WORK_BYTES_PER_FILE).max(WORK_FILES_MIN);
        let options = format!("mode=0700,uid={USER},gid={USER},size={work_bytes},nr_inodes={files}");
        self.memory(WORK, MsFlags::MS_NODEV, &options)
    }

    fn devices(&self) -> io::Result<()> {
        self.memory("/dev", MsFlags::MS_NOEXEC, DEVICE_OPTIONS)?;
        for device in DEVICES {
            let path = Path::new("/dev").join(device);
            self.bind(&path, &path)?;
            restrict(&self.at(&path), libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC, false)?;
        }
        for (name, to) in DEVICE_LINKS {
            self.link(Path::new("/dev").join(name), to)?;
        }
        self.memory("/dev/shm", MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, SHARED_MEMORY_OPTIONS)?;
        self.make_dir("/dev/pts")?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let options = Some("newinstance,ptmxmode=0666,mode=0620");
        mount(Some("devpts"), &self.at("/dev/pts"), Some("devpts"), flags, options)
            .map_err(|error| about("mount terminals on", Path::new("/dev/pts"))(error.into()))?;
        restrict(&self.at("/dev"), libc::MOUNT_ATTR_RDONLY, false)
    }

    /// The processes of this namespace, and where the kernel counts what it killed for want of memory.
    fn processes(&self, oom_file: Option<(PathBuf, &Path)>) -> io::Result<()> {
        self.make_dir("/proc")?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), &self.at("/proc"), Some("proc"), flags, None::<&str>)
            .map_err(|error| about("mount processes on", Path::new("/proc"))(error.into()))?;
        let over = |from: &Path, path: &Path, attributes| -> io::Result<()> {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(from), path, None::<&str>, flags, None::<&str>)
                .map_err(|error| about("mount over", path)(error.into()))?;
            restrict(path, attributes, true)
        };
        for name in PROC_READ_ONLY {
            let path = self.at("/proc").join(name);
            if path.exists() {
                over(&path, &path, libc::MOUNT_ATTR_RDONLY)?;
            }
        }
        let null = self.at("/dev/null");
        for name in PROC_HIDDEN {
            let path = self.at("/proc").join(name);
            if path.exists() {
                over(&null, &path, libc::MOUNT_ATTR_RDONLY)?;
            }
        }
        oom_file.map_or(Ok(()), |(file, seen)| self.show(&file, seen))
    }

    fn link_and_runner(&self, spec: &Spec) -> io::Result<Inside> {
        let named = |path: &Path| -> io::Result<(PathBuf, PathBuf)> {
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => Ok((parent.to_owned(), name.into())),
                _ => Err(io::Error::other(format!("`{}` is no file", path.display()))),
            }
        };
        let (directory, socket) = named(&spec.socket)?;
        self.show(&directory, Path::new(LINK))?;
        let (_, program) = named(&spec.runner.program)?;
        let program = Path::new(RUNNER).join(program);
        self.show(&spec.runner.program, &program)?;
        Ok(Inside {
            runner: Runner { program, argv0: spec.runner.argv0.clone() },
            socket: Path::new(LINK).join(socket),
            work: WORK.into(),
        })
    }
}

/// What was tried, on which file.
fn about(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what} `{}`: {error}", path.display()))
}

/// Sets attributes of a mount, and of those below it; none is taken away, so what an owner set stays
/// (mount_setattr(2), Linux 5.12).
#[allow(unsafe_code, reason = "neither the standard library nor nix wraps mount_setattr(2)")]
fn restrict(path: &Path, attributes: u64, with_below: bool) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let text = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = if with_below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends in a zero, the change is a whole `mount_attr`, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            text.as_ptr(),
            flags,
            &raw const change,
            size_of_val(&change),
        )
    };
    if result == 0 { Ok(()) } else { Err(about("restrict", path)(io::Error::last_os_error())) }
}
