//! Images without a registry: packed from files of this host and given to the daemon.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tar::{Builder, EntryType, Header};

/// Links of a host that keeps all programs below `/usr`; a program names its interpreter by them.
const MERGED: [&str; 4] = ["/bin", "/lib", "/lib64", "/sbin"];

/// Where the system's own programs are: what a user has before them in `PATH` may be a script that leads elsewhere.
const PROGRAMS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];

/// What `ldd` says of a program that is linked statically.
const ALONE: [&str; 2] = ["statically linked", "not a dynamic executable"];

/// Links that lead to one another: as many as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The files of an image, by their paths in it.
#[derive(Debug, Default)]
pub struct Files(BTreeMap<PathBuf, Entry>);

#[derive(Debug)]
enum Entry {
    Directory { mode: u32 },
    Copy(PathBuf),
    Link(PathBuf),
    Text(String),
}

impl Files {
    /// The directories and the user that every program expects.
    #[must_use]
    pub fn new() -> Self {
        let mut files = Self::default();
        for (path, mode) in [
            ("/tmp", 0o1777),
            ("/app", 0o755),
            ("/etc", 0o755),
            ("/proc", 0o555),
            ("/sys", 0o555),
            ("/dev", 0o755),
        ] {
            files.0.insert(path.into(), Entry::Directory { mode });
        }
        files.text("/etc/passwd", "root:x:0:0::/:/bin/sh\nagent:x:10001:10001::/workspace:/bin/sh\n");
        files.text("/etc/group", "root:x:0:\nagent:x:10001:\n");
        files
    }

    /// A file with this text.
    pub fn text(&mut self, path: &str, text: &str) {
        self.0.insert(path.into(), Entry::Text(text.to_owned()));
    }

    /// A copy of a file of this host, under another path.
    pub fn copy(&mut self, path: &str, source: &Path) {
        self.0.insert(path.into(), Entry::Copy(source.to_owned()));
    }

    /// A program of this host with the libraries that it is linked with; answers where it is.
    ///
    /// # Errors
    /// Where it is not found or cannot be read.
    pub fn program(&mut self, name: &str) -> io::Result<PathBuf> {
        let found = PROGRAMS.iter().map(|dir| Path::new(dir).join(name)).find(|file| file.is_file());
        let found = found
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("find the program `{name}`")))?;
        self.merged();
        self.linked(&found)?;
        Ok(found)
    }

    /// A directory of this host under the same path, without what `skip` names, with the libraries that its files are
    /// linked with. A link that leads nowhere here stays one that does.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn tree(&mut self, directory: &Path, skip: &dyn Fn(&str) -> bool) -> io::Result<()> {
        for entry in std::fs::read_dir(directory).map_err(about("read", directory))? {
            let entry = entry?;
            let (path, name, kind) = (entry.path(), entry.file_name(), entry.file_type()?);
            if skip(&name.to_string_lossy()) {
                continue;
            }
            if kind.is_dir() {
                self.tree(&path, skip)?;
            } else if path.extension().is_some_and(|extension| extension == "so") {
                self.linked(&path)?;
            } else if kind.is_file() || kind.is_symlink() {
                match self.file(&path) {
                    Err(error) if kind.is_symlink() && error.kind() == io::ErrorKind::NotFound => {}
                    added => added?,
                }
            }
        }
        Ok(())
    }

    /// The libraries that a program is linked with, but not the program.
    ///
    /// # Errors
    /// Where it is not a program of this host, or one cannot be found or read.
    pub fn libraries(&mut self, program: &Path) -> io::Result<()> {
        self.merged();
        std::fs::metadata(program).map_err(about("find", program))?;
        let output = Command::new("ldd").arg(program).output().map_err(about("run `ldd` on", program))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        // A program that needs no other files is no fault.
        let needs_none = |text: &str| ALONE.iter().any(|words| text.contains(words));
        if needs_none(&text) || needs_none(&complaint) {
            return Ok(());
        }
        if !output.status.success() {
            let reason = complaint.trim().to_owned();
            return Err(about("run `ldd` on", program)(io::Error::other(reason)));
        }
        for line in text.lines() {
            if let Some(missing) = line.trim().strip_suffix("=> not found") {
                let reason = format!("its library `{}` is not on this host", missing.trim());
                return Err(about("pack", program)(io::Error::new(io::ErrorKind::NotFound, reason)));
            }
            if let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) {
                self.file(Path::new(library))?;
            }
        }
        Ok(())
    }

    fn merged(&mut self) {
        for path in MERGED.map(Path::new) {
            if let Ok(target) = std::fs::read_link(path) {
                self.0.insert(path.to_owned(), Entry::Link(target));
            }
        }
    }

    /// The file, and all that the dynamic linker would load for it.
    fn linked(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.libraries(path)
    }

    /// One file under its own path; a link with what it leads to, which for a directory is its name alone.
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
            let parent = parent.canonicalize().map_err(about("find", &path))?;
            let place = parent.join(name);
            let kind = place.symlink_metadata().map_err(about("find", &place))?.file_type();
            if kind.is_symlink() {
                let target = std::fs::read_link(&place).map_err(about("follow", &place))?;
                path = parent.join(&target);
                self.0.insert(place, Entry::Link(target));
            } else if kind.is_file() {
                self.0.insert(place.clone(), Entry::Copy(place));
                return Ok(());
            } else if kind.is_dir() {
                return Ok(());
            } else {
                let reason = "it is neither file, directory nor link".to_owned();
                return Err(about("pack", &place)(io::Error::new(io::ErrorKind::InvalidInput, reason)));
            }
        }
        let reason = format!("it leads over more than {LINKS_MAX} links");
        Err(about("follow", &path)(io::Error::new(io::ErrorKind::InvalidInput, reason)))
    }

    /// The files as a tar archive, all of them root's.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn pack(&self) -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let path = path.strip_prefix("/").unwrap_or(path);
            match entry {
                Entry::Directory { mode } => {
                    archive.append_data(&mut header(EntryType::Directory, 0, *mode, 0), path, io::empty())?;
                }
                Entry::Text(text) => {
                    let mut header = header(EntryType::Regular, text.len() as u64, 0o644, 0);
                    archive.append_data(&mut header, path, text.as_bytes())?;
                }
                Entry::Link(target) => {
                    archive.append_link(&mut header(EntryType::Symlink, 0, 0o777, 0), path, target)?;
                }
                Entry::Copy(source) => {
                    let file = std::fs::File::open(source).map_err(about("read", source))?;
                    let of = file.metadata()?;
                    // No set-user-id bit gets into an image.
                    let mode = if of.mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                    // Python compiles a file anew, at every start, if its time is not the one it was compiled with.
                    let mtime = u64::try_from(of.mtime()).unwrap_or_default();
                    let mut header = header(EntryType::Regular, of.len(), mode, mtime);
                    archive.append_data(&mut header, path, file).map_err(about("read", source))?;
                }
            }
        }
        archive.into_inner()
    }
}

