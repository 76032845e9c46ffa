//! The end of a file that lies where a handler can write.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::Error;

/// The last bytes of a plain file; nothing else is read, and no link followed. `None` where it is not there.
pub(crate) fn of(path: &Path, bytes_max: u64) -> Result<Option<String>, Error> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let about = file.metadata().map_err(Error::io("inspect", path))?;
    if !about.is_file() {
        return Ok(None);
    }
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(about.len().saturating_sub(bytes_max)))
        .and_then(|_| file.take(bytes_max).read_to_end(&mut end))
        .map_err(Error::io("read", path))?;
    Ok(Some(String::from_utf8_lossy(&end).into_owned()))
}
