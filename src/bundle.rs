//! Bundles: a handler's source as one deterministic tar, so that the same source has the same digest everywhere.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Largest bundle, in bytes: that of an artifact.
pub const BUNDLE_BYTES_MAX: u64 = 64 << 20;
/// Most files and directories in a bundle.
pub const ENTRIES_MAX: usize = 10_000;

/// Directories that are no source: version control, and caches that change with every run.
const SKIPPED: [&str; 3] = [".git", "__pycache__", ".DS_Store"];

/// Why a source cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read.
    #[error("pack `{}`: {error}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// A link leads out of the source.
    #[error("pack `{}`: the link leads out of the source; put a copy of its target there instead", path.display())]
    LinkOut {
        /// The link.
        path: PathBuf,
    },
    /// A link leads to a directory.
    #[error("pack `{}`: the link leads to a directory; put a copy of it there instead", path.display())]
    LinkToDirectory {
        /// The link.
        path: PathBuf,
    },
    /// It is neither file, directory nor link.
    #[error("pack `{}`: found a socket, pipe or device, expected files and directories only", path.display())]
    Special {
        /// What it is.
        path: PathBuf,
    },
    /// A name cannot be written down portably.
    #[error("pack `{}`: the name is not UTF-8", path.display())]
    Name {
        /// The file or directory.
        path: PathBuf,
    },
    /// There is too much of it.
    #[error("pack `{}`: it has more than {BUNDLE_BYTES_MAX} bytes or {ENTRIES_MAX} entries; is there data beside the source?", path.display())]
    TooLarge {
        /// The source.
        path: PathBuf,
    },
}

enum Entry {
    Directory,
    File { from: PathBuf, is_executable: bool },
}

/// Packs a file or a directory: entries sorted by name, times and owners zero, modes 0644 or 0755.
pub fn pack(source: &Path) -> Result<Vec<u8>, BundleError> {
    let failed = |error| BundleError::Read { path: source.to_owned(), error };
    let root = source.canonicalize().map_err(failed)?;
    let mut entries = BTreeMap::new();
    if root.is_file() {
        let name = root.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| BundleError::Name { path: source.to_owned() })?;
        entries.insert(name.to_owned(), file(&root)?);
    } else {
        collect(&root, &root, &mut entries)?;
    }
    write(source, &entries)
}

fn collect(root: &Path, directory: &Path, entries: &mut BTreeMap<String, Entry>) -> Result<(), BundleError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| BundleError::Read { path, error }
    };
    for found in std::fs::read_dir(directory).map_err(failed(directory))? {
        let path = found.map_err(failed(directory))?.path();
        if path.file_name().is_some_and(|name| SKIPPED.iter().any(|skipped| *skipped == name)) {
            continue;
        }
        let relative = path.strip_prefix(root).ok().and_then(Path::to_str);
        let name = relative.ok_or_else(|| BundleError::Name { path: path.clone() })?.to_owned();
        if entries.len() >= ENTRIES_MAX {
            return Err(BundleError::TooLarge { path: root.to_owned() });
        }
        let kind = std::fs::symlink_metadata(&path).map_err(failed(&path))?.file_type();
        if kind.is_dir() {
            entries.insert(name, Entry::Directory);
            collect(root, &path, entries)?;
        } else if kind.is_file() {
            entries.insert(name, file(&path)?);
        } else if kind.is_symlink() {
            entries.insert(name, link(root, &path)?);
        } else {
            return Err(BundleError::Special { path });
        }
    }
    Ok(())
}

fn file(path: &Path) -> Result<Entry, BundleError> {
    let metadata =
        std::fs::metadata(path).map_err(|error| BundleError::Read { path: path.to_owned(), error })?;
    Ok(Entry::File { from: path.to_owned(), is_executable: metadata.permissions().mode() & 0o111 != 0 })
}

