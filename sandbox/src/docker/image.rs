//! Images without a registry: packed from files of this host and given to the daemon.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tar::{Builder, EntryType, Header};

/// Links of a host that keeps all programs below `/usr`; a program names its interpreter by them.
const MERGED: [&str; 4] = ["/bin", "/lib", "/lib64", "/sbin"];

/// Where the system's own programs are: what a user has before them in `PATH` may be a script that leads elsewhere.
const PROGRAMS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];

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
        for (path, mode) in
            [("/tmp", 0o1777), ("/etc", 0o755), ("/proc", 0o555), ("/sys", 0o555), ("/dev", 0o755)]
        {
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
    /// linked with.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn tree(&mut self, directory: &Path, skip: &dyn Fn(&str) -> bool) -> io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            if skip(&name.to_string_lossy()) {
                continue;
            }
            match entry.file_type()? {
                kind if kind.is_dir() => self.tree(&path, skip)?,
                _ if path.extension().is_some_and(|extension| extension == "so") => self.linked(&path)?,
                _ => drop(self.file(&path)),
            }
        }
        Ok(())
    }

    /// The libraries that a program is linked with, but not the program.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn libraries(&mut self, program: &Path) -> io::Result<()> {
        self.merged();
        // Says nothing of a program that needs no other files.
        let output = Command::new("ldd").arg(program).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries =
            text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        libraries.into_iter().try_for_each(|library| self.file(Path::new(library)))
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

    /// One file under its own path; a link with what it leads to.
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let place = parent.canonicalize()?.join(name);
        match std::fs::read_link(&place) {
            Ok(target) => {
                let next = place.parent().unwrap_or(parent).join(&target);
                self.0.insert(place, Entry::Link(target));
                self.file(&next)
            }
            Err(_) if place.is_file() => {
                self.0.insert(place.clone(), Entry::Copy(place));
                Ok(())
            }
            Err(error) => Err(error),
        }
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
                    archive.append_data(&mut header(EntryType::Directory, 0, *mode), path, io::empty())?;
                }
                Entry::Text(text) => {
                    let mut header = header(EntryType::Regular, text.len() as u64, 0o644);
                    archive.append_data(&mut header, path, text.as_bytes())?;
                }
                Entry::Link(target) => {
                    archive.append_link(&mut header(EntryType::Symlink, 0, 0o777), path, target)?;
                }
                Entry::Copy(source) => {
                    use std::os::unix::fs::PermissionsExt as _;
                    let file = std::fs::File::open(source)?;
                    let about = file.metadata()?;
                    // No set-user-id bit gets into an image.
                    let mode = if about.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                    archive.append_data(&mut header(EntryType::Regular, about.len(), mode), path, file)?;
                }
            }
        }
        archive.into_inner()
    }
}

/// The same files give the same archive, and so the same image.
fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
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
