//! The sandboxes' sockets: one Unix socket each, in a directory of its own.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use events::{Digest, SandboxId};
use tokio::net::UnixListener;

/// The socket's name in its directory.
const SOCKET: &str = "s";
/// The file beside it that says whose it is: eight hex digits may meet twice.
const OWNER: &str = "sandbox";

/// The directory of a sandbox's socket. Short, since a socket's path has 108 bytes at most, and always the same, so
/// that a runner finds its platform again.
pub(crate) fn directory(run_dir: &Path, sandbox: &SandboxId) -> PathBuf {
    let name = Digest::of(sandbox.as_str().as_bytes()).to_string();
    run_dir.join(&name[..8])
}

/// The path of the socket in its directory.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join(SOCKET)
}

/// Makes the directory and the socket, replacing one that an earlier platform left for the same sandbox. Another user
/// than this one can connect, if there is such a `peer`, but neither replace the socket nor leave anything beside it.
pub(crate) fn bind(
    run_dir: &Path,
    directory: &Path,
    sandbox: &SandboxId,
    peer: Option<u32>,
) -> io::Result<UnixListener> {
    private_directory(run_dir)?;
    private_directory(directory)?;
    let owner = directory.join(OWNER);
    match std::fs::read_to_string(&owner) {
        Ok(found) if found != sandbox.as_str() => {
            let reason = format!("the directory belongs to sandbox `{found}`");
            return Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::write(&owner, sandbox.as_str())?,
        Err(error) => return Err(error),
    }
    let path = path(directory);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    if let Some(peer) = peer.filter(|peer| *peer != nix::unistd::geteuid().as_raw()) {
        match std::os::unix::fs::chown(&path, Some(peer), None) {
            // Only root gives files away. Whoever comes as far as the socket may then connect, and is known by the
            // kernel's word all the same.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
            }
            given => given?,
        }
        // Who may come this far is decided by the directory above, or by what a sandbox sees.
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711))?;
    }
    Ok(listener)
}

/// Removes a sandbox's directory, if it is still there.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    // First what can be removed without opening the directory: sandboxes are closed where no descriptor is left, too.
    for name in [SOCKET, OWNER] {
        let _ = std::fs::remove_file(directory.join(name));
    }
    if std::fs::remove_dir(directory).is_ok() {
        return Ok(());
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the directory that an earlier platform left for the sandbox, if it is that sandbox's.
pub(crate) fn remove_left(run_dir: &Path, sandbox: &SandboxId) -> io::Result<()> {
    let directory = directory(run_dir, sandbox);
    match std::fs::read_to_string(directory.join(OWNER)) {
        Ok(owner) if owner == sandbox.as_str() => remove(&directory),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory that nobody else may enter. One that is there already must be ours: under `/tmp`, somebody else
/// may have been first.
fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path)?;
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        let reason = format!("`{}` is not a directory of this user", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_comes_back_at_its_path_and_is_nobody_elses() {
        let home = tempfile::tempdir().unwrap();
        let run_dir = home.path().join("run");
        let sandbox = SandboxId::derive(&["one"]);
        let directory = directory(&run_dir, &sandbox);
        drop(bind(&run_dir, &directory, &sandbox, None).unwrap());
        assert!(path(&directory).exists(), "a platform that died leaves its socket");
        bind(&run_dir, &directory, &sandbox, None).unwrap();
        for (at, mode) in [(directory.clone(), 0o700), (path(&directory), 0o600)] {
            assert_eq!(std::fs::metadata(at).unwrap().permissions().mode() & 0o777, mode);
        }
        let error = bind(&run_dir, &directory, &SandboxId::derive(&["two"]), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        remove_left(&run_dir, &SandboxId::derive(&["two"])).unwrap();
        assert!(directory.exists(), "it is another sandbox's");
        remove_left(&run_dir, &sandbox).unwrap();
        remove(&directory).unwrap();
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_directory_that_is_a_link_to_elsewhere_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let run_dir = home.path().join("run");
        std::os::unix::fs::symlink(home.path(), &run_dir).unwrap();
        let sandbox = SandboxId::derive(&["one"]);
        let error = bind(&run_dir, &directory(&run_dir, &sandbox), &sandbox, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
