//! Group commit: the one task that writes the log.
//!
//! It takes what waits, up to a count and a size, judges it, commits once and then answers everybody. Batches
//! form by themselves while the commit before is running, so there is no timer.

use std::collections::HashSet;
use std::path::PathBuf;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::Options;
use super::error::WriteError;
use super::lock::DirectoryLock;
use super::writer::Writer;
use crate::id::Position;
use crate::store::judge::{Batch, Changes, Known};
use crate::store::{AppendError, AppendRequest, Appended, Epoch, Expected};

type Reply<T> = oneshot::Sender<Result<T, AppendError>>;

/// What the appender is asked to do.
#[derive(Debug)]
pub(super) enum Work {
    Append { request: Box<AppendRequest>, bytes: usize, permit: OwnedSemaphorePermit, reply: Reply<Appended> },
    TakeShard { shard: u8, holder: String, reply: Reply<Epoch> },
    Close,
}

/// An append that waits for its commit; the permit keeps its place in the intake until it is answered.
struct Waiting {
    request: Box<AppendRequest>,
    _permit: OwnedSemaphorePermit,
    reply: Reply<Appended>,
}

/// A batch's verdicts, in the order of its requests, and what they change.
type Judged = (Vec<Result<Appended, AppendError>>, Changes);

pub(super) struct Appender {
    file: PathBuf,
    options: Options,
    /// `None` after a failed write: what stands in the file is then read anew before the next.
    writer: Option<Writer>,
    known: Known,
    intake: mpsc::Receiver<Work>,
    head: watch::Sender<Position>,
    _lock: DirectoryLock,
}

impl Appender {
    pub(super) fn new(
        file: PathBuf,
        options: Options,
        lock: DirectoryLock,
        writer: Writer,
        known: Known,
        intake: mpsc::Receiver<Work>,
        head: watch::Sender<Position>,
    ) -> Self {
        Self { file, options, writer: Some(writer), known, intake, head, _lock: lock }
    }

    /// Runs until it is closed or every handle is gone; what was taken in before is still written.
    pub(super) async fn run(mut self) {
        let mut next = self.intake.recv().await;
        while let Some(work) = next.take() {
            match work {
                Work::Append { .. } => {
                    let (batch, rest) = self.gather(work);
                    self.commit(batch).await;
                    next = rest;
                }
                Work::TakeShard { shard, holder, reply } => {
                    // A caller that went away wants no answer.
                    let _ = reply.send(self.take_shard(shard, &holder).await);
                }
                Work::Close => self.intake.close(),
            }
            if next.is_none() {
                next = self.intake.recv().await;
            }
        }
    }

    /// Takes the appends that wait behind `work`, up to the limits or to the first work of another sort.
    fn gather(&mut self, work: Work) -> (Vec<Waiting>, Option<Work>) {
        let mut batch = Vec::new();
        let mut bytes_taken = 0;
        let mut next = Some(work);
        while let Some(work) = next.take() {
            let Work::Append { request, bytes, permit, reply } = work else { return (batch, Some(work)) };
            batch.push(Waiting { request, _permit: permit, reply });
            bytes_taken += bytes;
            if batch.len() < self.options.batch_requests_max && bytes_taken < self.options.batch_bytes_max {
                next = self.intake.try_recv().ok();
            }
        }
        (batch, None)
    }

    /// Makes the batch's winners durable and answers everybody.
    async fn commit(&mut self, batch: Vec<Waiting>) {
        let verdicts = match self.try_commit(&batch).await {
            Ok((verdicts, changes)) => {
                self.known.absorb(changes);
                self.head.send_replace(self.known.head.position);
                verdicts
            }
            Err(error) => {
                self.writer = None;
                let error = AppendError::from(error);
                tracing::error!(%error, requests = batch.len(), "a batch was not committed");
                vec![Err(error); batch.len()]
            }
        };
        self.forget();
        for (waiting, verdict) in batch.into_iter().zip(verdicts) {
            // A caller that went away wants no answer.
            let _ = waiting.reply.send(verdict);
        }
    }

