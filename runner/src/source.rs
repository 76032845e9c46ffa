//! The handler's files: out of a bundle artifact, or where they are already.

use std::{
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

use link::{ArtifactUrl, Source};

use crate::door::Door;

/// Most entries of a bundle.
const ENTRIES_MAX: usize = 10_000;
/// Most bytes that a bundle unpacks to. It is not compressed, so this is also what it may weigh.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Puts the source in place and says in which directory.
pub(crate) async fn bring(source: &Source, work: &Path, door: &Door) -> Result<PathBuf, String> {
    if let Some(path) = &source.path {
        let path = Path::new(path);
        return path
            .canonicalize()
            .ok()
            .filter(|path| path.is_dir())
            .ok_or_else(|| format!("the source directory `{}` is not there", path.display()));
    }
    let dir = work.join("source");
    std::fs::create_dir_all(&dir).map_err(|error| format!("make `{}`: {error}", dir.display()))?;
    let Some(url) = bundle(source)? else { return Ok(dir) };
    let tar = work.join("source.tar");
    door.fetch(&url, &tar).await.map_err(|error| format!("fetch the bundle `{url}`: {error}"))?;
    let (from, to) = (tar.clone(), dir.clone());
    let unpacked = tokio::task::spawn_blocking(move || unpack(&from, &to)).await;
    // It has served; should it stay, it is in the way of nothing.
    let _ = std::fs::remove_file(&tar);
    unpacked
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("unpack the bundle `{url}`: {error}"))?;
    Ok(dir)
}

/// The bundle's url; url and digest must agree where both are given.
fn bundle(source: &Source) -> Result<Option<ArtifactUrl>, String> {
    let of_digest = source.digest.as_deref().map(ArtifactUrl::of_digest).transpose()?;
    match (&source.url, of_digest) {
        (Some(url), Some(digest)) if *url != digest => {
            Err(format!("the source's url `{url}` and digest `{}` do not agree", digest.digest()))
        }
        (url, digest) => Ok(url.clone().or(digest)),
    }
}

/// Unpacks regular files and directories; anything else, and any path that leads elsewhere, refuses the whole bundle.
fn unpack(tar: &Path, to: &Path) -> io::Result<()> {
    let refuse = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut archive = tar::Archive::new(File::open(tar)?);
    let mut bytes = 0;
    for (index, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let shown = path.display();
        bytes += entry.size();
        if index >= ENTRIES_MAX || bytes > BYTES_MAX {
            return Err(refuse(format!("more than {ENTRIES_MAX} entries or {BYTES_MAX} bytes")));
        }
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refuse(format!("the path `{shown}` leads out of the bundle")));
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::Directory => {}
            other => return Err(refuse(format!("`{shown}` is neither file nor directory but {other:?}"))),
        }
        entry.set_preserve_mtime(false);
        if !entry.unpack_in(to)? {
            return Err(refuse(format!("the path `{shown}` leads out of the bundle")));
        }
    }
    Ok(())
}

/// Finds the program of a command: a path, or an executable file of the source, or one in `PATH`.
pub(crate) fn find_program(name: &str, source: &Path, search: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.is_empty() {
        return None;
    }
    let of_source = Some(source.join(name)).filter(is_program);
    if name.contains('/') {
        return of_source;
    }
    of_source.or_else(|| search.split(':').map(|dir| Path::new(dir).join(name)).find(is_program))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(fill: impl FnOnce(&mut tar::Builder<File>)) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        fill(&mut builder);
        builder.finish().unwrap();
        std::fs::create_dir(dir.path().join("to")).unwrap();
        (dir, path)
    }

    fn entry(builder: &mut tar::Builder<File>, kind: tar::EntryType, path: &str, text: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        // Set raw, as the builder itself refuses what a hostile bundle holds.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }

    #[test]
    fn files_and_directories_are_unpacked_with_their_mode() {
        let (dir, tar) = tar_of(|builder| {
            entry(builder, tar::EntryType::Directory, "lib/", "");
            entry(builder, tar::EntryType::Regular, "lib/run.sh", "#!/bin/sh\n");
        });
        let to = dir.path().join("to");
        unpack(&tar, &to).unwrap();
        assert_eq!(find_program("lib/run.sh", &to, ""), Some(to.join("lib/run.sh")));
        assert_eq!(find_program("run.sh", &to, "/nowhere:/bin"), None);
        assert!(find_program("sh", &to, "/nowhere:/bin").is_some());
    }

    #[test]
    fn a_bundle_that_reaches_out_is_refused() {
        for (kind, path) in [
            (tar::EntryType::Regular, "../evil"),
            (tar::EntryType::Regular, "/tmp/evil"),
            (tar::EntryType::Regular, "a/../../evil"),
            (tar::EntryType::Symlink, "link"),
            (tar::EntryType::Fifo, "fifo"),
        ] {
            let (dir, tar) = tar_of(|builder| entry(builder, kind, path, ""));
            assert!(unpack(&tar, &dir.path().join("to")).is_err(), "{path}");
            assert!(!dir.path().join("evil").exists());
        }
    }

    #[test]
    fn url_and_digest_must_agree() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let source = |url: &str, digest: &str| Source {
            url: Some(ArtifactUrl::of_digest(url).unwrap()),
            digest: Some(format!("sha256:{digest}")),
            path: None,
        };
        assert!(bundle(&source(&a, &a)).unwrap().is_some());
        assert!(bundle(&source(&a, &b)).is_err());
        assert_eq!(bundle(&Source::default()), Ok(None));
    }
}
