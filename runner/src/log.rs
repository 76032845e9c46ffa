//! The handler's log: what it writes to stderr, and what it writes to stdout that is not protocol.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use link::limits::{HANDLER_LOG, LOG_TAIL_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::mask::Mask;

/// At this size the log begins anew; the part before is kept, the one before that is not.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const READ_BYTES: usize = 8 * 1024;

/// The end of what was written, at most 4 KiB.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let excess = self.0.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        self.0.drain(..excess);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let mut start = text.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_owned()
    }
}

/// The end of what one source wrote into a log that others write into as well, as free of secrets as that is. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words(Arc<Mutex<Tail>>);

impl Words {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is now, as text.
    pub(crate) fn text(&self) -> String {
        self.tail().text()
    }
}

/// A bounded log that holds no secret. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    inner: Arc<Mutex<Inner>>,
    mask: Mask,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    tail: Tail,
}

/// One source of the log's bytes. It keeps back what may yet turn out to be the beginning of a secret.
#[derive(Debug)]
pub(crate) struct Pen {
    log: Log,
    words: Words,
    held: Vec<u8>,
}

impl Log {
    /// A log in this directory, free of what is hidden. Where the file cannot be written, the tail alone is kept.
    pub(crate) fn open(dir: &Path, mask: Mask) -> Self {
        let path = dir.join(HANDLER_LOG);
        let file = OpenOptions::new().create(true).append(true).open(&path).ok();
        let bytes = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        let inner = Inner { path, file, bytes, tail: Tail::default() };
        Self { inner: Arc::new(Mutex::new(inner)), mask }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new source of bytes.
    pub(crate) fn pen(&self, words: Words) -> Pen {
        Pen { log: self.clone(), words, held: Vec::new() }
    }

    /// Writes one whole line.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut pen = self.pen(Words::default());
        pen.write(line);
        pen.write(b"\n");
    }

    /// The end of what was written, at most 4 KiB, as text.
    pub(crate) fn tail(&self) -> String {
        self.inner().tail.text()
    }

    /// Copies a stream into the log until its end; the end of it is also in `words`.
    pub(crate) async fn copy(&self, mut from: impl AsyncRead + Unpin, words: Words) {
        let mut pen = self.pen(words);
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            pen.write(&buffer[..count]);
        }
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) {
        self.tail.write(bytes);
        // A full disk costs the log, not the work.
        if self.append(bytes).is_err() {
            self.file = None;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        if self.bytes >= FILE_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = Some(File::create(&self.path)?);
            self.bytes = 0;
        }
        Ok(())
    }
}

impl Pen {
    /// Writes bytes; the end of them that could begin a secret waits for more.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let mut inner = self.log.inner();
        let (out, held_from) = self.log.mask.bytes(&self.held, true);
        inner.write(&out);
        self.words.tail().write(&out);
        self.held.drain(..held_from);
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        let mut inner = self.log.inner();
        let (out, _) = self.log.mask.bytes(&self.held, false);
        inner.write(&out);
        self.words.tail().write(&out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(secrets: &[&str]) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let mask = Mask::default();
        mask.hide(secrets.iter().map(|secret| (*secret).to_owned()));
        let log = Log::open(dir.path(), mask);
        (dir, log)
    }

    #[test]
    fn a_secret_is_masked_even_when_it_comes_in_pieces() {
        let (dir, log) = log(&["hunter2", "hunter2-long", "ab"]);
        let mut pen = log.pen(Words::default());
        for piece in ["key=hun", "te", "r2-lo", "ng; again hunter", "2\nab hunt"] {
            pen.write(piece.as_bytes());
        }
        drop(pen);
        assert_eq!(log.tail(), "key=***; again ***\nab hunt");
        let file = std::fs::read_to_string(dir.path().join(HANDLER_LOG)).unwrap();
        assert!(!file.contains("hunter2"), "{file}");
    }

    #[test]
    fn each_source_has_an_end_of_its_own() {
        let (_dir, log) = log(&["hunter2"]);
        let (one, other) = (Words::default(), Words::default());
        let (mut a, mut b) = (log.pen(one.clone()), log.pen(other.clone()));
        a.write(b"of one ");
        b.write(b"of the other ");
        a.write(b"hunter2");
        drop((a, b));
        assert_eq!((one.text().as_str(), other.text().as_str()), ("of one ***", "of the other "));
        assert_eq!(log.tail(), "of one of the other ***");
    }

    #[test]
    fn the_log_is_bounded_however_much_is_written() {
        let (dir, log) = log(&[]);
        let mut pen = log.pen(Words::default());
        for _ in 0..300 {
            pen.write(&[b'x'; 16 * 1024]);
        }
        assert_eq!(log.tail().len(), LOG_TAIL_BYTES_MAX);
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("handler.log") <= FILE_BYTES_MAX && size("handler.log.1") <= FILE_BYTES_MAX + 16 * 1024);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
