//! Group commit: the one thread that writes the log.
//!
//! It takes what waits, judges it, commits once and then answers everybody.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Options;
use super::error::WriteError;
use super::lock::DirectoryLock;
use super::tail::Tail;
use super::writer::Writer;
use crate::id::Position;
use crate::store::intake::{Claim, Queue, Waiting, Work, answer};
use crate::store::judge::{Changes, Judged, Known};
use crate::store::{AppendError, AppendRequest, Epoch, Expected};

pub(super) struct Appender {
    pub(super) file: PathBuf,
    pub(super) options: Options,
    /// `None` after a failed write: what stands in the file is then read anew before the next.
    pub(super) writer: Option<Writer>,
    pub(super) known: Known,
    pub(super) queue: Queue,
    pub(super) tail: Arc<Tail>,
    pub(super) head: watch::Sender<Position>,
    /// Given back when the appender ends.
    pub(super) _lock: DirectoryLock,
}

impl Appender {
    /// Runs until it is closed or every handle is gone; what was taken in before is still written.
    pub(super) fn run(mut self, runtime: &Handle) {
        while let Some(work) = runtime.block_on(self.queue.next()) {
            match work {
                Work::Append(batch) => self.commit(batch),
                Work::Claim(claim) => {
                    let claimed = self.claim(&claim);
                    // A caller that went away wants no answer.
                    let _ = claim.reply.send(claimed);
                }
            }
        }
    }

    /// Makes the batch's winners durable and answers everybody.
    fn commit(&mut self, batch: Vec<Waiting>) {
        let verdicts = match self.try_commit(&batch) {
            Ok((verdicts, mut changes)) => {
                self.tail.extend(std::mem::take(&mut changes.events));
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
        self.known.forget(self.options.cached_keys_max);
        answer(batch, verdicts);
    }

    /// First believes the cache and lets the unique constraints judge the rest; where that refuses anybody,
    /// looks everything up and judges anew.
    fn try_commit(&mut self, batch: &[Waiting]) -> Result<Judged, WriteError> {
        let mut writer = self.writer()?;
        let judged = match self.try_fast(&mut writer, batch)? {
            Some(judged) => judged,
            None => self.judge_and_write(&mut writer, batch)?,
        };
        self.writer = Some(writer);
        Ok(judged)
    }

    fn try_fast(&mut self, writer: &mut Writer, batch: &[Waiting]) -> Result<Option<Judged>, WriteError> {
        if batch.iter().any(|waiting| !waiting.request.release.is_empty()) {
            return Ok(None);
        }
        self.learn_versions(writer, batch, |request| request.expected != Expected::NONE)?;
        let (verdicts, changes) = self.known.judge(requests(batch));
        if verdicts.iter().any(Result::is_err) {
            return Ok(None);
        }
        match self.write(writer, &changes) {
            Ok(()) => Ok(Some((verdicts, changes))),
            Err(WriteError::Conflict(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn judge_and_write(&mut self, writer: &mut Writer, batch: &[Waiting]) -> Result<Judged, WriteError> {
        self.learn_versions(writer, batch, |_| true)?;
        let ids: Vec<_> = requests(batch).map(|request| request.command_id).collect();
        let commands = writer.commands(&ids)?;
        self.known.commands.extend(commands);
        let names = requests(batch).flat_map(|request| request.reserve.iter().chain(&request.release));
        let names: Vec<_> = names.collect();
        self.known.names = writer.holders(&names)?;
        let (verdicts, changes) = self.known.judge(requests(batch));
        self.write(writer, &changes)?;
        Ok((verdicts, changes))
    }

    /// Looks up those streams of the batch that are `wanted` and not in the cache.
    fn learn_versions(
        &mut self,
        writer: &mut Writer,
        batch: &[Waiting],
        wanted: impl Fn(&AppendRequest) -> bool,
    ) -> Result<(), WriteError> {
        let unknown = self.known.unknown_streams(requests(batch).filter(|request| wanted(request)));
        if !unknown.is_empty() {
            let versions = writer.versions(&unknown)?;
            self.known.streams.extend(versions);
        }
        Ok(())
    }

    fn write(&self, writer: &mut Writer, changes: &Changes) -> Result<(), WriteError> {
        if changes.events.is_empty() { Ok(()) } else { writer.write(self.known.head, changes) }
    }

    fn claim(&mut self, claim: &Claim) -> Result<Vec<Epoch>, AppendError> {
        let mut writer = self.writer()?;
        let claimed = writer.claim(claim)?;
        for epoch in &claimed {
            self.known.epochs[usize::from(epoch.shard)] = epoch.epoch;
        }
        self.writer = Some(writer);
        Ok(claimed)
    }

    /// The writer; reconnects after a failure, since the cache may then be wrong.
    fn writer(&mut self) -> Result<Writer, WriteError> {
        if let Some(writer) = self.writer.take() {
            return Ok(writer);
        }
        let opened = Writer::open(&self.file, &self.options);
        let (writer, known) = opened.map_err(|error| WriteError::NotWritten(error.to_string().into()))?;
        self.known = known;
        self.tail.restart(self.known.head.position);
        self.head.send_replace(self.known.head.position);
        Ok(writer)
    }
}

fn requests(batch: &[Waiting]) -> impl Iterator<Item = &AppendRequest> {
    batch.iter().map(|waiting| &*waiting.request)
}
