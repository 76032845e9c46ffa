//! Bounded admission in front of mailboxes, which ractor leaves unbounded.
//!
//! Each entity's mailbox has a [`Gate`]. What passes it is [`Admitted`] and carries its places with it, through the
//! mailbox and the handler: they are free again when it is dropped, also where the mailbox dies with it inside.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use events::api::{Problem, ProblemKind};

/// How much may be under way at once, waiting or being handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one entity.
    pub entity_messages_max: u32,
    /// For all entities of this node together.
    pub node_messages_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entity_messages_max: 1_000, node_messages_max: 100_000 }
    }
}

/// The places of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Limits,
    node: Arc<Semaphore>,
}

impl Admission {
    /// All places free.
    pub fn new(limits: Limits) -> Self {
        Self { limits, node: places(limits.node_messages_max) }
    }

    /// A gate for a new mailbox.
    pub fn gate(&self) -> Gate {
        let entity_messages_max = self.limits.entity_messages_max;
        Gate { entity_messages_max, entity: places(entity_messages_max), node: self.node.clone() }
    }
}

fn places(max: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(max as usize))
}

/// The way into one entity's mailbox. Cheap to clone; all clones share its places.
#[derive(Clone, Debug)]
pub struct Gate {
    entity_messages_max: u32,
    entity: Arc<Semaphore>,
    node: Arc<Semaphore>,
}

impl Gate {
    /// Gives a payload its places, or gives it back. Never waits.
    pub fn admit<T>(&self, payload: T) -> Result<Admitted<T>, Refused<T>> {
        let entity = match self.entity.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(TryAcquireError::NoPermits) => return Err(Refused::Full(payload)),
            Err(TryAcquireError::Closed) => return Err(Refused::Closed(payload)),
        };
        match self.node.clone().try_acquire_owned() {
            Ok(node) => Ok(Admitted { payload, places: Places { _entity: entity, _node: node } }),
            Err(_) => Err(Refused::Overloaded(payload)),
        }
    }

    /// Lets nothing more in. What was admitted keeps its places.
    pub fn close(&self) {
        self.entity.close();
    }

    /// Lets nothing more in if nothing is under way, so that an idle entity can be passivated without losing a message.
    /// False: something is, and the gate stays open.
    pub fn close_if_idle(&self) -> bool {
        // With all places in hand nobody else has one, and nobody gets one before the gate is closed.
        let all = self.entity.try_acquire_many(self.entity_messages_max);
        if all.is_ok() {
            self.entity.close();
        }
        all.is_ok()
    }
}

/// A payload with its places.
#[derive(Debug)]
pub struct Admitted<T> {
    payload: T,
    places: Places,
}

impl<T> Admitted<T> {
    /// The payload, and the places to hold on to until it has been handled.
    pub fn into_parts(self) -> (T, Places) {
        (self.payload, self.places)
    }

    /// The same places for what the payload has become, such as an actor's message made of it.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Admitted<U> {
        Admitted { payload: into(self.payload), places: self.places }
    }
}

/// The places of one message; dropped, they are free.
#[derive(Debug)]
pub struct Places {
    _entity: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

/// Why a payload was not admitted, with the payload. All may be tried again.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused<T> {
    /// The entity has too much to do.
    #[error("take this in: too much waits for the same entity; try again in a moment")]
    Full(T),
    /// The node has too much to do.
    #[error("take this in: too much waits on this node; try again in a moment")]
    Overloaded(T),
    /// The entity is being passivated or stopped; asked for again, it is started again.
    #[error("take this in: the entity is being put to rest; try again")]
    Closed(T),
}

impl<T> Refused<T> {
    /// What was to be admitted.
    pub fn into_payload(self) -> T {
        match self {
            Self::Full(payload) | Self::Overloaded(payload) | Self::Closed(payload) => payload,
        }
    }
}

/// Payloads may be large, and secret.
impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Overloaded(_) => "Overloaded",
            Self::Closed(_) => "Closed",
        })
    }
}