    /// First believes the cache and lets the unique constraints judge the rest; where that refuses anybody,
    /// looks everything up and judges anew.
    async fn try_commit(&mut self, batch: &[Waiting]) -> Result<Judged, WriteError> {
        let mut writer = self.writer().await?;
        let judged = match self.try_fast(&mut writer, batch).await? {
            Some(judged) => judged,
            None => self.judge_and_write(&mut writer, batch).await?,
        };
        self.writer = Some(writer);
        Ok(judged)
    }

    async fn try_fast(
        &mut self,
        writer: &mut Writer,
        batch: &[Waiting],
    ) -> Result<Option<Judged>, WriteError> {
        if batch.iter().any(|waiting| !waiting.request.release.is_empty()) {
            return Ok(None);
        }
        self.learn_versions(writer, batch, |request| request.expected != Expected::NONE).await?;
        let (verdicts, changes) = self.judge(batch);
        if verdicts.iter().any(Result::is_err) {
            return Ok(None);
        }
        match self.write(writer, &changes).await {
            Ok(()) => Ok(Some((verdicts, changes))),
            Err(WriteError::Conflict(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn judge_and_write(
        &mut self,
        writer: &mut Writer,
        batch: &[Waiting],
    ) -> Result<Judged, WriteError> {
        let unread = |error: sqlx::Error| WriteError::before_commit(&error);
        self.learn_versions(writer, batch, |_| true).await?;
        let requests = || batch.iter().map(|waiting| &waiting.request);
        let ids: Vec<_> = requests().map(|request| request.command_id).collect();
        let commands = writer.commands(&ids).await.map_err(unread)?;
        self.known.commands.extend(commands);
        let names = requests().flat_map(|request| request.reserve.iter().chain(&request.release));
        let names: Vec<_> = names.collect();
        self.known.names = writer.holders(&names).await.map_err(unread)?;
        let (verdicts, changes) = self.judge(batch);
        self.write(writer, &changes).await?;
        Ok((verdicts, changes))
    }

    /// Looks up those streams of the batch that are `wanted` and not in the cache.
    async fn learn_versions(
        &mut self,
        writer: &mut Writer,
        batch: &[Waiting],
        wanted: impl Fn(&AppendRequest) -> bool,
    ) -> Result<(), WriteError> {
        let requests = batch.iter().map(|waiting| &*waiting.request).filter(|request| wanted(request));
        let unknown: HashSet<_> = requests
            .map(|request| &request.stream)
            .filter(|stream| !self.known.streams.contains_key(stream))
            .collect();
        if !unknown.is_empty() {
            let versions = writer.versions(&unknown).await;
            self.known.streams.extend(versions.map_err(|error| WriteError::before_commit(&error))?);
        }
        Ok(())
    }

    fn judge(&self, batch: &[Waiting]) -> Judged {
        let mut judged = Batch::new(&self.known);
        let verdicts = batch.iter().map(|waiting| judged.admit(&waiting.request)).collect();
        (verdicts, judged.into_changes())
    }

    async fn write(&self, writer: &mut Writer, changes: &Changes) -> Result<(), WriteError> {
        if changes.events.is_empty() { Ok(()) } else { writer.write(self.known.head, changes).await }
    }

    async fn take_shard(&mut self, shard: u8, holder: &str) -> Result<Epoch, AppendError> {
        let mut writer = self.writer().await?;
        let epoch = writer.take_shard(shard, holder).await?;
        self.known.epochs[usize::from(shard)] = epoch.epoch;
        self.writer = Some(writer);
        Ok(epoch)
    }

    /// The writer; reconnects after a failure, since the cache may then be wrong.
    async fn writer(&mut self) -> Result<Writer, WriteError> {
        if let Some(writer) = self.writer.take() {
            return Ok(writer);
        }
        let opened = Writer::open(&self.file, &self.options).await;
        let (writer, known) = opened.map_err(|error| WriteError::NotWritten(error.to_string().into()))?;
        self.known = known;
        self.head.send_replace(self.known.head.position);
        Ok(writer)
    }

    /// Keeps the cache within its limit. Names are looked up whenever they are needed.
    fn forget(&mut self) {
        self.known.names.clear();
        if self.known.streams.len() > self.options.cached_keys_max {
            self.known.streams.clear();
        }
        if self.known.commands.len() > self.options.cached_keys_max {
            self.known.commands.clear();
        }
    }
}
