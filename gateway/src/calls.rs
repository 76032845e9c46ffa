//! The numbered frames of one sandbox: which are being judged, and what was answered to the last.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// What is known of a frame that came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It is new, and under way from now on.
    New,
    /// It came again while its first copy is still being judged: the one answer will serve both.
    Pending,
    /// It came again after it was answered: with this.
    Answered(Arc<str>),
    /// Too many are under way.
    TooMany,
}

/// Frames under way and the last answers.
///
/// A runner has at most `in_flight_max` frames without an answer, and answers arrive in the order in which they were
/// sent. So the answers that a lost link swallowed are among the last `in_flight_max`.
#[derive(Debug)]
pub(crate) struct Calls {
    in_flight_max: usize,
    kept_max: usize,
    kept_bytes_max: usize,
    pending: HashSet<u64>,
    answered: VecDeque<(u64, Arc<str>)>,
    answered_bytes: usize,
}

impl Calls {
    pub(crate) fn new(in_flight_max: usize, kept_max: usize, kept_bytes_max: usize) -> Self {
        Self {
            in_flight_max,
            kept_max,
            kept_bytes_max,
            pending: HashSet::new(),
            answered: VecDeque::new(),
            answered_bytes: 0,
        }
    }

    /// A frame came in.
    pub(crate) fn begin(&mut self, id: u64) -> Begin {
        if self.pending.contains(&id) {
            return Begin::Pending;
        }
        if let Some((_, answer)) = self.answered.iter().find(|(answered, _)| *answered == id) {
            return Begin::Answered(answer.clone());
        }
        if self.pending.len() >= self.in_flight_max {
            return Begin::TooMany;
        }
        self.pending.insert(id);
        Begin::New
    }

    /// A frame was answered.
    pub(crate) fn finish(&mut self, id: u64, answer: Arc<str>) {
        if !self.pending.remove(&id) {
            return;
        }
        self.answered_bytes += answer.len();
        self.answered.push_back((id, answer));
        while self.answered.len() > self.kept_max || self.answered_bytes > self.kept_bytes_max {
            let Some((_, forgotten)) = self.answered.pop_front() else { break };
            self.answered_bytes -= forgotten.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_comes_again_gets_its_first_answer() {
        let mut calls = Calls::new(2, 2, 100);
        assert_eq!(calls.begin(1), Begin::New);
        assert_eq!(calls.begin(1), Begin::Pending);
        calls.finish(1, "one".into());
        assert_eq!(calls.begin(1), Begin::Answered("one".into()));
        assert_eq!(
            (calls.begin(2), calls.begin(3), calls.begin(4)),
            (Begin::New, Begin::New, Begin::TooMany)
        );
    }

    #[test]
    fn only_the_last_answers_are_kept() {
        let mut calls = Calls::new(64, 2, 10);
        for (id, answer) in [(1, "a"), (2, "b"), (3, "c")] {
            calls.begin(id);
            calls.finish(id, answer.into());
        }
        assert_eq!(calls.begin(1), Begin::New);
        assert_eq!(calls.begin(3), Begin::Answered("c".into()));
        calls.begin(4);
        calls.finish(4, "0123456789".into());
        assert_eq!(calls.begin(3), Begin::New, "bytes count too");
        assert_eq!(calls.begin(4), Begin::Answered("0123456789".into()));
    }

    #[test]
    fn an_answer_to_nothing_is_not_kept() {
        let mut calls = Calls::new(1, 1, 10);
        calls.finish(9, "late".into());
        assert_eq!(calls.begin(9), Begin::New);
    }
}
