//! Group commit: the one task of this node that writes the log.
//!
//! It takes what waits, judges it, commits once and then answers everybody.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::error::WriteError;
use super::writer::Writer;
use super::{Database, Options, hint};
use crate::id::{KeyId, Position};
use crate::store::intake::{Claim, Queue, Waiting, Work, answer};
use crate::store::judge::{Judged, Known};
use crate::store::{AppendError, AppendRequest, Epoch, Expected};

pub(super) struct Appender {
    database: Database,
    options: Options,
    /// `None` after a failure: the next connection reads anew what stands in the database.
    writer: Option<Writer>,
    known: Known,
    /// Keys of data subjects that could seal when the fence was last looked at.
    usable: HashSet<KeyId>,
    queue: Queue,
    head: Arc<watch::Sender<Position>>,
}

impl Appender {
    pub(super) fn new(
        database: Database,
        options: Options,
        writer: Writer,
        known: Known,
        queue: Queue,
        head: Arc<watch::Sender<Position>>,
    ) -> Self {
        Self { database, options, writer: Some(writer), known, usable: HashSet::new(), queue, head }
    }

    /// Runs until it is closed or every handle is gone; what was taken in before is still written.
    pub(super) async fn run(mut self) {
        while let Some(work) = self.queue.next().await {
            match work {
                Work::Append(batch) => self.commit(batch).await,
                Work::Claim(claim) => {
                    let claimed = self.claim(&claim).await;
                    // A caller that went away wants no answer.
                    let _ = claim.reply.send(claimed);
                }
            }
        }
    }

    /// Makes the batch's winners durable and answers everybody.
    async fn commit(&mut self, batch: Vec<Waiting>) {
        let verdicts = match self.resolve(&batch).await {
            Ok((verdicts, changes)) => {
                self.known.absorb(changes);
                hint(&self.head, self.known.head.position);
                verdicts
            }
            Err(error) => {
                tracing::error!(%error, requests = batch.len(), "a batch was not committed");
                vec![Err(error); batch.len()]
            }
        };
        self.known.forget(self.options.cached_keys_max);
        if self.usable.len() > self.options.cached_keys_max {
            self.usable.clear();
        }
        answer(batch, verdicts);
    }

    /// Commits the batch, whatever becomes of connections on the way, as long as there is patience. Trying again
    /// is safe: a new connection raises the fence, so that what an earlier one left under way has either happened
    /// by then, and is found by the ids of its commands, or never will.
    async fn resolve(&mut self, batch: &[Waiting]) -> Result<Judged, AppendError> {
        let until = Instant::now() + Duration::from_millis(self.options.resolve_ms);
        let mut in_doubt = false;
        loop {
            let error = match self.try_commit(batch).await {
                Ok(judged) => return Ok(judged),
                Err(error) => error,
            };
            in_doubt |= matches!(error, WriteError::Unknown(_));
            let was_connected = matches!(error, WriteError::Lost(_) | WriteError::Unknown(_));
            if !(in_doubt || was_connected) || Instant::now() >= until {
                return Err(match AppendError::from(error) {
                    AppendError::Unavailable { reason } if in_doubt => AppendError::Unknown { reason },
                    error => error,
                });
            }
            tracing::warn!(?error, requests = batch.len(), "the database was lost: trying anew");
            tokio::time::sleep(Duration::from_millis(self.options.retry_ms)).await;
        }
    }