impl<T> From<Refused<T>> for Problem {
    fn from(refused: Refused<T>) -> Self {
        let kind = match refused {
            Refused::Full(_) | Refused::Overloaded(_) => ProblemKind::Busy,
            Refused::Closed(_) => ProblemKind::Unavailable,
        };
        Self::new(kind, format!("failed to {refused}"))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use ractor::{Actor, ActorProcessingErr, ActorRef};

    use super::*;

    fn admission(entity_messages_max: u32, node_messages_max: u32) -> Admission {
        Admission::new(Limits { entity_messages_max, node_messages_max })
    }

    #[test]
    fn a_full_entity_gives_the_payload_back_and_holds_up_no_other() {
        let admission = admission(2, 10);
        let (busy, other) = (admission.gate(), admission.gate());
        let first = busy.admit("first").expect("a place is free");
        let _second = busy.clone().admit("second").expect("a place is free");
        let refused = busy.admit("third").expect_err("no place is free");
        assert!(matches!(&refused, Refused::Full("third")));
        assert!(Problem::from(refused).kind.is_retryable());
        assert!(other.admit("elsewhere").is_ok());
        let (payload, places) = first.into_parts();
        assert_eq!(payload, "first");
        assert!(busy.admit("third").is_err(), "a message being handled keeps its place");
        drop(places);
        assert!(busy.admit("third").is_ok());
    }

    #[test]
    fn a_full_node_refuses_and_takes_no_place_of_the_entity() {
        let admission = admission(1, 1);
        let (one, other) = (admission.gate(), admission.gate());
        let held = one.admit(1).expect("a place is free");
        let refused = other.admit(2).expect_err("the node is full");
        assert!(matches!(refused, Refused::Overloaded(2)));
        assert_eq!(refused.into_payload(), 2);
        drop(held);
        assert!(other.admit(2).is_ok());
    }

    #[test]
    fn a_gate_closes_only_when_nothing_is_under_way() {
        let gate = admission(3, 3).gate();
        let held = gate.admit(1).expect("a place is free").map(|number| number + 1);
        assert!(!gate.close_if_idle());
        let also = gate.admit(2).expect("the gate is still open");
        drop((held, also));
        assert!(gate.close_if_idle());
        let refused = gate.admit(3).expect_err("the gate is closed");
        assert!(matches!(&refused, Refused::Closed(3)));
        assert!(Problem::from(refused).kind.is_retryable());
    }

    #[test]
    fn a_gate_can_be_closed_under_way() {
        let gate = admission(3, 3).gate();
        let _held = gate.admit(1).expect("a place is free");
        gate.close();
        assert!(matches!(gate.admit(2), Err(Refused::Closed(2))));
    }

    #[test]
    fn no_more_than_the_places_are_ever_taken_and_none_is_lost() {
        let (entity_messages_max, node_messages_max) = (3, 5);
        let admission = admission(entity_messages_max, node_messages_max);
        let (under_way, most, barrier) = (AtomicU32::new(0), AtomicU32::new(0), Barrier::new(8));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let gates = [admission.gate(), admission.gate()];
                    barrier.wait();
                    for round in 0..2_000 {
                        if let Ok(held) = gates[round % 2].admit(round) {
                            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            thread::yield_now();
                            under_way.fetch_sub(1, Ordering::SeqCst);
                            drop(held);
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= node_messages_max);
        let gates = [admission.gate(), admission.gate()];
        let all: Vec<_> = (0..5).map(|number| gates[number / 3].admit(number)).collect();
        assert!(all.iter().all(Result::is_ok), "all places came back");
    }

    struct Frozen;

    #[ractor::async_trait]
    impl Actor for Frozen {
        type Msg = Admitted<u8>;
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<Admitted<u8>>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(
            &self,
            _: ActorRef<Admitted<u8>>,
            _held: Admitted<u8>,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            pending().await
        }
    }

    #[tokio::test]
    async fn a_mailbox_that_dies_frees_the_places_of_what_was_in_it() {
        let gate = admission(4, 4).gate();
        let (actor, ended) = Actor::spawn(None, Frozen, ()).await.expect("it starts");
        for number in 0..4 {
            actor.cast(gate.admit(number).expect("a place is free")).expect("it runs");
        }
        assert!(matches!(gate.admit(4), Err(Refused::Full(4))));
        actor.kill();
        ended.await.expect("it ends");
        assert!(gate.close_if_idle(), "all places came back");
    }
}
