//! The files of one sandbox, and what can be told from them.
//!
//! ```text
//! <root>/.used/<id>         empty: the id served, whatever else is there (SB-1)
//! <root>/<id>/lock          locked for as long as the keeper lives
//!            /record.json   by the provider, before anything is started: what was asked for
//!            /birth.json    by the runner's process, before it becomes the runner: who runs
//!            /exit.json     by the keeper, after the last process below it is gone: how it ended
//!            /runner.log    the runner's stderr
//!            /tmp  /work    the runner's, where it shares the host's files
//!            /root          where a confined sandbox puts its own root together; empty to all others
//! ```
//!
//! The order of those writes is what makes a crash at any moment readable: without `birth.json` and with
//! a free lock no runner ever ran; with `exit.json` nothing of it runs any more.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup::Groups;
use crate::used::Used;
use crate::{Confinement, Error, Exit, Id, Instance, Pid, Spec};

/// Largest state file that is read, in bytes: a sandbox shares our user and may write anything there.
const STATE_BYTES_MAX: u64 = 64 << 10;

/// How much of the end of the runner's stderr an exit carries, in bytes.
const LOG_TAIL_BYTES: u64 = 2 << 10;

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) instance: Instance,
    pub(super) spec: Spec,
    /// The control groups that the keeper makes.
    #[serde(default)]
    pub(super) groups: Groups,
    /// What it is confined to; `None` shares the host.
    #[serde(default)]
    pub(super) confinement: Option<Confinement>,
}

/// Who runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Birth {
    /// The boot during which the two process ids mean something.
    pub(super) boot: String,
    pub(super) keeper: Pid,
    pub(super) runner: Pid,
}

/// How the runner ended, as the keeper saw it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ending {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    #[serde(default)]
    pub(super) oom: bool,
}

/// What a sandbox's files say.
#[derive(Debug)]
pub(super) enum Look {
    /// There is nothing.
    Absent,
    /// It belongs to another instance.
    Foreign,
    /// Its files cannot be understood.
    Damaged(String),
    /// It was asked for, but no runner was ever started.
    Unborn(Option<Record>),
    /// Its keeper lives; without a birth, it is about to start the runner.
    Kept(Record, Option<Birth>),
    /// Its keeper was killed before it could end the rest.
    Lost(Record, Birth),
    /// Its runner has ended and nothing of it runs.
    Ended(Record, Option<Birth>, Ending),
}

/// Where the sandboxes of a provider are.
#[derive(Clone, Debug)]
pub(super) struct Root {
    dir: PathBuf,
    /// The ids that served.
    pub(super) used: Used,
}

impl Root {
    /// Makes the directories that are missing.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let used = Used::open(dir)?;
        let dir = dir.canonicalize().map_err(Error::io("resolve", dir))?;
        Ok(Self { dir, used })
    }

    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    pub(super) fn place(&self, id: &Id) -> Place {
        Place { dir: self.dir.join(id.as_str()) }
    }

    /// The ids of all directories that could be sandboxes; others are reported and left alone.
    pub(super) fn ids(&self) -> Result<Vec<Id>, Error> {
        let fail = |source| Error::io("list", &self.dir)(source);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            match name.to_str().map(Id::new) {
                _ if name == Used::NAME => {}
                Some(Ok(id)) => ids.push(id),
                _ => tracing::warn!(root = %self.dir.display(), ?name, "ignoring a file that is no sandbox"),
            }
        }
        Ok(ids)
    }
}

