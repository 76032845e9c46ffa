//! A witness that cosigns checkpoints (C2SP `tlog-witness`): it has seen every one, and has seen that each continues the one
//! before. What it cosigned is kept beside the checkpoints.

use std::fmt;
use std::io::SeekFrom;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, Method, StatusCode, header};
use events::audit::witness::submission;
use events::audit::{AppendFile, Ledger, Note, Sink, SinkError, WitnessKey, consistency, notes};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::OnceCell;

use super::http::{Answer, Http, SettingError};

/// How long the witness may take with one checkpoint.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked again about one checkpoint, once it said what it has seen.
const ASKED_MAX: usize = 3;
/// How much of the file of what it has cosigned is read, from its end, in bytes: some dozens of checkpoints.
const END_BYTES: u64 = 64 * 1024;
/// How much of it is read to find one for evidence: some ten thousand.
const COSIGNED_BYTES: u64 = 4 << 20;
/// What a witness answers of that says how many leaves it has seen.
const SIZE: &str = "text/x.tlog.size";

/// A witness at one URL, and the file of what it has cosigned.
pub struct Witness {
    http: Http,
    key: WitnessKey,
    ledger: Ledger,
    cosigned: AppendFile,
    /// Up to which size it has cosigned, as far as it is known here.
    seen: OnceCell<AtomicU64>,
    name: String,
}

/// What the names of all sinks begin with that have this witness cosign, wherever it is.
pub(crate) fn name_of(key: &WitnessKey) -> String {
    format!("witness:{} at ", key.name())
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Witness {
    /// The witness at `url`, whose cosignatures are checked with `key`; what it cosigned is appended to the file `cosigned`.
    ///
    /// # Errors
    /// When the text is no such URL.
    pub fn new(url: &str, key: WitnessKey, ledger: Ledger, cosigned: PathBuf) -> Result<Self, SettingError> {
        let http = Http::new("checkpoint_witness", url)?;
        let name = format!("{}{}", name_of(&key), http.place());
        Ok(Self { http, key, ledger, cosigned: AppendFile::new(cosigned), seen: OnceCell::new(), name })
    }

    /// The largest size at the end of the file of what it has cosigned. Where that is nothing, the witness says itself what
    /// it has seen.
    async fn read_seen(&self) -> AtomicU64 {
        let text = end_of(self.cosigned.path(), END_BYTES).await.unwrap_or_default();
        let own = notes(&text).into_iter().flatten().filter(|note| self.key.check(note));
        own.map(|note| note.checkpoint().size).max().unwrap_or(0).into()
    }

    async fn have_cosigned(&self, note: &Note) -> Result<(), String> {
        let known = self.seen.get_or_init(|| self.read_seen()).await;
        let mut seen = known.load(Ordering::Relaxed);
        for _ in 0..ASKED_MAX {
            let answer = self.ask(note, seen).await?;
            match answer.status {
                StatusCode::OK => {
                    let said = String::from_utf8_lossy(&answer.body);
                    let cosigned = self.key.cosigned(note, &said);
                    let cosigned = cosigned.ok_or("what it answered is no cosignature of its key")?;
                    self.cosigned.put(&cosigned).await.map_err(|error| error.reason)?;
                    known.store(note.checkpoint().size, Ordering::Relaxed);
                    return Ok(());
                }
                StatusCode::CONFLICT => match size(&answer) {
                    Some(size) if size != seen => seen = size,
                    _ => return Err(format!("it has seen another checkpoint: {}", answer.complaint())),
                },
                _ => return Err(answer.complaint()),
            }
        }
        Err("it does not say twice the same of what it has seen".to_owned())
    }

    async fn ask(&self, note: &Note, seen: u64) -> Result<Answer, String> {
        let checkpoint = note.checkpoint();
        if seen > checkpoint.size {
            let size = checkpoint.size;
            return Err(format!("it has seen {seen} events of this log, and this checkpoint has {size}"));
        }
        let proof = consistency(&self.ledger, checkpoint, seen).await.map_err(|problem| problem.detail)?;
        let target = format!("{}/add-checkpoint", self.http.url.path().trim_end_matches('/'));
        let body = submission(seen, &proof, note);
        self.http.send(Method::POST, &target, HeaderMap::new(), body.into()).await
    }
}

/// The last of a file, of which it may be the middle of a checkpoint that it begins with.
async fn end_of(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut file = tokio::fs::File::open(path).await?;
    let bytes = file.metadata().await?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(bytes_max))).await?;
    let mut end = Vec::new();
    file.take(bytes_max).read_to_end(&mut end).await?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// How many leaves the witness says that it has seen.
fn size(answer: &Answer) -> Option<u64> {
    let is_size =
        answer.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == SIZE.as_bytes());
    std::str::from_utf8(&answer.body).ok().filter(|_| is_size)?.trim_end().parse().ok()
}

#[async_trait]
impl Sink for Witness {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants_newest_only(&self) -> bool {
        true
    }

    async fn cosigned(&self, sizes: &RangeInclusive<u64>) -> Option<Note> {
        let text = end_of(self.cosigned.path(), COSIGNED_BYTES).await.ok()?;
        let own = notes(&text).into_iter().flatten();
        let own = own.filter(|note| sizes.contains(&note.checkpoint().size));
        own.max_by_key(|note| note.checkpoint().size).filter(|note| self.key.check(note))
    }

    async fn put(&self, note: &Note) -> Result<(), SinkError> {
        let failed = |reason: String| SinkError { sink: self.name.clone(), reason };
        match tokio::time::timeout(LIMIT, self.have_cosigned(note)).await {
            Ok(done) => done.map_err(failed),
            Err(_) => Err(failed(format!("it took longer than {} s", LIMIT.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests;
