//! One thing at a time for each sandbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::Id;

type Doors = Arc<Mutex<HashMap<Id, Door>>>;

/// A gate for each sandbox that someone is busy with.
#[derive(Debug, Default)]
pub(crate) struct Gates(Doors);

/// What all who come to one sandbox share.
#[derive(Debug, Default)]
struct Door {
    turn: Arc<Turn<()>>,
    /// How many change it, or wait to.
    changing: usize,
}

/// What one comes to a sandbox for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Change,
    Look,
}

/// The right to be busy with one sandbox, until dropped. It is meant to be held for as long as that takes.
#[derive(Debug)]
pub(crate) struct Gate {
    doors: Doors,
    id: Id,
    purpose: Purpose,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Gates {
    /// Waits for the turn to change the sandbox, first come, first served.
    pub(crate) async fn enter(&self, id: &Id) -> Gate {
        self.enter_for(id, Purpose::Change).await
    }

    /// Waits for the turn, as [`Gates::enter`] does, of one who only looks: nobody makes or removes it meanwhile, and
    /// what is found of it is what it is.
    pub(crate) async fn enter_to_look(&self, id: &Id) -> Gate {
        self.enter_for(id, Purpose::Look).await
    }

    async fn enter_for(&self, id: &Id, purpose: Purpose) -> Gate {
        let turn = {
            let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let door = doors.entry(id.clone()).or_default();
            door.changing += usize::from(purpose == Purpose::Change);
            Arc::clone(&door.turn)
        };
        // Made before waiting, so that one who stops waiting cleans up too.
        let mut gate = Gate { doors: Arc::clone(&self.0), id: id.clone(), purpose, turn: None };
        gate.turn = Some(turn.lock_owned().await);
        gate
    }

    /// Whether someone changes this sandbox, or waits to: it may be made or removed at this moment.
    pub(crate) fn is_changing(&self, id: &Id) -> bool {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.get(id).is_some_and(|door| door.changing > 0)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn = None;
        let Some(door) = doors.get_mut(&self.id) else { return };
        door.changing -= usize::from(self.purpose == Purpose::Change);
        // Under the lock nobody can join, so the one left is the map's own.
        if Arc::strong_count(&door.turn) == 1 {
            doors.remove(&self.id);
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

    #[tokio::test]
    async fn one_who_looks_keeps_others_waiting_and_changes_nothing() {
        let (gates, id) = (Gates::default(), id());
        let looking = gates.enter_to_look(&id).await;
        assert!(!gates.is_changing(&id), "it is only looked at");
        let mut changing = Box::pin(gates.enter(&id));
        assert!(!is_ready(changing.as_mut()).await, "who would change it waits");
        assert!(gates.is_changing(&id), "it is about to be changed");
        drop(looking);
        let changing = changing.await;
        let mut looking = Box::pin(gates.enter_to_look(&id));
        assert!(!is_ready(looking.as_mut()).await, "who would look waits");
        drop(changing);
        assert!(!gates.is_changing(&id), "who waits to look changes nothing");
        drop(looking.await);
        assert!(gates.0.lock().expect("unpoisoned").is_empty());
    }

    async fn is_ready<F: Future>(mut future: Pin<&mut F>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
    }
}
