//! Exclusive ownership of a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use super::OpenError;

/// The lock's file in the data directory; it holds the owner's process id.
pub const LOCK_FILE: &str = "lock";

/// The right of this process to a data directory; ends with the process at the latest.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes `directory`, which is made if it is missing, or says who has it.
    pub fn take(directory: &Path) -> Result<Self, OpenError> {
        let failed =
            |error| OpenError::Directory { directory: directory.into(), error: std::sync::Arc::new(error) };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let path = directory.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(failed)?;
                return Err(OpenError::InUse {
                    directory: directory.into(),
                    pid: holder.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