    /// First believes the cache and lets the database judge the rest; where that refuses anybody, looks
    /// everything up and judges anew.
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
        if requests(batch).any(|request| !request.release.is_empty())
            || batch.iter().any(|waiting| self.unusable(waiting).is_some())
        {
            return Ok(None);
        }
        let looked_up = requests(batch).filter(|request| request.expected != Expected::NONE);
        let unknown = self.known.unknown_streams(looked_up);
        if !unknown.is_empty() {
            self.known.streams.extend(writer.versions(&unknown).await?);
        }
        let (verdicts, changes) = self.known.judge(requests(batch));
        if verdicts.iter().any(Result::is_err) {
            return Ok(None);
        }
        if changes.events.is_empty() {
            return Ok(Some((verdicts, changes)));
        }
        match writer.append(self.known.head, &changes).await {
            Ok(true) => Ok(Some((verdicts, changes))),
            Ok(false) | Err(WriteError::Conflict(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn judge_and_write(
        &mut self,
        writer: &mut Writer,
        batch: &[Waiting],
    ) -> Result<Judged, WriteError> {
        let mut locked = writer.lock().await?;
        if let Some(epochs) = locked.epochs {
            self.known.epochs = epochs;
            self.usable.clear();
        }
        // Another node may have written to any stream. Commands that were appended once stay so.
        self.known.streams.clear();
        self.known.head = locked.head;
        let streams = self.known.unknown_streams(requests(batch));
        self.known.streams.extend(locked.versions(&streams).await?);
        let ids: Vec<_> = requests(batch).map(|request| request.command_id.0).collect();
        self.known.commands.extend(locked.commands(&ids).await?);
        let names = requests(batch).flat_map(|request| request.reserve.iter().chain(&request.release));
        let names: Vec<_> = names.collect();
        self.known.names = locked.holders(&names).await?;
        let keys: Vec<&KeyId> = batch.iter().filter_map(|waiting| self.unusable(waiting)).collect();
        if !keys.is_empty() {
            let usable = locked.usable(&keys).await?;
            self.usable.extend(usable);
        }
        let (verdicts, changes) = self.judge(batch);
        locked.finish(&changes).await?;
        Ok((verdicts, changes))
    }

    /// Judges all but those that are sealed with a key that may not seal any more.
    fn judge(&self, batch: &[Waiting]) -> Judged {
        let sound = batch.iter().filter(|waiting| self.unusable(waiting).is_none());
        let (verdicts, changes) = self.known.judge(sound.map(|waiting| &*waiting.request));
        let mut verdicts = verdicts.into_iter();
        let verdict = |waiting| match self.unusable(waiting) {
            Some(key) => Err(AppendError::Retired { key: key.clone() }),
            None => verdicts.next().expect("what was judged has a verdict"),
        };
        (batch.iter().map(verdict).collect(), changes)
    }

    /// A key of the request's that is not known to be one that may seal.
    fn unusable<'a>(&self, waiting: &'a Waiting) -> Option<&'a KeyId> {
        waiting.keys.iter().find(|key| !self.usable.contains(*key))
    }

    /// A connection that was lost while nothing was asked of it is only noticed now, so it is tried twice; an epoch
    /// that was raised unseen is a number that nobody uses.
    async fn claim(&mut self, claim: &Claim) -> Result<Vec<Epoch>, AppendError> {
        let mut writer = self.writer().await?;
        let claimed = match writer.claim(claim).await {
            Err(WriteError::Lost(_) | WriteError::Unknown(_)) => {
                writer = self.writer().await?;
                writer.claim(claim).await
            }
            claimed => claimed,
        };
        let (claimed, epochs) = claimed?;
        self.known.epochs = epochs;
        self.usable.clear();
        self.writer = Some(writer);
        Ok(claimed)
    }

    /// The writer; connects anew after a failure, and forgets what it believed.
    async fn writer(&mut self) -> Result<Writer, WriteError> {
        if let Some(writer) = self.writer.take() {
            return Ok(writer);
        }
        let opened = Writer::open(&self.database, &self.options).await;
        let (writer, known) = opened.map_err(|error| WriteError::NotWritten(error.to_string().into()))?;
        self.known = known;
        self.usable.clear();
        hint(&self.head, self.known.head.position);
        Ok(writer)
    }
}

fn requests(batch: &[Waiting]) -> impl Iterator<Item = &AppendRequest> {
    batch.iter().map(|waiting| &*waiting.request)
}
