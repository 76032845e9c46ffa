//! Room on the disk of the data directory.

use std::path::{Path, PathBuf};

use events::api::{Problem, ProblemKind};
use nix::sys::statvfs::statvfs;
use tokio::task::spawn_blocking;

/// Below so much free space, in KiB, a disk counts as full: the log and the bodies of tasks find no room.
pub(crate) const KIB_LEAST: u64 = 1_024;

/// The room that there is for what the platform is to keep.
#[derive(Clone, Debug)]
pub struct Room {
    directory: PathBuf,
}

impl Room {
    /// The room on the disk of this directory.
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Whether there is any.
    ///
    /// # Errors
    /// When the disk is full. Who is told of it may be anybody, so the directory is not named.
    pub(crate) async fn check(&self) -> Result<(), Problem> {
        let directory = self.directory.clone();
        let free = spawn_blocking(move || free_kib(&directory)).await.ok().flatten();
        match free.filter(|free| *free < KIB_LEAST) {
            Some(free) => {
                let detail = format!(
                    "the disk of the data directory is full, {free} KiB are free: nothing new can be kept until there is room"
                );
                Err(Problem::new(ProblemKind::Unavailable, detail))
            }
            None => Ok(()),
        }
    }
}

/// Free space on the disk of a directory, in KiB; `None` where that cannot be told.
pub(crate) fn free_kib(directory: &Path) -> Option<u64> {
    let stat = statvfs(directory).ok()?;
    Some((stat.blocks_available() * stat.fragment_size()) >> 10)
}
