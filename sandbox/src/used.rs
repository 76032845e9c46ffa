//! Tombstones: which ids have served, whatever else is left of them (SB-1).

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{Error, Id};

/// A directory with an empty file for every id that was used.
#[derive(Clone, Debug)]
pub(crate) struct Used(PathBuf);

impl Used {
    /// Its name in a directory of sandboxes; no id starts with a dot.
    pub(crate) const NAME: &'static str = ".used";

    /// Makes the directory below `root`, and `root` too, where they are missing.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let dir = root.join(Self::NAME);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(Error::io("create", &dir))?;
        dir.canonicalize().map(Self).map_err(Error::io("resolve", &dir))
    }

    pub(crate) fn has(&self, id: &Id) -> bool {
        self.0.join(id.as_str()).exists()
    }

    /// Leaves the tombstone. It is for a create that comes late, which does not survive a power cut either, so it
    /// need not: what an id was used for is in the platform's log for ever.
    pub(crate) fn mark(&self, id: &Id) -> Result<(), Error> {
        let stone = self.0.join(id.as_str());
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&stone) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Error::io("create", &stone)(error)),
            _ => Ok(()),
        }
    }
}
