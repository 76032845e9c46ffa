//! Where a demo keeps its data: a directory of its own, which goes with it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use events::store::sqlite::{DirectoryLock, LOCK_FILE};
use tempfile::TempDir;

const PREFIX: &str = "hypercode-demo-";
/// A directory that no demo has taken yet, and in which nothing was made for so long, is no demo's that is about to start.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// A directory that is kept, or one that is removed at the end.
pub(super) enum Place {
    Given(PathBuf),
    Made(TempDir),
}

impl Place {
    /// What is `given`, else a new directory. Those of demos that were killed, and could remove nothing, are removed.
    pub(super) fn open(given: Option<&Path>) -> io::Result<Self> {
        if let Some(given) = given {
            return Ok(Self::Given(given.to_owned()));
        }
        remove_stale(&std::env::temp_dir(), STALE_AFTER);
        Ok(Self::Made(tempfile::Builder::new().prefix(PREFIX).tempdir()?))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Made(made) => made.path(),
        }
    }
}

/// Removes what demos have left that run no more. What cannot be removed is another user's, or no matter.
fn remove_stale(directory: &Path, after: Duration) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_stale = || {
            let found = entry.metadata().ok()?;
            // Its owner was named there once it had the directory.
            let was_taken = std::fs::metadata(entry.path().join(LOCK_FILE)).is_ok_and(|lock| lock.len() > 0);
            Some(found.is_dir() && (was_taken || found.modified().ok()?.elapsed().ok()? >= after))
        };
        let is_a_demo_s = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if is_a_demo_s && is_stale() == Some(true) && DirectoryLock::take(&entry.path()).is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_demos_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let [killed, running, starting, other] =
            ["hypercode-demo-a", "hypercode-demo-b", "hypercode-demo-c", "other"]
                .map(|name| directory.path().join(name));
        for path in [&killed, &running, &starting, &other] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("log.db"), "").unwrap();
        }
        drop(DirectoryLock::take(&killed).unwrap());
        let _lock = DirectoryLock::take(&running).unwrap();
        let is_there = || [&killed, &running, &starting, &other].map(|path| path.is_dir());
        remove_stale(directory.path(), Duration::from_secs(60));
        assert_eq!(is_there(), [false, true, true, true], "one that was never taken may be about to start");
        remove_stale(directory.path(), Duration::ZERO);
        assert_eq!(is_there(), [false, true, false, true]);
    }
}
