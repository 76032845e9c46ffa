//! An analyst: measures the files of a part, batch by batch, and keeps what it has after each.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use link::handler::{Executed, State};
use link::{Address, ArtifactUrl, Content, Error, ErrorType, LogLevel};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::measure::{File, measure};
use super::packed;
use super::tree::{Entry, walk};
use super::work::{self, FINDINGS_NAME, Findings, PartWork};
use crate::handler_kit::{Handler, Task, storage};

/// The environment variable with the milliseconds that an analyst waits before each batch of files; without it, it does
/// not wait. It gives a demonstration of failures the time to strike in the middle of a task.
pub const PACE_VARIABLE: &str = "CODE_HEALTH_PACE_MS";

/// A batch ends with the file that makes it this large …
const BATCH_BYTES: u64 = 32 * 1024;
/// … but a part has about this many batches at most, so that the list of what is kept fits a checkpoint.
const BATCHES_MAX: u64 = 400;

/// The member `analyst`.
pub struct Analyst {
    pace: Duration,
}

/// What an earlier attempt has left.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The findings of one or more batches each, as artifacts.
    pieces: Vec<ArtifactUrl>,
    /// The last file that they cover.
    last: String,
}

impl Analyst {
    /// An analyst that waits this long before each batch.
    pub fn with_pace(pace: Duration) -> Self {
        Self { pace }
    }

