//! The work directory: where each task has its `in/` and `out/`, and out of which artifacts are taken.

mod dirs;

use std::{
    collections::HashSet,
    fs, io,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use link::{
    Artifact, ArtifactGet, ArtifactGot, ArtifactPut, ArtifactStored, Body, Error, ErrorType, Location, Part,
    handler::{Execute, Executed},
};

use self::dirs::Dirs;
pub(crate) use self::dirs::TaskDir;
use crate::door::Door;

/// Files that a task may leave in `out/`.
const OUT_FILES_MAX: usize = 1_000;

/// The work directory and the way to the artifacts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    door: Door,
    dirs: Dirs,
}

fn invalid(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorType::InvalidParams, message)
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorType::Internal, format_args!("{what} `{}`: {error}", path.display()))
}

impl Workspace {
    /// `root` is absolute and free of links.
    pub(crate) fn new(root: PathBuf, door: Door) -> Self {
        Self { root, door, dirs: Dirs::default() }
    }

    /// The way to the artifacts.
    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// A directory for an attempt.
    pub(crate) fn task_dir(&self) -> TaskDir {
        self.dirs.take(&self.root)
    }

    /// Puts every part that has a file name into the directory's `in/`.
    pub(crate) async fn prepare(&self, task: &Execute, dir: &Path) -> Result<(), Error> {
        for part in &task.input.parts {
            if let Some(name) = &part.filename {
                self.put_in(part, &file_in(&dir.join("in"), name)?).await?;
            }
        }
        Ok(())
    }

    async fn put_in(&self, part: &Part, path: &Path) -> Result<(), Error> {
        let bytes = match &part.body {
            Body::Url(url) => return self.door.fetch(url, path).await.map(drop),
            Body::Text(text) => text.clone().into_bytes(),
            Body::Data(data) => data.to_string().into_bytes(),
            Body::Raw(_) => part.raw_bytes().unwrap_or_default(),
        };
        fs::write(path, bytes).map_err(|error| failed("write", path, &error))
    }

    /// Uploads what a result refers to by path, and what is left in `out/`.
    pub(crate) async fn collect(&self, mut result: Executed, dir: &Path) -> Result<Executed, Error> {
        let mut taken = HashSet::new();
        for artifact in &mut result.artifacts {
            if let Location::Path(path) = &artifact.location {
                let path = self.resolve(path, &[dir.to_owned(), self.root.clone()])?;
                let stored = self.door.store_file(&path, artifact.media_type.as_deref()).await?;
                artifact.location = Location::Url(stored.url);
                taken.insert(path);
            }
        }
        let out = dir.join("out");
        for path in files_below(&out)? {
            if taken.contains(&path) {
                continue;
            }
            let stored = self.door.store_file(&path, None).await?;
            let name = path.strip_prefix(&out).unwrap_or(&path).to_string_lossy().into_owned();
            let location = Location::Url(stored.url);
            result.artifacts.push(Artifact { name, location, media_type: None, description: None });
        }
        Ok(result)
    }

    /// `artifact/put`.
    pub(crate) async fn put(&self, put: ArtifactPut, bases: Vec<PathBuf>) -> Result<ArtifactStored, Error> {
        put.check()?;
        let media_type = put.media_type.as_deref();
        match (put.path, put.text) {
            (Some(path), _) => self.door.store_file(&self.resolve(&path, &bases)?, media_type).await,
            (None, text) => self.door.store(Bytes::from(text.unwrap_or_default()), media_type).await,
        }
    }

