//! Where checkpoints go so that no single hand holds them all.

use std::ffi::OsString;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::fs::{self, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::checkpoint::Note;

mod table;

pub use table::{Row, Table};

/// How long a program may take with one checkpoint.
const PROGRAM: Duration = Duration::from_secs(30);

/// Most bytes of a program's complaint that are kept.
const COMPLAINT_BYTES_MAX: usize = 400;

/// Why a sink did not take a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a checkpoint to `{sink}`: {reason}")]
pub struct SinkError {
    /// The sink.
    pub sink: String,
    /// What went wrong.
    pub reason: String,
}

/// A place that keeps checkpoints. It gets each at least once, in order, and again after an error.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Its name: the same after a restart.
    fn name(&self) -> &str;
    /// Whether the newest checkpoint will do when several wait; it covers those before it.
    fn wants_newest_only(&self) -> bool {
        false
    }
    /// Whether it still has a checkpoint that it has taken: one that was emptied gets all of them again. A place whose
    /// emptying is to be found by whoever verifies, and not to be made good, does not say no.
    async fn has(&self, _: &Note) -> Result<bool, SinkError> {
        Ok(true)
    }
    /// Keeps a checkpoint for good.
    async fn put(&self, note: &Note) -> Result<(), SinkError>;
    /// The newest checkpoint of these sizes that somebody else has cosigned here.
    async fn cosigned(&self, _sizes: &RangeInclusive<u64>) -> Option<Note> {
        None
    }
}

/// A file to which checkpoints are appended, each with an empty line after it. `chattr +a` makes the system hold to that.
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    name: String,
}

impl AppendFile {
    /// The file at `path`, which is made if it is missing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { name: format!("file:{}", path.display()), path }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn append(&self, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path).await?;
        let size = file.metadata().await?.len();
        file.seek(io::SeekFrom::Start(size.saturating_sub(4 * text.len() as u64))).await?;
        let mut end = Vec::new();
        file.read_to_end(&mut end).await?;
        let written = format!("{text}\n");
        if end.ends_with(written.as_bytes()) {
            // Written, but it may be that it was not durable.
            return file.sync_all().await;
        }
        // What a crash tore off is parted from what follows.
        let gap = if end.is_empty() || end.ends_with(b"\n\n") { "" } else { "\n\n" };
        file.write_all(format!("{gap}{written}").as_bytes()).await?;
        file.sync_all().await
    }
}

#[async_trait]
impl Sink for AppendFile {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put(&self, note: &Note) -> Result<(), SinkError> {
        let failed = |error: io::Error| SinkError { sink: self.name.clone(), reason: error.to_string() };
        self.append(note.as_str()).await.map_err(failed)
    }
}

/// A directory that gets one file per checkpoint, such as the mount of a bucket with object lock. What a file holds is
/// never changed.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    name: String,
}

