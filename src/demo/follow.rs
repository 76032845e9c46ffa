//! Shows what happens while it happens.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{EventStore, Position};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::timeline::Narrator;

/// Writes a line to standard error for each event worth one.
pub(super) struct Follower {
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(store: Arc<dyn EventStore>, started: Instant) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let work = tokio::spawn(async move { follow(&*store, started, &stopped).await });
        Self { stop, work }
    }

    /// Shows what has happened up to now, and ends.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // A follower that panicked has nothing more to show.
        let _ = self.work.await;
    }
}

async fn follow(store: &dyn EventStore, started: Instant, stop: &CancellationToken) {
    let mut head = store.watch();
    let mut narrator = Narrator::default();
    let mut after = Position(0);
    loop {
        let last = stop.is_cancelled();
        let Ok(batch) = store.read(after, super::BATCH_EVENTS).await else { return };
        for event in &batch {
            after = event.position;
            if let Some(line) = narrator.tell(event) {
                let seconds = started.elapsed().as_secs_f64();
                let _ = writeln!(io::stderr(), "{seconds:7.3}s  {:<12} {}", line.who, line.what);
            }
        }
        if last && batch.is_empty() {
            return;
        }
        tokio::select! {
            _ = tokio::time::timeout(Duration::from_millis(200), head.changed()) => {}
            () = stop.cancelled(), if !last => {}
        }
    }
}
