//! Walks a source tree in a fixed order and splits it into parts of about equal size.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Directories that hold no source: version control, build results, dependencies.
const SKIPPED_DIRECTORIES: &[&str] =
    &[".git", ".hg", ".svn", ".jj", "target", "node_modules", "__pycache__", ".venv", ".tox", ".mypy_cache"];
/// Larger files are skipped: they are data or generated.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// A walk ends after this many files.
pub(crate) const FILES_MAX: usize = 50_000;
/// A walk ends after files of this size together, which bounds the memory of whoever joins the parts.
pub(crate) const TREE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Directories nested deeper than this are skipped.
const DEPTH_MAX: usize = 64;
/// How much of a file is looked at to tell text from anything else.
const SNIFF_BYTES: usize = 8 * 1024;
/// What opening a file costs, in bytes of reading; it keeps a part of many tiny files as small as the others.
const FILE_OVERHEAD_BYTES: u64 = 512;
/// Without a wish a tree is split into this many parts at least and at most, one for each [`PART_BYTES`].
const PARTS_MIN: u64 = 6;
const PARTS_MAX: u64 = 12;
const PART_BYTES: u64 = 256 * 1024;
/// The most parts that may be wished for.
pub(crate) const PARTS_WISHED_MAX: usize = 64;

/// A text file of the tree.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its path from the root, with `/`; bytes that are not UTF-8 are written `\xNN`. Entries are ordered by it.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// How much was left out of a walk, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Skipped {
    pub(crate) binary: u64,
    pub(crate) large: u64,
    pub(crate) links: u64,
    pub(crate) unreadable: u64,
    pub(crate) directories: u64,
    /// Whether the walk ended at one of its bounds.
    pub(crate) truncated: bool,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) entries: Vec<Entry>,
    pub(crate) skipped: Skipped,
    bytes: u64,
}

/// A run of neighbouring files, named by its ends so that it stays small however many files it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    /// `part-00`, `part-01`, …
    pub(crate) name: String,
    /// The names of its first and last file.
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Part {
    fn holds(&self, name: &str) -> bool {
        self.first.as_str() <= name && name <= self.last.as_str()
    }

    /// Whether a file below this directory (its name with a `/` behind) may be in the part.
    fn reaches_into(&self, directory: &str) -> bool {
        let before = directory < self.first.as_str() && !self.first.starts_with(directory);
        !before && directory <= self.last.as_str()
    }
}

/// Walks the tree below `root`, all of it or what belongs to one part. What cannot be read is counted and skipped.
///
/// # Errors
/// Only if `root` itself cannot be read as a directory.
pub(crate) fn walk(root: &Path, part: Option<&Part>) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let listing = fs::read_dir(root)?;
    tree.directory(listing, "", 0, part);
    Ok(tree)
}

impl Tree {
    fn directory(&mut self, listing: fs::ReadDir, prefix: &str, depth: usize, part: Option<&Part>) {
        let mut children: Vec<(String, fs::DirEntry, fs::FileType)> = Vec::new();
        for child in listing {
            match child.and_then(|child| child.file_type().map(|kind| (child, kind))) {
                Ok((child, kind)) => {
                    let slash = if kind.is_dir() { "/" } else { "" };
                    children.push((format!("{prefix}{}{slash}", readable(&child)), child, kind));
                }
                Err(_) => self.skipped.unreadable += 1,
            }
        }
        // With the slash behind directories this is the order of the files' whole names.
        children.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, child, kind) in children {
            if self.skipped.truncated {
                return;
            }
            if kind.is_symlink() {
                self.skipped.links += 1;
            } else if kind.is_dir() {
                self.subdirectory(&name, &child, depth, part);
            } else if kind.is_file() && part.is_none_or(|part| part.holds(&name)) {
                self.file(name, child.path());
            }
        }
    }

    fn subdirectory(&mut self, name: &str, child: &fs::DirEntry, depth: usize, part: Option<&Part>) {
        let skipped = SKIPPED_DIRECTORIES.iter().any(|skipped| child.file_name() == *skipped);
        if skipped || depth >= DEPTH_MAX {
            self.skipped.directories += 1;
            return;
        }
        if part.is_some_and(|part| !part.reaches_into(name)) {
            return;
        }
        match fs::read_dir(child.path()) {
            Ok(listing) => self.directory(listing, name, depth + 1, part),
            Err(_) => self.skipped.unreadable += 1,
        }
    }

    fn file(&mut self, name: String, path: PathBuf) {
        match sniff(&path) {
            Err(_) => self.skipped.unreadable += 1,
            Ok(Sniffed { bytes, .. }) if bytes > FILE_BYTES_MAX => self.skipped.large += 1,
            Ok(Sniffed { binary: true, .. }) => self.skipped.binary += 1,
            Ok(Sniffed { bytes, .. }) => {
                if self.entries.len() == FILES_MAX || self.bytes + bytes > TREE_BYTES_MAX {
                    self.skipped.truncated = true;
                    return;
                }
                self.bytes += bytes;
                self.entries.push(Entry { name, path, bytes });
            }
        }
    }

    /// Splits the files into `wished` parts, or into as many as suit their size. No part is empty.
    pub(crate) fn split(&self, wished: Option<usize>) -> Vec<Part> {
        let weight = |entry: &Entry| entry.bytes + FILE_OVERHEAD_BYTES;
        let total: u64 = self.entries.iter().map(weight).sum();
        let count = match wished {
            Some(count) => count.clamp(1, PARTS_WISHED_MAX) as u64,
            None => (total / PART_BYTES).clamp(PARTS_MIN, PARTS_MAX),
        };
        let mut parts: Vec<(u64, Part)> = Vec::new();
        let mut passed = 0;
        for entry in &self.entries {
            // A file goes where its middle lies.
            let slot = (passed + weight(entry) / 2) * count / total.max(1);
            passed += weight(entry);
            match parts.last_mut() {
                Some((last, part)) if *last == slot => {
                    part.last.clone_from(&entry.name);
                    part.files += 1;
                    part.bytes += entry.bytes;
                }
                _ => {
                    let name = format!("part-{:02}", parts.len());
                    let (first, last) = (entry.name.clone(), entry.name.clone());
                    parts.push((slot, Part { name, first, last, files: 1, bytes: entry.bytes }));
                }
            }
        }
        parts.into_iter().map(|(_, part)| part).collect()
    }
}

