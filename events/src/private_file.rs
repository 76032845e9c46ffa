//! Small files that only their owner may read: keys and tokens.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Why such a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// It can be neither read nor made.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Others may read it.
    #[error("others may read it (mode {mode:04o}); run `chmod 600` on it")]
    Exposed {
        /// Its mode.
        mode: u32,
    },
}

/// What the file holds. Where there is none yet, it is made with what `make` gives: whole or not at all, whenever the
/// machine stops. Of several who make it at the same time, all get what the first one made.
pub fn read_or_make(path: &Path, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, PrivateFileError> {
    if let Some(bytes) = read(path)? {
        return Ok(bytes);
    }
    let fresh = beside(path);
    let made = write(&fresh, &make()).and_then(|()| fs::hard_link(&fresh, path));
    let removed = fs::remove_file(&fresh);
    match made {
        Ok(()) => removed?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    read(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
}

/// What the file holds, if it is there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, PrivateFileError> {
    let mode = match fs::metadata(path) {
        Ok(about) => about.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Exposed { mode });
    }
    Ok(Some(fs::read(path)?))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name in the same directory that nobody else takes: processes in different containers may have the same number.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", Uuid::new_v4().simple()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_for_its_owner_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("a.key");
        assert_eq!(read_or_make(&path, || b"one".to_vec()).expect("made"), b"one");
        assert_eq!(read_or_make(&path, || b"two".to_vec()).expect("read"), b"one");
        let files: Vec<_> = fs::read_dir(home.path())
            .expect("listed")
            .map(|file| file.expect("a file").file_name())
            .collect();
        assert_eq!(files, ["a.key"]);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
        let refused = read_or_make(&path, Vec::new).expect_err("others may read it");
        assert!(matches!(refused, PrivateFileError::Exposed { mode: 0o640 }), "{refused}");
    }

    #[test]
    fn another_that_makes_it_meanwhile_is_not_overwritten() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("a.key");
        let other = || {
            write(&path, b"theirs").expect("written");
            b"ours".to_vec()
        };
        assert_eq!(read_or_make(&path, other).expect("read"), b"theirs");
    }
}
