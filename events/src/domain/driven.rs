//! Entities in tests: driven by commands as their actors drive them, and held to what every decider promises.

use super::{Context, Decider, DomainEvent};
use crate::id::Timestamp;

/// An entity, its whole history, and the clock.
pub(crate) struct Driven<D: Decider> {
    pub(crate) state: D::State,
    pub(crate) history: Vec<D::Event>,
    pub(crate) now_ms: i64,
    seed: u64,
}

impl<D: Decider> Driven<D>
where
    D::State: PartialEq + std::fmt::Debug,
    D::Command: std::fmt::Debug,
    D::Rejection: PartialEq,
{
    pub(crate) fn new() -> Self {
        Self { state: D::State::default(), history: Vec::new(), now_ms: 1_000_000, seed: 0 }
    }

    /// Gives a command; says what was appended. Holds the decider to its promises on the way: a decision depends on
    /// nothing but its arguments, and an event is the same after it was stored.
    pub(crate) fn give(&mut self, command: &D::Command) -> Result<Vec<D::Event>, D::Rejection> {
        self.seed += 1;
        let context = Context { now: Timestamp(self.now_ms * 1_000), seed: self.seed };
        let events = D::decide(&self.state, command, &context);
        assert_eq!(D::decide(&self.state, command, &context), events, "decided twice: {command:?}");
        let events = events?;
        for event in &events {
            let stored = event.encode();
            let read = D::Event::decode(&stored.kind, stored.schema, &stored.payload).expect("its own form");
            assert_eq!(read, *event, "an event changed in the store");
            self.state = D::evolve(std::mem::take(&mut self.state), event);
            self.history.push(event.clone());
        }
        Ok(events)
    }

    /// Whether folding the history from nothing gives the live state, and a snapshot of it too.
    pub(crate) fn assert_folds_the_same(&self) {
        let folded = self.history.iter().fold(D::State::default(), |state, event| D::evolve(state, event));
        assert_eq!(folded, self.state);
        assert_eq!(D::obligations(&folded), D::obligations(&self.state));
        let snapshot = serde_json::to_string(&self.state).expect("states are plain data");
        let read: D::State = serde_json::from_str(&snapshot).expect("its own form");
        assert_eq!(read, self.state, "a state changed in its snapshot");
    }
}