/// The directory of one sandbox.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Reads all there is. What changes meanwhile is seen as it was before or after.
    pub(super) fn look(&self, instance: &Instance) -> Result<Look, Error> {
        let record: Record = match read(&self.dir.join("record.json")) {
            Ok(Some(record)) => record,
            Ok(None) if self.dir.is_dir() => return Ok(Look::Unborn(None)),
            Ok(None) if self.dir.exists() => return Ok(Look::Damaged("it is not a directory".to_owned())),
            Ok(None) => return Ok(Look::Absent),
            Err(reason) => return Ok(Look::Damaged(reason)),
        };
        if record.instance != *instance {
            return Ok(Look::Foreign);
        }
        // The lock before the files: a keeper that ends in between has written them by then.
        let kept = self.is_kept()?;
        let files = || Ok((read(&self.dir.join("birth.json"))?, read(&self.dir.join("exit.json"))?));
        Ok(match files() {
            Err(reason) => Look::Damaged(reason),
            Ok((birth, Some(ending))) => Look::Ended(record, birth, ending),
            Ok((birth, None)) if kept => Look::Kept(record, birth),
            Ok((Some(birth), None)) => Look::Lost(record, birth),
            Ok((None, None)) => Look::Unborn(Some(record)),
        })
    }

    /// Makes the directories and records what was asked for.
    pub(super) fn prepare(&self, record: &Record) -> Result<(), Error> {
        let own = match record.confinement {
            Some(_) => vec![self.root()],
            None => vec![self.work(), self.tmp()],
        };
        for dir in [self.dir.clone()].into_iter().chain(own) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(Error::io("create", &dir))?;
        }
        let path = self.dir.join("record.json");
        // Not synced: what was to run is in the platform's log, and after a power cut nothing of it does.
        write(&path, record).map_err(Error::io("write", &path))
    }

    /// Takes the lock for a new keeper to inherit: it is free again when its last copy is closed.
    ///
    /// `None` when another keeper holds it.
    pub(super) fn lock(&self) -> Result<Option<File>, Error> {
        let path = self.dir.join("lock");
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    fn is_kept(&self) -> Result<bool, Error> {
        let path = self.dir.join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        // A shared lock, so that two who look do not take each other for a keeper.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    pub(super) fn record(&self) -> Result<Record, String> {
        read(&self.dir.join("record.json"))?.ok_or_else(|| format!("no record in `{}`", self.dir.display()))
    }

    pub(super) fn write_birth(&self, birth: &Birth) -> io::Result<()> {
        // Not synced: after a power cut nobody runs who could have been born.
        write(&self.dir.join("birth.json"), birth)
    }

    pub(super) fn write_ending(&self, ending: &Ending) -> io::Result<()> {
        write(&self.dir.join("exit.json"), ending)
    }

    /// The file that the runner's stderr goes to.
    pub(super) fn create_log(&self) -> Result<File, Error> {
        let path = self.dir.join("runner.log");
        let open = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        open.map_err(Error::io("create", &path))
    }

    /// The exit that `ending` makes, with the last words of the runner.
    pub(super) fn exit(&self, id: &Id, ending: Ending) -> Exit {
        Exit {
            id: id.clone(),
            code: ending.code,
            signal: ending.signal,
            oom: ending.oom,
            log: self.log_tail(),
        }
    }

    pub(super) fn log_tail(&self) -> String {
        let tail = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.dir.join("runner.log"))?;
            let from = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&tail().unwrap_or_default()).trim().to_owned()
    }

    /// Removes all files, also those whose directory was made unwritable. Only when nothing of it runs.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotADirectory => fs::remove_file(&self.dir),
            other => other,
        };
        if let Err(error) = gone(fs::remove_dir_all(&self.dir)) {
            if error.kind() != ErrorKind::PermissionDenied {
                return Err(Error::io("remove", &self.dir)(error));
            }
            open_up(&self.dir);
            gone(fs::remove_dir_all(&self.dir)).map_err(Error::io("remove", &self.dir))?;
        }
        Ok(())
    }

    /// The one environment variable that tells every process of this sandbox from all others.
    pub(super) fn marker(&self) -> (&'static str, OsString) {
        ("HYPERCODE_SANDBOX_DIR", self.dir.clone().into_os_string())
    }
}

/// Makes every directory below `dir` ours to change again; what fails shows when it is removed.
fn open_up(dir: &Path) {
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// `Ok(None)` where there is no such file, an explanation where it cannot be understood.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("cannot read `{}`: {error}", path.display());
    // The sandbox may have put a pipe or a link here: neither wait for the one nor follow the other.
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path);
    let file = match open {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(fail(&error)),
    };
    let mut bytes = Vec::new();
    file.take(STATE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() as u64 > STATE_BYTES_MAX {
        return Err(fail(&format!("it is larger than {STATE_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| fail(&error))
}

/// Writes a state file so that a reader sees all of it or nothing.
fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let fresh = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(&fresh, path)
}
