//! Directories of attempts. Making and removing three directories costs more than all else that the runner does for a
//! small task, so one that was left as it was found is used again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const PARTS: [&str; 2] = ["in", "out"];

/// The directories that no attempt uses now; as many as were ever used at once. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Dirs(Arc<Mutex<Free>>);

#[derive(Debug, Default)]
struct Free {
    clean: Vec<PathBuf>,
    named: u64,
}

impl Dirs {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, root: &Path) -> TaskDir {
        let mut free = self.free();
        let path = free.clean.pop().unwrap_or_else(|| {
            free.named += 1;
            root.join("tasks").join(free.named.to_string())
        });
        TaskDir { path, dirs: self.clone() }
    }
}

/// The directory of one attempt, with `in/` and `out/`. When it is dropped, what was left in it goes.
#[derive(Debug)]
pub(crate) struct TaskDir {
    path: PathBuf,
    dirs: Dirs,
}

impl TaskDir {
    /// Where it is; it need not be there yet.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sees to it that it is there.
    pub(crate) fn make(&self) -> io::Result<()> {
        PARTS.iter().try_for_each(|part| {
            let part = self.path.join(part);
            if part.is_dir() { Ok(()) } else { fs::create_dir_all(part) }
        })
    }
}

impl Drop for TaskDir {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        if is_clean(&path) {
            self.dirs.free().clean.push(path);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // However much is in it, other work goes on meanwhile. It may never have been made.
            runtime.spawn_blocking(move || fs::remove_dir_all(path));
        }
    }
}

/// Whether nothing is there but the empty parts themselves.
fn is_clean(path: &Path) -> bool {
    let count = |path: &Path| fs::read_dir(path).map_or(usize::MAX, Iterator::count);
    count(path) == PARTS.len() && PARTS.iter().all(|part| count(&path.join(part)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_was_left_clean_is_used_again() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::default();
        let (first, second) = (dirs.take(root.path()), dirs.take(root.path()));
        first.make().unwrap();
        second.make().unwrap();
        let (clean, dirty) = (first.path().to_owned(), second.path().to_owned());
        assert_ne!(clean, dirty);
        fs::write(dirty.join("left"), "x").unwrap();
        drop((first, second));
        let again = dirs.take(root.path());
        assert_eq!(again.path(), clean);
        let new = dirs.take(root.path());
        assert!(new.path() != clean && new.path() != dirty);
    }
}