/// The same files give the same archive, and so the same image.
fn header(kind: EntryType, size: u64, mode: u32, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header
}

/// Says of an error what was done, and to which file.
fn about(action: &'static str, path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{action} `{path}`: {error}"))
}

/// Programs of a shell's everyday work, beside the interpreter itself.
const TOOLS: [&str; 40] = [
    "sh", "basename", "cat", "chmod", "cp", "cut", "date", "dirname", "echo", "env", "expr", "false", "find",
    "grep", "head", "id", "ln", "ls", "mkdir", "mkfifo", "mktemp", "mv", "nproc", "ps", "pwd", "readlink",
    "rm", "rmdir", "sed", "seq", "setsid", "sleep", "sort", "stat", "tail", "touch", "tr", "true", "wc",
    "xargs",
];

/// Parts of Python's library that need what an image does not have, or that nobody runs in one.
const WITHOUT: [&str; 10] = [
    "config-",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tkinter",
    "turtledemo",
];

/// A shell, its everyday programs and this host's Python with its library.
///
/// # Errors
/// Where this host has no `python3`, or a file cannot be read.
pub fn python() -> io::Result<Files> {
    let mut files = Files::new();
    for tool in TOOLS {
        files.program(tool)?;
    }
    let python = files.program("python3")?;
    let asked = Command::new(python)
        .args(["-I", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"])
        .output()?;
    let library = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    if library.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "find the library of `python3`"));
    }
    let skip = |name: &str| WITHOUT.iter().any(|part| name.starts_with(part));
    files.tree(Path::new(&library), &skip)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_keeps_its_time_and_loses_its_privilege() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("tool");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4755)).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::open(&file).unwrap().set_modified(time).unwrap();
        let mut files = Files::default();
        files.copy("/tool", &file);
        let packed = files.pack().unwrap();
        assert_eq!(packed, files.pack().unwrap(), "the same files give the same archive");
        let mut archive = tar::Archive::new(&packed[..]);
        let header = archive.entries().unwrap().next().unwrap().unwrap().header().clone();
        assert_eq!((header.mtime().unwrap(), header.mode().unwrap()), (1_000_000_000, 0o755));
    }

    #[test]
    fn links_in_a_circle_are_named_and_one_that_leads_nowhere_stays() {
        let home = tempfile::tempdir().unwrap();
        symlink("b", home.path().join("a")).unwrap();
        symlink("a", home.path().join("b")).unwrap();
        let error = Files::default().tree(home.path(), &|_| false).unwrap_err();
        assert!(error.to_string().contains("more than 40 links"), "{error}");
        std::fs::remove_file(home.path().join("a")).unwrap();
        let mut files = Files::default();
        files.tree(home.path(), &|_| false).unwrap();
        assert_eq!(files.0.len(), 1, "{files:?}");
        nix::unistd::mkfifo(&home.path().join("c.so"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Files::default().tree(home.path(), &|_| false).unwrap_err();
        assert!(error.to_string().contains("neither file, directory nor link"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Files::default().libraries(Path::new("/nonexistent/program")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/program"), "{error}");
    }
}