    /// An analyst as [`PACE_VARIABLE`] wants it.
    pub fn from_environment() -> Self {
        let pace = env::var(PACE_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        Self::with_pace(Duration::from_millis(pace))
    }
}

impl Handler for Analyst {
    fn execute(&self, task: &Task) -> Result<Executed, Error> {
        let work: PartWork = match work::read(&task.params().input) {
            Ok(work) => work,
            Err(error) => return Ok(Executed::ended(State::Rejected, error.message)),
        };
        let root = packed::unpack(task)?.unwrap_or_else(|| PathBuf::from(&work.root));
        let entries = walk(&root, Some(&work.part)).map_err(|error| storage("read", &root, &error))?.entries;
        let mut desk = Desk::open(task)?;
        let rest = entries.partition_point(|entry| entry.name <= desk.kept.last);
        let batch_bytes = BATCH_BYTES.max(work.part.bytes / BATCHES_MAX);
        let mut done = rest;
        for batch in batches(&entries[rest..], batch_bytes) {
            task.pause(self.pace)?;
            desk.add(task, batch)?;
            done += batch.len();
            let message = format!("{}: measured {done} of {} files", work.part.name, entries.len());
            task.progress(message, counted(done), counted(entries.len()));
        }
        finish(task, &work, desk.files)
    }
}

fn counted(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Neighbouring files, together at least so large; the last may be smaller.
fn batches(entries: &[Entry], bytes_min: u64) -> impl Iterator<Item = &[Entry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let full = rest.iter().position(|entry| {
            bytes += entry.bytes;
            bytes >= bytes_min
        });
        let (batch, after) = rest.split_at(full.map_or(rest.len(), |last| last + 1));
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

/// The work so far.
struct Desk {
    files: Vec<File>,
    kept: Kept,
    /// Where the files of `files` begin that no piece covers yet.
    unkept: usize,
}

impl Desk {
    /// Takes up what an earlier attempt has kept; if that cannot be had, begins anew.
    fn open(task: &Task) -> Result<Self, Error> {
        let empty = Self { files: Vec::new(), kept: Kept::default(), unkept: 0 };
        let Some(kept) = task.params().checkpoint.as_ref().and_then(|data| Kept::deserialize(data).ok())
        else {
            return Ok(empty);
        };
        let mut files = Vec::new();
        for (number, url) in kept.pieces.iter().enumerate() {
            match take_up(task, url, &piece_file(task, "kept", number)) {
                Ok(piece) => files.extend(piece.files),
                Err(error) if error.kind == Some(ErrorType::Canceled) => return Err(error),
                Err(error) => {
                    task.log(
                        LogLevel::Warning,
                        format!("failed to take up the work of an earlier attempt: {error}"),
                    );
                    return Ok(empty);
                }
            }
        }
        task.log(LogLevel::Info, format!("goes on after `{}`, the last of {} files", kept.last, files.len()));
        Ok(Self { unkept: files.len(), files, kept })
    }

    /// Measures a batch and keeps it.
    fn add(&mut self, task: &Task, batch: &[Entry]) -> Result<(), Error> {
        for entry in batch {
            task.check()?;
            // A file that went since the walk is no part of the tree any more.
            match fs::read(&entry.path) {
                Ok(content) => self.files.push(measure(&entry.name, &content)),
                Err(error) => {
                    task.log(LogLevel::Warning, format!("failed to read `{}`: {error}", entry.name))
                }
            }
        }
        let last = batch.last().map(|entry| entry.name.clone()).unwrap_or_default();
        match self.keep(task, last) {
            // What is not kept now is kept with the next batch; at worst it is measured again.
            Err(error) if error.kind != Some(ErrorType::Canceled) => {
                task.log(LogLevel::Warning, format!("failed to keep a batch: {error}"));
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn keep(&mut self, task: &Task, last: String) -> Result<(), Error> {
        let path = piece_file(task, "piece", self.kept.pieces.len());
        let piece = json!({ "files": &self.files[self.unkept..] });
        fs::write(&path, piece.to_string()).map_err(|error| storage("write", &path, &error))?;
        let url = task.put_artifact(&path, "piece.json")?.url;
        let pieces = self.kept.pieces.iter().cloned().chain([url]).collect();
        let kept = Kept { pieces, last };
        task.checkpoint(json!(kept))?;
        self.kept = kept;
        self.unkept = self.files.len();
        Ok(())
    }
}

fn piece_file(task: &Task, name: &str, number: usize) -> PathBuf {
    Path::new(&task.params().dir).join(format!("{name}-{number:03}.json"))
}

fn take_up(task: &Task, url: &ArtifactUrl, path: &Path) -> Result<Findings, Error> {
    let got = task.get_artifact(url, path)?;
    let path = Path::new(&got.path);
    let text = fs::read(path).map_err(|error| storage("read", path, &error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(ErrorType::Internal, format_args!("`{}` is no piece: {error}", path.display()))
    })
}

/// Leaves the findings as a file, tells the editor in a few words, and answers with the figures.
fn finish(task: &Task, work: &PartWork, files: Vec<File>) -> Result<Executed, Error> {
    let summary = summary(&work.part.name, &files);
    let path = task.output_file(FINDINGS_NAME)?;
    let findings = json!(Findings { files });
    fs::write(&path, findings.to_string()).map_err(|error| storage("write", &path, &error))?;
    let words = format!(
        "{}: {} files, {} lines of code, {} functions, {} notes for later",
        work.part.name, summary["files"], summary["code"], summary["functions"], summary["marks"]
    );
    let editor = Address::Member("editor".to_owned());
    match task.send(&editor, "summary", Content::text(words)) {
        Err(error) if error.kind == Some(ErrorType::Canceled) => return Err(error),
        // The editor has the findings anyway.
        Err(error) => task.log(LogLevel::Warning, format!("failed to tell the editor: {error}")),
        Ok(_) => {}
    }
    Ok(Executed::output(Content::data(summary)))
}

/// The figures of a part: of a size that does not grow with it.
fn summary(part: &str, files: &[File]) -> Value {
    let sum = |value: fn(&File) -> u64| files.iter().map(value).sum::<u64>();
    let functions = files.iter().flat_map(|file| file.functions.iter().map(move |function| (file, function)));
    let longest = functions.max_by_key(|(_, function)| function.lines);
    json!({
        "part": part,
        "files": files.len(),
        "bytes": sum(|file| file.bytes),
        "code": sum(|file| file.code.into()),
        "comments": sum(|file| file.comment.into()),
        "functions": sum(|file| file.functions.len() as u64),
        "marks": sum(|file| file.marks.len() as u64),
        "longestFunction": longest.map(|(file, function)| json!({
            "name": function.name, "file": file.path, "line": function.line, "lines": function.lines,
        })),
    })
}