impl Directory {
    /// The directory at `path`, which must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { name: format!("directory:{}", path.display()), path }
    }

    async fn write(&self, note: &Note) -> io::Result<()> {
        let path = self.path.join(format!("{:020}.checkpoint", note.checkpoint().size));
        match OpenOptions::new().write(true).create_new(true).open(&path).await {
            Ok(mut file) => {
                file.write_all(note.as_str().as_bytes()).await?;
                file.sync_all().await
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let kept = fs::read(&path).await?;
                let Some(rest) = note.as_str().as_bytes().strip_prefix(&kept[..]) else {
                    return Err(io::Error::other(format!("`{}` holds another checkpoint", path.display())));
                };
                if !rest.is_empty() {
                    // A crash tore it off.
                    let mut file = OpenOptions::new().append(true).open(&path).await?;
                    file.write_all(rest).await?;
                    file.sync_all().await?;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Sink for Directory {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put(&self, note: &Note) -> Result<(), SinkError> {
        let failed = |error: io::Error| SinkError { sink: self.name.clone(), reason: error.to_string() };
        self.write(note).await.map_err(failed)
    }
}

/// A program that gets a checkpoint on its standard input and takes it away: to an object store, a witness, a mailbox.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    name: String,
}

impl Program {
    /// The program at `path` with these arguments.
    pub fn new(path: impl Into<PathBuf>, arguments: Vec<OsString>) -> Self {
        let path = path.into();
        Self { name: format!("program:{}", path.display()), path, arguments }
    }

    async fn run(&self, note: &Note) -> io::Result<()> {
        let mut child = tokio::process::Command::new(&self.path)
            .args(&self.arguments)
            .env("HYPERCODE_CHECKPOINT_ORIGIN", &note.checkpoint().origin)
            .env("HYPERCODE_CHECKPOINT_SIZE", note.checkpoint().size.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = child.stdin.take().expect("its standard input is a pipe");
        let written = input.write_all(note.as_str().as_bytes()).await;
        drop(input);
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return written;
        }
        let complaint = &output.stderr[..output.stderr.len().min(COMPLAINT_BYTES_MAX)];
        Err(io::Error::other(format!("{}: {}", output.status, String::from_utf8_lossy(complaint).trim())))
    }
}

#[async_trait]
impl Sink for Program {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants_newest_only(&self) -> bool {
        true
    }

    async fn put(&self, note: &Note) -> Result<(), SinkError> {
        let failed = |reason: String| SinkError { sink: self.name.clone(), reason };
        match tokio::time::timeout(PROGRAM, self.run(note)).await {
            Ok(done) => done.map_err(|error| failed(error.to_string())),
            Err(_) => Err(failed(format!("it took longer than {} s", PROGRAM.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Checkpoint, Signer, notes};
    use crate::id::Digest;

    fn note(signer: &Signer, size: u64, root: &[u8]) -> Note {
        signer.sign(&Checkpoint { origin: "o".into(), size, root: Digest::of(root) })
    }

    #[tokio::test]
    async fn a_file_is_only_appended_to_whatever_a_crash_left_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let signer = Signer::generate("o");
        let sink = AppendFile::new(dir.path().join("checkpoints"));
        let read = || std::fs::read_to_string(sink.path()).expect("the file");
        sink.put(&note(&signer, 1, b"1")).await.expect("kept");
        sink.put(&note(&signer, 1, b"1")).await.expect("kept once");
        std::fs::write(sink.path(), read() + "torn").expect("written");
        sink.put(&note(&signer, 2, b"2")).await.expect("kept");
        let sizes: Vec<_> =
            notes(&read()).iter().map(|note| note.as_ref().map(|n| n.checkpoint().size).ok()).collect();
        assert_eq!(sizes, [Some(1), None, Some(2)]);
        let gone = AppendFile::new(dir.path().join("no/such/directory"));
        assert!(gone.put(&note(&signer, 1, b"1")).await.is_err());
    }

    #[tokio::test]
    async fn a_directory_never_has_a_file_written_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let signer = Signer::generate("o");
        let sink = Directory::new(dir.path());
        sink.put(&note(&signer, 7, b"a")).await.expect("kept");
        sink.put(&note(&signer, 7, b"a")).await.expect("the same again is no harm");
        let fork = sink.put(&note(&signer, 7, b"b")).await.expect_err("another of the same size");
        assert!(fork.reason.contains("00000000000000000007.checkpoint"), "{fork}");
    }

    #[tokio::test]
    async fn a_program_gets_the_note_and_its_failure_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let kept = dir.path().join("kept");
        let script = |text: &str| Program::new("/bin/sh", vec!["-c".into(), text.into()]);
        let note = note(&Signer::generate("o"), 7, b"a");
        let sink = script(&format!("cat > {}-$HYPERCODE_CHECKPOINT_SIZE", kept.display()));
        sink.put(&note).await.expect("kept");
        let found = std::fs::read_to_string(dir.path().join("kept-7")).expect("the file");
        assert_eq!(found, note.as_str());
        let failed =
            script("cat > /dev/null; echo no room >&2; exit 3").put(&note).await.expect_err("failed");
        assert!(failed.reason.contains("no room"), "{failed}");
    }
}