/// A file's name as UTF-8, without loss.
fn readable(child: &fs::DirEntry) -> String {
    let mut name = String::new();
    for chunk in child.file_name().as_encoded_bytes().utf8_chunks() {
        name.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| name.push_str(&format!("\\x{byte:02X}")));
    }
    name
}

struct Sniffed {
    bytes: u64,
    binary: bool,
}

fn sniff(path: &Path) -> io::Result<Sniffed> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    if bytes <= FILE_BYTES_MAX {
        file.take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
    }
    Ok(Sniffed { bytes, binary: head.contains(&0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (name, bytes) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, bytes).expect("a file");
        }
        root
    }

    fn names(tree: &Tree) -> Vec<&str> {
        tree.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn a_walk_is_ordered_and_skips_what_is_no_source() {
        let large = vec![b'x'; 1024 * 1024 + 1];
        let root = tree(&[
            ("b.rs", b"x"),
            ("a/z.rs", b"x"),
            ("a.rs", b"x"),
            (".git/config", b"x"),
            ("x/target/a.rs", b"x"),
            ("image", b"a\0b"),
            ("large", &large),
        ]);
        std::os::unix::fs::symlink("b.rs", root.path().join("link.rs")).expect("a link");
        let tree = walk(root.path(), None).expect("a walk");
        assert_eq!(names(&tree), ["a.rs", "a/z.rs", "b.rs"]);
        let expected =
            Skipped { binary: 1, large: 1, links: 1, unreadable: 0, directories: 2, truncated: false };
        assert_eq!(tree.skipped, expected);
        assert!(walk(&root.path().join("none"), None).is_err());
    }

    #[test]
    fn parts_cover_the_tree_once_and_are_balanced() {
        let text = vec![b'x'; 10_000];
        let files: Vec<String> = (0..100).map(|n| format!("d{}/e-{}/f{n}.rs", n % 7, n % 3)).collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|name| (name.as_str(), text.as_slice())).collect();
        let root = tree(&files);
        let whole = walk(root.path(), None).expect("a walk");
        for wished in [None, Some(1), Some(9), Some(1_000)] {
            let parts = whole.split(wished);
            let mut seen = Vec::new();
            for part in &parts {
                let own = walk(root.path(), Some(part)).expect("a walk");
                assert_eq!(own.entries.len() as u64, part.files);
                seen.extend(names(&own).into_iter().map(str::to_owned));
            }
            assert_eq!(seen, names(&whole));
            let sizes: Vec<u64> = parts.iter().map(|part| part.bytes).collect();
            let (least, most) = (sizes.iter().min().expect("a part"), sizes.iter().max().expect("a part"));
            assert!(most - least <= 10_000, "{sizes:?}");
        }
        assert_eq!(whole.split(Some(9)).len(), 9);
        assert!(Tree::default().split(None).is_empty());
    }

    #[test]
    fn names_that_are_not_utf8_are_kept_apart() {
        use std::os::unix::ffi::OsStrExt;
        let root = tempfile::tempdir().expect("a temporary directory");
        for name in [b"a\xff".as_slice(), b"a\xfe"] {
            fs::write(root.path().join(std::ffi::OsStr::from_bytes(name)), "x").expect("a file");
        }
        assert_eq!(names(&walk(root.path(), None).expect("a walk")), ["a\\xFE", "a\\xFF"]);
    }
}
