//! A tree that travels: packed into one file, for members that cannot see the directory itself.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use link::{ArtifactUrl, Body, Content, Error, Part as ContentPart};
use serde_json::{Value, json};
use tar::{Archive, Builder, EntryType, Header};

use super::tree::{Entry, walk};
use super::work::ReportWork;
use crate::handler_kit::{Task, storage};

/// The file beside a task's input that holds the tree.
const FILE: &str = "tree.tar";

/// A tree's text files in one archive, and the work that goes with it.
pub struct PackedTree {
    /// To be kept as an artifact.
    pub archive: Vec<u8>,
    work: ReportWork,
}

impl PackedTree {
    /// Packs the tree below this directory.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let root = fs::canonicalize(path)?;
        let tree = walk(&root, None)?;
        let work = ReportWork {
            path: root.to_string_lossy().into_owned(),
            split_into: None,
            skipped: Some(tree.skipped.clone()),
        };
        Ok(Self { archive: pack(&tree.entries)?, work })
    }

    /// The input of the crew's task, with the archive as the artifact at `url`.
    pub fn task_input(&self, url: ArtifactUrl) -> Value {
        json!(beside(Content::data(json!(self.work)), url))
    }
}

/// The input with the archive beside it.
pub(super) fn beside(mut input: Content, url: ArtifactUrl) -> Content {
    let mut part = ContentPart::new(Body::Url(url));
    part.filename = Some(FILE.to_owned());
    part.media_type = Some("application/x-tar".to_owned());
    input.parts.push(part);
    input
}

/// The files as an archive: the same files give the same bytes. A file that went since the walk is no part of the tree.
fn pack(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for entry in entries {
        let Ok(content) = fs::read(&entry.path) else { continue };
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, &entry.name, content.as_slice())?;
    }
    archive.into_inner()
}

/// Keeps these files as an archive of their own.
///
/// # Errors
/// If they cannot be packed, or the platform does not take them.
pub(super) fn put(task: &Task, name: &str, entries: &[Entry]) -> Result<ArtifactUrl, Error> {
    let path = Path::new(&task.params().dir).join(format!("{name}.tar"));
    let packed = pack(entries).and_then(|archive| fs::write(&path, archive));
    packed.map_err(|error| storage("pack", &path, &error))?;
    let url = task.put_artifact(&path, FILE)?.url;
    // The work directory is small, and whoever needs it has it by its digest.
    let _ = fs::remove_file(&path);
    Ok(url)
}

/// Unpacks the tree that came with the task and says where it is; `None` if none came.
///
/// # Errors
/// If it cannot be unpacked.
pub(super) fn unpack(task: &Task) -> Result<Option<PathBuf>, Error> {
    let file = task.input_file(FILE);
    if !file.exists() {
        return Ok(None);
    }
    let root = Path::new(&task.params().dir).join("tree");
    fs::create_dir_all(&root).map_err(|error| storage("make", &root, &error))?;
    let unpacked = File::open(&file).and_then(|file| Archive::new(file).unpack(&root));
    unpacked.map_err(|error| storage("unpack", &file, &error))?;
    let _ = fs::remove_file(&file);
    Ok(Some(root))
}
