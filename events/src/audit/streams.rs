//! The versions of all streams, as the events of a log go by.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::event::Recorded;

/// The newest version of every stream. The key is a hash of its name, so that a long log takes little memory.
pub(super) struct Streams {
    versions: HashMap<u64, u64>,
    hasher: RandomState,
    /// Whether the evidence has them from their first events on.
    are_whole: bool,
}

impl Streams {
    pub(super) fn new(are_whole: bool) -> Self {
        Self { versions: HashMap::new(), hasher: RandomState::new(), are_whole }
    }

    /// Goes on by an event; the version that should be there, if it is another one.
    pub(super) fn follow(&mut self, event: &Recorded) -> Option<u64> {
        let found = event.version.0;
        let before = self.versions.insert(self.hasher.hash_one(&event.stream), found);
        let expected = match before {
            Some(before) => before.saturating_add(1),
            None if self.are_whole => 1,
            None => found,
        };
        (found != expected).then_some(expected)
    }

    /// Goes on by an event that is not what was recorded, whatever it says.
    pub(super) fn pass(&mut self, event: &Recorded) {
        let stream = self.hasher.hash_one(&event.stream);
        match self.versions.get_mut(&stream) {
            Some(version) => *version = version.saturating_add(1),
            None if self.are_whole => drop(self.versions.insert(stream, 1)),
            // Where the stream stands is known by the next of its events.
            None => {}
        }
    }
}