    /// `artifact/get`.
    pub(crate) async fn get(&self, get: ArtifactGet, base: &Path) -> Result<ArtifactGot, Error> {
        let path = match &get.path {
            Some(path) => base.join(path),
            None => self.root.join("artifacts").join(get.url.hex()),
        };
        let is_plain = !path.components().any(|part| matches!(part, Component::ParentDir));
        let parent = path.parent().filter(|parent| is_plain && parent.starts_with(&self.root));
        let outside = || invalid(format_args!("`{}` is not under the work directory", path.display()));
        let parent = parent.ok_or_else(outside)?;
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
        // A link on the way may still lead out.
        let real = parent.canonicalize().map_err(|error| failed("find", parent, &error))?;
        if !real.starts_with(&self.root) {
            return Err(outside());
        }
        let (size, media_type) = self.door.fetch(&get.url, &path).await?;
        Ok(ArtifactGot { path: path.to_string_lossy().into_owned(), media_type, size })
    }

    /// A file under the work directory that the handler named, relative to the first base where it exists.
    fn resolve(&self, path: &str, bases: &[PathBuf]) -> Result<PathBuf, Error> {
        let given = Path::new(path);
        if given.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(invalid(format_args!("the path `{path}` has a `..`")));
        }
        let found = bases.iter().find_map(|base| base.join(given).canonicalize().ok());
        let found = found.ok_or_else(|| invalid(format_args!("the file `{path}` is not there")))?;
        if !found.starts_with(&self.root) {
            return Err(invalid(format_args!("the file `{path}` is not under the work directory")));
        }
        if !found.is_file() {
            return Err(invalid(format_args!("`{path}` is not a regular file")));
        }
        Ok(found)
    }
}

/// A place for a file of this name directly in `dir`, where none is yet.
fn file_in(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    let mut parts = Path::new(name).components();
    let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if !is_name || name.len() > 255 || name.contains(['/', '\0']) {
        return Err(invalid(format_args!("the part's filename `{name}` is no plain file name")));
    }
    let path = dir.join(name);
    if path.exists() {
        return Err(invalid(format_args!("two parts have the filename `{name}`")));
    }
    Ok(path)
}

/// Regular files, in order. Links are left out: they could lead anywhere.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
        if files.len() + dirs.len() > OUT_FILES_MAX {
            return Err(Error::new(
                ErrorType::TooLarge,
                format_args!("a task leaves at most {OUT_FILES_MAX} files in `out/`"),
            ));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn workspace() -> (tempfile::TempDir, Workspace) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("work");
        fs::create_dir(&root).unwrap();
        let (_, token) = tokio::sync::watch::channel(None);
        let door = Door::new(crate::gateway::Gateway::Socket(dir.path().join("none")), token, 1024);
        (dir, Workspace::new(root.canonicalize().unwrap(), door))
    }

    #[test]
    fn only_files_under_the_work_directory_are_taken() {
        let (dir, workspace) = workspace();
        let root = workspace.root.clone();
        fs::write(dir.path().join("outside"), "x").unwrap();
        fs::write(root.join("inside"), "x").unwrap();
        symlink(dir.path().join("outside"), root.join("link")).unwrap();
        let bases = [root.clone()];
        assert_eq!(workspace.resolve("inside", &bases).unwrap(), root.join("inside"));
        for path in ["../outside", "link", "none", ".", "/etc/passwd"] {
            assert!(workspace.resolve(path, &bases).is_err(), "{path}");
        }
    }

    #[test]
    fn links_in_out_are_not_followed() {
        let (dir, workspace) = workspace();
        let out = workspace.root.join("out");
        fs::create_dir_all(out.join("sub")).unwrap();
        fs::write(out.join("sub/a"), "x").unwrap();
        symlink("/etc/passwd", out.join("link")).unwrap();
        symlink(dir.path(), out.join("up")).unwrap();
        assert_eq!(files_below(&out).unwrap(), [out.join("sub/a")]);
    }

    #[test]
    fn a_filename_is_one_plain_name_used_once() {
        let (dir, _workspace) = workspace();
        assert_eq!(file_in(dir.path(), "a b.txt").unwrap(), dir.path().join("a b.txt"));
        fs::write(dir.path().join("taken"), "").unwrap();
        for name in ["", ".", "..", "a/b", "/a", "taken", "a/"] {
            assert!(file_in(dir.path(), name).is_err(), "{name}");
        }
    }
}
