//! What a supervisor decided, recorded without ever holding it up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use events::supervision::{Exit, OnExhausted};

use super::counters::Tally;
use super::{ChildId, Limits};

/// One thing that happened under a supervisor. Times are in milliseconds, on the clock of
/// [`Options::now_ms`](super::Options::now_ms).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A child ended, or did not come up.
    ChildExited {
        /// The child.
        child: ChildId,
        /// How it ended. A child that the supervisor stopped itself `drained`, or was `killed`.
        exit: Exit,
        /// What is known beyond that, at most 256 characters.
        detail: String,
        /// When.
        at_ms: u64,
    },
    /// A restart was decided. Fold it with [`Budget::restarted`](events::supervision::Budget::restarted).
    RestartScheduled {
        /// The child that failed.
        failed: ChildId,
        /// All that will be started, in order.
        children: Vec<ChildId>,
        /// After this wait.
        delay_ms: u64,
        /// When it was decided.
        at_ms: u64,
    },
    /// A child is up again.
    Restarted {
        /// The child.
        child: ChildId,
        /// When.
        at_ms: u64,
    },
    /// The restart budget was spent.
    GaveUp {
        /// The child that failed once too often.
        child: ChildId,
        /// What was done about it.
        outcome: OnExhausted,
        /// When.
        at_ms: u64,
    },
}

/// An entry was not recorded, for this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record what a supervisor did: {0}")]
pub struct JournalError(pub String);

/// Where a supervisor's entries go: its owner makes events of them.
///
/// Entries come one at a time and in order. One that fails, panics or takes too long is tried again, so it may
/// arrive twice; after [`Limits::journal_attempts_max`] tries it is counted as lost.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Records one entry durably.
    async fn record(&self, entry: Entry) -> Result<(), JournalError>;
}

/// The supervisor's end of its journal.
pub(super) struct Writer {
    /// None: closed.
    entries: Option<mpsc::Sender<Entry>>,
    task: JoinHandle<()>,
    tally: Arc<Tally>,
    flush: Duration,
}

impl Writer {
    pub(super) fn spawn(journal: Arc<dyn Journal>, limits: &Limits, tally: Arc<Tally>) -> Self {
        let (entries, queue) = mpsc::channel(limits.journal_entries_max.max(1));
        let task = tokio::spawn(write(journal, queue, limits.clone(), tally.clone()));
        Self { entries: Some(entries), task, tally, flush: Duration::from_millis(limits.journal_flush_ms) }
    }

    /// Queues an entry; where the queue is full it is lost, and counted.
    pub(super) fn record(&self, entry: Entry) {
        let queued = self.entries.as_ref().is_some_and(|entries| entries.try_send(entry).is_ok());
        if !queued {
            tracing::error!("an entry of a supervisor's journal is lost: its queue is full");
            self.tally.journal_lost();
        }
    }

    /// Takes no more entries and waits a bounded time until those queued are recorded; the rest goes on being tried.
    pub(super) async fn close(&mut self) {
        self.entries = None;
        // An error says that the runtime is shutting down; then nobody is left to hear of it.
        let _ = timeout(self.flush, &mut self.task).await;
    }
}

async fn write(
    journal: Arc<dyn Journal>,
    mut queue: mpsc::Receiver<Entry>,
    limits: Limits,
    tally: Arc<Tally>,
) {
    while let Some(entry) = queue.recv().await {
        let mut left = limits.journal_attempts_max.max(1);
        while let Err(error) = attempt(&journal, entry.clone(), limits.journal_attempt_ms).await {
            left -= 1;
            if left == 0 {
                tracing::error!(%error, ?entry, "a supervisor's journal failed, an entry is lost");
                tally.journal_lost();
                break;
            }
            sleep(Duration::from_millis(limits.journal_pause_ms)).await;
        }
    }
}

/// One try, in a task of its own so that a journal that panics takes nothing with it.
async fn attempt(journal: &Arc<dyn Journal>, entry: Entry, attempt_ms: u64) -> Result<(), JournalError> {
    let journal = journal.clone();
    let mut task = tokio::spawn(async move { journal.record(entry).await });
    match timeout(Duration::from_millis(attempt_ms), &mut task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(ended)) => Err(JournalError(ended.to_string())),
        Err(_) => {
            task.abort();
            Err(JournalError(format!("no answer within `{attempt_ms}` ms")))
        }
    }
}
