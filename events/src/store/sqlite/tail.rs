//! The log's newest events, kept in memory: who follows the log finds them here, without asking the file.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use crate::event::Recorded;
use crate::id::Position;

/// The events after [`Tail::after`] up to the log's end, as far as they are kept.
#[derive(Debug)]
pub(super) struct Tail {
    events_max: usize,
    bytes_max: usize,
    kept: RwLock<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// The position before the first event that is kept.
    base: Position,
    events: VecDeque<Recorded>,
    /// Bytes of payload in them.
    bytes: usize,
}

impl Kept {
    fn after(base: Position) -> Self {
        Self { base, events: VecDeque::new(), bytes: 0 }
    }
}

impl Tail {
    /// The tail of a log that ends at `head`, none of which is kept yet.
    pub(super) fn new(head: Position, events_max: usize, bytes_max: usize) -> Self {
        Self { events_max, bytes_max, kept: RwLock::new(Kept::after(head)) }
    }

    /// Forgets everything: the log is known to end at `head`.
    pub(super) fn restart(&self, head: Position) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Kept::after(head);
    }

    /// Adds events that are durable, which follow those that are kept.
    pub(super) fn extend(&self, events: Vec<Recorded>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += events.iter().map(|event| event.payload.len()).sum::<usize>();
        kept.events.extend(events);
        while kept.events.len() > self.events_max || kept.bytes > self.bytes_max {
            let Some(oldest) = kept.events.pop_front() else { break };
            kept.bytes -= oldest.payload.len();
            kept.base = oldest.position;
        }
    }

    /// Up to `limit` events with positions above `after`; `None` if some of them are no longer kept.
    pub(super) fn after(&self, after: Position, limit: usize) -> Option<Vec<Recorded>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let known = after.0.checked_sub(kept.base.0)?;
        let known = usize::try_from(known).ok()?.min(kept.events.len());
        Some(kept.events.range(known..).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::conformance::{log, request, stream};
    use crate::store::{EventStore, Expected, Memory};

    async fn events(count: usize) -> Vec<Recorded> {
        let store: Arc<dyn EventStore> = Arc::new(Memory::new());
        for _ in 0..count {
            store.append(request(&stream("s"), Expected::Any, &["10"])).await.expect("it is appended");
        }
        log(&*store).await
    }

    fn positions(events: Option<Vec<Recorded>>) -> Option<Vec<u64>> {
        Some(events?.iter().map(|event| event.position.0).collect())
    }

    #[tokio::test]
    async fn it_answers_what_it_keeps_and_says_what_it_does_not() {
        let tail = Tail::new(Position(0), 3, 100);
        assert_eq!(positions(tail.after(Position(0), 9)), Some(vec![]));
        let events = events(5).await;
        tail.extend(events[..2].to_vec());
        assert_eq!(positions(tail.after(Position(0), 9)), Some(vec![1, 2]));
        tail.extend(events[2..].to_vec());
        assert_eq!(positions(tail.after(Position(1), 9)), None, "position 2 is no longer kept");
        assert_eq!(positions(tail.after(Position(2), 2)), Some(vec![3, 4]));
        assert_eq!(positions(tail.after(Position(5), 9)), Some(vec![]));
        assert_eq!(positions(tail.after(Position(7), 9)), Some(vec![]), "the file may be ahead for a moment");
        tail.restart(Position(9));
        assert_eq!(positions(tail.after(Position(5), 9)), None);
        assert_eq!(positions(tail.after(Position(9), 9)), Some(vec![]));
    }

    #[tokio::test]
    async fn it_is_bounded_in_bytes_too() {
        let tail = Tail::new(Position(0), 100, 5);
        tail.extend(events(4).await);
        assert_eq!(positions(tail.after(Position(2), 9)), Some(vec![3, 4]));
        assert_eq!(positions(tail.after(Position(1), 9)), None);
    }
}
