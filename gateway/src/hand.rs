//! The tasks that one sandbox has in hand, as far as the gateway must know them.

use std::collections::HashMap;

use crate::host::{HeldTask, Origin};

/// What the gateway remembers of a task in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) attempt: u32,
    pub(crate) fence: u64,
    pub(crate) depth: u32,
    pub(crate) context: String,
    pub(crate) traceparent: Option<String>,
    pub(crate) origin: Option<Origin>,
    /// Calls to `task/delegate` that wait, by receiving member.
    delegating: HashMap<String, u32>,
}

/// The tasks in hand, by id.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    tasks: HashMap<String, Held>,
}

impl Hand {
    /// The task is in hand from now on.
    pub(crate) fn take(&mut self, task: HeldTask) {
        let HeldTask { task, attempt, fence, depth, context, traceparent, origin } = task;
        let held = Held { attempt, fence, depth, context, traceparent, origin, delegating: HashMap::new() };
        self.tasks.insert(task.as_str().to_owned(), held);
    }

    /// What is in hand as the platform knows it, after a link was made. Calls that wait stay counted.
    pub(crate) fn adopt(&mut self, held: Vec<HeldTask>) {
        let mut before = std::mem::take(&mut self.tasks);
        for task in held {
            let known = before.remove(task.task.as_str()).filter(|known| known.attempt == task.attempt);
            let name = task.task.clone();
            self.take(task);
            if let (Some(known), Some(held)) = (known, self.tasks.get_mut(name.as_str())) {
                held.delegating = known.delegating;
                held.origin = held.origin.take().or(known.origin);
            }
        }
    }

    /// The attempt is over.
    pub(crate) fn put_down(&mut self, task: &str, fence: u64) {
        if self.tasks.get(task).is_some_and(|held| held.fence == fence) {
            self.tasks.remove(task);
        }
    }

    /// The handler is gone, and all in its hand with it.
    pub(crate) fn clear(&mut self) {
        self.tasks.clear();
    }

    /// The task, if it is in hand.
    pub(crate) fn get(&self, task: &str) -> Option<&Held> {
        self.tasks.get(task)
    }

    /// The ids of the tasks in hand, in order.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let mut tasks: Vec<String> = self.tasks.keys().cloned().collect();
        tasks.sort_unstable();
        tasks
    }

    /// The depth of the deepest task in hand.
    pub(crate) fn depth(&self) -> Option<u32> {
        self.tasks.values().map(|held| held.depth).max()
    }

    /// The only conversation in hand.
    pub(crate) fn context(&self) -> Option<&str> {
        let mut contexts = self.tasks.values().map(|held| held.context.as_str());
        let first = contexts.next()?;
        contexts.all(|context| context == first).then_some(first)
    }

    /// The trace of the task, or of all that is in hand where none is named.
    pub(crate) fn traceparent(&self, task: Option<&str>) -> Option<&str> {
        if let Some(task) = task {
            return self.get(task)?.traceparent.as_deref();
        }
        let mut traces = self.tasks.values().map(|held| held.traceparent.as_deref());
        let first = traces.next()?;
        if traces.all(|trace| trace == first) { first } else { None }
    }

    /// What gave the task, or the only one in hand where none is named.
    pub(crate) fn origin(&self, task: Option<&str>) -> Option<&Origin> {
        let held = match task {
            Some(task) => self.get(task),
            None => self.tasks.values().next().filter(|_| self.tasks.len() == 1),
        };
        held?.origin.as_ref()
    }

    /// A `task/delegate` to `member` begins, unless `fan_out` of them wait already. False: it may not.
    pub(crate) fn delegate(&mut self, task: &str, member: &str, fan_out: u32) -> bool {
        let Some(held) = self.tasks.get_mut(task) else { return false };
        let waiting = held.delegating.entry(member.to_owned()).or_default();
        if *waiting >= fan_out {
            return false;
        }
        *waiting += 1;
        true
    }

    /// A `task/delegate` was answered.
    pub(crate) fn delegated(&mut self, task: &str, member: &str) {
        if let Some(waiting) = self.tasks.get_mut(task).and_then(|held| held.delegating.get_mut(member)) {
            *waiting = waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(task: &str, depth: u32, context: &str) -> HeldTask {
        let task = task.parse().unwrap();
        HeldTask {
            task,
            attempt: 1,
            fence: 1,
            depth,
            context: context.to_owned(),
            traceparent: None,
            origin: None,
        }
    }

    #[test]
    fn depth_and_context_are_those_of_what_is_in_hand() {
        let mut hand = Hand::default();
        assert_eq!((hand.depth(), hand.context()), (None, None));
        hand.take(held("a", 0, "cx"));
        hand.take(held("b", 3, "cx"));
        assert_eq!((hand.depth(), hand.context()), (Some(3), Some("cx")));
        hand.take(held("c", 1, "other"));
        assert_eq!(hand.context(), None, "two conversations are none");
        hand.put_down("b", 2);
        assert_eq!(hand.depth(), Some(3), "that was another fence");
        hand.put_down("b", 1);
        assert_eq!(hand.depth(), Some(1));
    }

    #[test]
    fn a_trace_is_that_of_the_task_or_of_all_in_hand() {
        let traced =
            |task, trace: &str| HeldTask { traceparent: Some(trace.to_owned()), ..held(task, 0, "cx") };
        let mut hand = Hand::default();
        assert_eq!(hand.traceparent(None), None);
        hand.take(traced("a", "one"));
        assert_eq!((hand.traceparent(None), hand.traceparent(Some("b"))), (Some("one"), None));
        hand.take(traced("b", "two"));
        assert_eq!((hand.traceparent(None), hand.traceparent(Some("b"))), (None, Some("two")));
    }

    #[test]
    fn only_so_many_delegations_of_one_task_wait_over_one_channel() {
        let mut hand = Hand::default();
        hand.take(held("a", 0, "cx"));
        assert!(hand.delegate("a", "m", 2) && hand.delegate("a", "m", 2));
        assert!(!hand.delegate("a", "m", 2));
        assert!(hand.delegate("a", "other", 2));
        hand.delegated("a", "m");
        assert!(hand.delegate("a", "m", 2));
        assert!(!hand.delegate("gone", "m", 2));
    }
}