/// The file that a link leads to, as long as it stays within the source: a bundle has no links, so that nothing in it
/// can lead elsewhere where it is unpacked.
fn link(root: &Path, path: &Path) -> Result<Entry, BundleError> {
    let target = path.canonicalize().map_err(|error| BundleError::Read { path: path.to_owned(), error })?;
    if !target.starts_with(root) {
        return Err(BundleError::LinkOut { path: path.to_owned() });
    }
    match target.is_file() {
        true => file(&target),
        false => Err(BundleError::LinkToDirectory { path: path.to_owned() }),
    }
}

fn write(source: &Path, entries: &BTreeMap<String, Entry>) -> Result<Vec<u8>, BundleError> {
    let too_large = || BundleError::TooLarge { path: source.to_owned() };
    let mut tar = tar::Builder::new(Vec::new());
    for (name, entry) in entries {
        let failed = |error| BundleError::Read { path: source.join(name), error };
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match entry {
            Entry::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                tar.append_data(&mut header, format!("{name}/"), io::empty()).map_err(failed)?;
            }
            Entry::File { from, is_executable } => {
                let length = std::fs::metadata(from).map_err(failed)?.len();
                if tar.get_ref().len() as u64 + length > BUNDLE_BYTES_MAX {
                    return Err(too_large());
                }
                let bytes = std::fs::read(from).map_err(failed)?;
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(if *is_executable { 0o755 } else { 0o644 });
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, bytes.as_slice()).map_err(failed)?;
            }
        }
    }
    let bytes = tar.into_inner().map_err(|error| BundleError::Read { path: source.to_owned(), error })?;
    match bytes.len() as u64 <= BUNDLE_BYTES_MAX {
        true => Ok(bytes),
        false => Err(too_large()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn source() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/b.py"), "b").unwrap();
        fs::write(dir.path().join("a.py"), "a").unwrap();
        symlink("lib/b.py", dir.path().join("c.py")).unwrap();
        dir
    }

    #[test]
    fn the_same_source_gives_the_same_bytes_wherever_and_whenever() {
        let (one, two) = (source(), source());
        fs::create_dir(two.path().join("__pycache__")).unwrap();
        fs::set_permissions(two.path().join("a.py"), fs::Permissions::from_mode(0o600)).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::open(two.path().join("a.py")).unwrap().set_modified(old).unwrap();
        assert_eq!(pack(one.path()).unwrap(), pack(two.path()).unwrap());

        fs::set_permissions(two.path().join("a.py"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(pack(one.path()).unwrap(), pack(two.path()).unwrap());
    }

    #[test]
    fn entries_are_sorted_and_belong_to_nobody() {
        let bytes = pack(source().path()).unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
            names.push(entry.path().unwrap().display().to_string());
        }
        assert_eq!(names, ["a.py", "c.py", "lib/", "lib/b.py"]);
    }

    #[test]
    fn a_link_within_the_source_is_packed_as_its_file() {
        let dir = source();
        let linked = pack(dir.path()).unwrap();
        fs::remove_file(dir.path().join("c.py")).unwrap();
        fs::copy(dir.path().join("lib/b.py"), dir.path().join("c.py")).unwrap();
        assert_eq!(pack(dir.path()).unwrap(), linked);

        symlink("lib", dir.path().join("d")).unwrap();
        assert!(matches!(pack(dir.path()), Err(BundleError::LinkToDirectory { .. })));
    }

    #[test]
    fn a_single_file_is_a_bundle_too() {
        let dir = source();
        let bytes = pack(&dir.path().join("a.py")).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("a.py"));
    }

    #[test]
    fn no_link_leads_out_and_nothing_special_gets_in() {
        for target in ["/etc/passwd", "../../etc/passwd"] {
            let dir = source();
            symlink(target, dir.path().join("lib/out")).unwrap();
            assert!(
                matches!(pack(dir.path()), Err(BundleError::LinkOut { .. } | BundleError::Read { .. })),
                "{target}"
            );
        }
        let dir = source();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(matches!(pack(dir.path()), Err(BundleError::Special { .. })));
        assert!(matches!(pack(&dir.path().join("none")), Err(BundleError::Read { .. })));
    }
}
