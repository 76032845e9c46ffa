//! The way into an appender: bounded in requests and bytes, and handed on in batches.
//!
//! Batches form by themselves while the commit before is running, so there is no timer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{AppendError, AppendRequest, Appended, Epoch, request};
use crate::id::KeyId;

/// What an event costs in the intake beside its payload.
const EVENT_BYTES: usize = 512;

type Reply<T> = oneshot::Sender<Result<T, AppendError>>;

/// How much may wait, and how much becomes durable at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) requests_max: usize,
    pub(super) bytes_max: usize,
    pub(super) batch_requests_max: usize,
    pub(super) batch_bytes_max: usize,
}

#[derive(Debug)]
enum Entry {
    Append(Waiting),
    Claim(Claim),
    Close,
}

/// An append that waits for its commit; the permit keeps its place in the intake until it is answered.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Box<AppendRequest>,
    /// The keys of data subjects with which it is sealed.
    pub(super) keys: Vec<KeyId>,
    bytes: usize,
    _permit: OwnedSemaphorePermit,
    reply: Reply<Appended>,
}

/// Shards that a node wants.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) node: String,
    /// What it holds already, and is left alone.
    pub(super) held: Vec<Epoch>,
    pub(super) most: usize,
    pub(super) ttl: Duration,
    pub(super) reply: Reply<Vec<Epoch>>,
}

/// What an appender is to do next.
#[derive(Debug)]
pub(super) enum Work {
    Append(Vec<Waiting>),
    Claim(Claim),
}

/// The callers' end.
#[derive(Debug)]
pub(super) struct Intake {
    sender: mpsc::Sender<Entry>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// The appender's end.
#[derive(Debug)]
pub(super) struct Queue {
    receiver: mpsc::Receiver<Entry>,
    limits: Limits,
    /// What was taken out behind a batch and does not belong to it.
    next: Option<Entry>,
}

pub(super) fn open(limits: Limits) -> (Intake, Queue) {
    let (sender, receiver) = mpsc::channel(limits.requests_max);
    let bytes = Arc::new(Semaphore::new(limits.bytes_max));
    (Intake { sender, bytes, bytes_max: limits.bytes_max }, Queue { receiver, limits, next: None })
}

impl Intake {
    /// The appender owns the request from the moment it was taken in: a caller that goes away changes nothing.
    pub(super) async fn append(
        &self,
        request: AppendRequest,
        keys: Vec<KeyId>,
    ) -> Result<Appended, AppendError> {
        let bytes = request::check(&request)? + EVENT_BYTES * request.events.len();
        let permit = self.admit(bytes)?;
        let (reply, answer) = oneshot::channel();
        let request = Box::new(request);
        self.submit(Entry::Append(Waiting { request, keys, bytes, _permit: permit, reply }))?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    pub(super) async fn claim(
        &self,
        node: &str,
        held: &[Epoch],
        most: usize,
        ttl: Duration,
    ) -> Result<Vec<Epoch>, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Entry::Claim(Claim { node: node.to_owned(), held: held.to_vec(), most, ttl, reply }))?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Refuses what comes from now on; what was taken in before is still done.
    pub(super) async fn close(&self) {
        // A closed intake means that the appender has ended already.
        let _ = self.sender.send(Entry::Close).await;
    }

    /// Admits `bytes`, or says that there is no room.
    fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        // A request that is larger than the whole intake passes when it is alone.
        let permits = bytes.min(self.bytes_max);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        Arc::clone(&self.bytes).try_acquire_many_owned(permits).map_err(|_| AppendError::Full)
    }

    fn submit(&self, entry: Entry) -> Result<(), AppendError> {
        self.sender.try_send(entry).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => AppendError::Full,
            mpsc::error::TrySendError::Closed(_) => {
                AppendError::Unavailable { reason: "the log is closed".into() }
            }
        })
    }
}

fn ended() -> AppendError {
    AppendError::Unknown { reason: "the appender ended".into() }
}

impl Queue {
    /// The next work; `None` once the intake is closed or every handle is gone, and all is done.
    pub(super) async fn next(&mut self) -> Option<Work> {
        loop {
            let entry = match self.next.take() {
                Some(entry) => entry,
                None => self.receiver.recv().await?,
            };
            match entry {
                Entry::Append(waiting) => return Some(Work::Append(self.gather(waiting))),
                Entry::Claim(claim) => return Some(Work::Claim(claim)),
                Entry::Close => self.receiver.close(),
            }
        }
    }

    /// Takes the appends that wait behind `first`, up to the limits or to the first entry of another sort.
    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while batch.len() < self.limits.batch_requests_max && bytes < self.limits.batch_bytes_max {
            match self.receiver.try_recv() {
                Ok(Entry::Append(waiting)) => {
                    bytes += waiting.bytes;
                    batch.push(waiting);
                }
                Ok(other) => {
                    self.next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        batch
    }
}

/// Answers everybody in `batch`, each with its own verdict.
pub(super) fn answer(batch: Vec<Waiting>, verdicts: Vec<Result<Appended, AppendError>>) {
    for (waiting, verdict) in batch.into_iter().zip(verdicts) {
        let Waiting { reply, _permit: permit, .. } = waiting;
        // Who is answered finds room for the next.
        drop(permit);
        // A caller that went away wants no answer.
        let _ = reply.send(verdict);
    }
}
