//! Bringing checkpoints from the ledger to the sinks: each at its own pace, none holding up another.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Complaints, Signed, Work};
use crate::audit::checkpoint::Note;
use crate::audit::ledger::{Entry, Ledger};
use crate::audit::sink::Sink;

/// Checkpoints that are read from the ledger at once.
const BATCH: usize = 100;

impl Work {
    /// Begins to bring every sink what it has not got yet.
    pub(super) fn start_deliveries(&self) -> JoinSet<()> {
        let mut deliveries = JoinSet::new();
        for sink in &self.sinks {
            let delivery = Delivery {
                ledger: self.ledger.clone(),
                sink: Arc::clone(sink),
                retry: Duration::from_millis(self.options.retry_ms),
                newest: self.signed.subscribe(),
                complaints: Arc::clone(&self.complaints),
            };
            deliveries.spawn(delivery.run());
        }
        deliveries
    }
}

/// Waits for the sinks to take what waits, but not for ever.
pub(super) async fn finish(mut deliveries: JoinSet<()>, limit_ms: u64) {
    let all = async { while deliveries.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(limit_ms), all).await.is_err() {
        tracing::warn!("not every sink has got every checkpoint: they get them after the next start");
    }
}

struct Delivery {
    ledger: Ledger,
    sink: Arc<dyn Sink>,
    retry: Duration,
    newest: watch::Receiver<Signed>,
    complaints: Arc<Complaints>,
}

impl Delivery {
    /// Until the tailer has ended and the sink has everything, or does not take it.
    async fn run(mut self) {
        loop {
            let size = self.newest.borrow_and_update().size;
            let done = self.catch_up(size).await;
            self.tell(done.as_ref().err());
            let is_over = self.newest.has_changed().is_err();
            match done {
                Ok(()) if is_over => return,
                Ok(()) => {
                    // That nobody sends any more is seen above.
                    let _ = self.newest.wait_for(|signed| signed.size != size).await;
                }
                Err(error) => {
                    tracing::warn!(sink = self.sink.name(), error, "a checkpoint was not taken");
                    if is_over {
                        return;
                    }
                    tokio::time::sleep(self.retry).await;
                }
            }
        }
    }

    async fn catch_up(&self, newest: u64) -> Result<(), String> {
        let name = self.sink.name();
        let mut delivered = self.delivered().await?;
        while delivered < newest {
            let waiting = self.waiting(delivered).await?;
            if waiting.is_empty() {
                break;
            }
            for entry in waiting {
                let note = Note::parse(&entry.note).map_err(|error| error.to_string())?;
                self.sink.put(&note).await.map_err(|error| error.to_string())?;
                self.ledger.deliver(name, entry.size).await.map_err(|error| error.to_string())?;
                delivered = entry.size;
            }
        }
        Ok(())
    }

    /// Up to which size the sink has the checkpoints; 0 once it has lost them.
    async fn delivered(&self) -> Result<u64, String> {
        let name = self.sink.name();
        let delivered = self.ledger.delivered(name).await.map_err(|error| error.to_string())?;
        let Some(before) = delivered.checked_sub(1) else { return Ok(0) };
        let last = self.ledger.checkpoints(before, 1).await.map_err(|error| error.to_string())?;
        let Some(last) = last.first().filter(|entry| entry.size == delivered) else { return Ok(delivered) };
        let last = Note::parse(&last.note).map_err(|error| error.to_string())?;
        if self.sink.has(&last).await.map_err(|error| error.to_string())? {
            return Ok(delivered);
        }
        tracing::warn!(sink = name, "the checkpoints that it had are gone; it gets them again");
        Ok(0)
    }

    async fn waiting(&self, delivered: u64) -> Result<Vec<Entry>, String> {
        let waiting = match self.sink.wants_newest_only() {
            true => self.ledger.newest().await.map(|newest| newest.into_iter().collect()),
            false => self.ledger.checkpoints(delivered, BATCH).await,
        };
        waiting.map_err(|error| error.to_string())
    }

    fn tell(&self, error: Option<&String>) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.insert(self.sink.name().to_owned(), error.cloned());
    }
}
