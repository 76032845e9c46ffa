//! One thing at a time for each sandbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::Id;

type Turns = Arc<Mutex<HashMap<Id, Arc<Turn<()>>>>>;

/// A gate for each sandbox that someone is busy with.
#[derive(Debug, Default)]
pub(crate) struct Gates(Turns);

/// The right to be busy with one sandbox, until dropped. It is meant to be held for as long as that takes.
#[derive(Debug)]
pub(crate) struct Gate {
    turns: Turns,
    id: Id,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Gates {
    /// Waits for the turn, first come, first served.
    pub(crate) async fn enter(&self, id: &Id) -> Gate {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(id.clone()).or_default())
        };
        // Made before waiting, so that one who stops waiting cleans up too.
        let mut gate = Gate { turns: Arc::clone(&self.0), id: id.clone(), turn: None };
        gate.turn = Some(turn.lock_owned().await);
        gate
    }

    /// Whether someone is busy with this sandbox.
    pub(crate) fn is_busy(&self, id: &Id) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn = None;
        // Under the lock nobody can join, so the one left is the map's own.
        if turns.get(&self.id).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    fn id() -> Id {
        Id::new("one").expect("legal")
    }

    #[tokio::test]
    async fn a_gate_lets_one_through_and_is_forgotten_after_the_last() {
        let (gates, id) = (Gates::default(), id());
        let first = gates.enter(&id).await;
        let mut second = Box::pin(gates.enter(&id));
        assert!(!is_ready(second.as_mut()).await, "the second waits");
        drop(first);
        drop(second.await);
        assert!(gates.0.lock().expect("unpoisoned").is_empty());
    }

    #[tokio::test]
    async fn one_who_stops_waiting_leaves_nothing_behind() {
        let (gates, id) = (Gates::default(), id());
        let first = gates.enter(&id).await;
        let mut second = Box::pin(gates.enter(&id));
        assert!(!is_ready(second.as_mut()).await, "the second waits");
        drop(second);
        drop(first);
        assert!(gates.0.lock().expect("unpoisoned").is_empty());
    }

    async fn is_ready<F: Future>(mut future: Pin<&mut F>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
    }
}
