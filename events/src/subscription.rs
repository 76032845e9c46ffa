//! Following the log: first what is there, then what comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::event::Recorded;
use crate::id::Position;
use crate::store::{EventStore, ReadError};

/// The limits of a subscription.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most events that one batch has.
    pub batch_events_max: usize,
    /// How long a subscription that got no hint waits before it looks again, in milliseconds.
    pub poll_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { batch_events_max: 1_000, poll_ms: 250 }
    }
}

/// A reader's place in the log. It misses and repeats nothing (ES-6), whatever hints are lost.
#[derive(Clone)]
pub struct Subscription {
    store: Arc<dyn EventStore>,
    cursor: Position,
    hint: watch::Receiver<Position>,
    options: Options,
}

impl Subscription {
    /// Begins after `cursor`.
    pub fn after(store: Arc<dyn EventStore>, cursor: Position, options: Options) -> Self {
        let hint = store.watch();
        Self { store, cursor, hint, options }
    }

    /// The last position that was given out.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// Goes to another place in the log.
    pub fn seek(&mut self, cursor: Position) {
        self.cursor = cursor;
    }

    /// The next events, at least one; waits for them where the log has none yet. Dropping the future loses
    /// nothing, and after an error the same events come again.
    pub async fn next(&mut self) -> Result<Vec<Recorded>, ReadError> {
        loop {
            let events = self.store.read(self.cursor, self.options.batch_events_max).await?;
            if let Some(last) = events.last() {
                self.cursor = last.position;
                return Ok(events);
            }
            self.wait().await;
        }
    }

    /// Until there is a hint, or it is time to look without one.
    async fn wait(&mut self) {
        let cursor = self.cursor;
        let poll = Duration::from_millis(self.options.poll_ms);
        let hint = tokio::time::timeout(poll, self.hint.wait_for(|head| *head > cursor));
        let nobody_hints = matches!(hint.await, Ok(Err(_)));
        if nobody_hints {
            tokio::time::sleep(poll).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{request, stream};
    use crate::store::{Expected, Memory};

    async fn append(store: &Memory) {
        store.append(request(&stream("s"), Expected::Any, &["1", "2", "3"])).await.expect("it is appended");
    }

    fn positions(events: &[Recorded]) -> Vec<u64> {
        events.iter().map(|event| event.position.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_catches_up_in_bounded_batches_and_then_follows() {
        let store = Memory::new();
        append(&store).await;
        let options = Options { batch_events_max: 2, poll_ms: 1_000 };
        let mut subscription = Subscription::after(Arc::new(store.clone()), Position(0), options);
        assert_eq!(positions(&subscription.next().await.expect("read")), [1, 2]);
        assert_eq!(positions(&subscription.next().await.expect("read")), [3]);
        let before = tokio::time::Instant::now();
        let (next, ()) = tokio::join!(subscription.next(), append(&store));
        assert_eq!(positions(&next.expect("read")), [4, 5]);
        assert!(before.elapsed() < Duration::from_millis(1_000), "the hint came before the poll");
        assert_eq!(subscription.cursor(), Position(5));
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_error_or_a_dropped_wait_nothing_is_missed() {
        let store = Memory::new();
        let mut subscription = Subscription::after(Arc::new(store.clone()), Position(0), Options::default());
        assert!(tokio::time::timeout(Duration::from_secs(9), subscription.next()).await.is_err());
        append(&store).await;
        store.faults().fail_reads(1);
        assert!(subscription.next().await.is_err());
        assert_eq!(positions(&subscription.next().await.expect("read")), [1, 2, 3]);
        subscription.seek(Position(1));
        assert_eq!(positions(&subscription.next().await.expect("read")), [2, 3]);
    }

    /// A store whose hints never come is still followed.
    #[tokio::test(start_paused = true)]
    async fn hints_are_not_needed() {
        let store = Memory::new();
        let mut subscription = Subscription::after(Arc::new(store.clone()), Position(0), Options::default());
        subscription.hint = watch::channel(Position(0)).1;
        let (next, ()) = tokio::join!(subscription.next(), append(&store));
        assert_eq!(positions(&next.expect("read")), [1, 2, 3]);
    }
}
