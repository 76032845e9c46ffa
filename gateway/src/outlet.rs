//! What waits to be sent to one runner, and how much of it is welcome.

use std::collections::VecDeque;
use std::sync::Arc;

use link::{Credit, TaskRef};

use crate::host::HeldTask;

/// Attempts that are remembered to have ended. Each has to be for as long as somebody who took it for running may still
/// send it.
const ENDED_MAX: usize = 256;

/// Nothing more fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Whether a frame is still worth sending over the next link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is: a command of the platform.
    Yes,
    /// It is not: an answer, which the runner asks for again.
    No,
}

/// A frame that goes out now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Out {
    /// The assignment.
    Assign(Arc<str>),
    /// A task, in hand from now on.
    Task(HeldTask, Arc<str>),
    /// Anything else.
    Frame(Arc<str>),
}

/// The frames for one runner. Tasks and messages go out only against credit; the rest goes at once.
#[derive(Debug)]
pub(crate) struct Outlet {
    frames_max: usize,
    tasks_max: usize,
    assign: Option<Arc<str>>,
    frames: VecDeque<(Arc<str>, Keep)>,
    tasks: VecDeque<(HeldTask, Arc<str>)>,
    /// Each with its fence.
    ended: VecDeque<(TaskRef, u64)>,
    credit: Credit,
}

impl Outlet {
    pub(crate) fn new(frames_max: usize, tasks_max: usize) -> Self {
        Self {
            frames_max,
            tasks_max,
            assign: None,
            frames: VecDeque::new(),
            tasks: VecDeque::new(),
            ended: VecDeque::new(),
            credit: Credit::default(),
        }
    }

    /// The assignment, which goes before all else. A later one replaces one that was not sent.
    pub(crate) fn assign(&mut self, frame: Arc<str>) {
        self.assign = Some(frame);
    }

    /// A frame that needs no credit.
    pub(crate) fn push(&mut self, frame: Arc<str>, keep: Keep) -> Result<(), Full> {
        if self.frames.len() >= self.frames_max {
            return Err(Full);
        }
        self.frames.push_back((frame, keep));
        Ok(())
    }

    /// A task. The same attempt is held once, and not once it has ended.
    pub(crate) fn hold(&mut self, task: HeldTask, frame: Arc<str>) -> Result<(), Full> {
        let is_this = |held: &HeldTask| held.task == task.task && held.fence == task.fence;
        let has_ended = |(ended, fence): &(TaskRef, u64)| {
            ended.task_id.as_str() == task.task.as_str() && *fence == task.fence
        };
        if self.tasks.iter().any(|(held, _)| is_this(held)) || self.ended.iter().any(has_ended) {
            return Ok(());
        }
        if self.tasks.len() >= self.tasks_max {
            return Err(Full);
        }
        self.tasks.push_back((task, frame));
        Ok(())
    }

    /// Takes back a task that was not sent yet. False: it was, or was never here.
    pub(crate) fn withdraw(&mut self, task: &TaskRef) -> bool {
        let before = self.tasks.len();
        self.tasks
            .retain(|(held, _)| held.task.as_str() != task.task_id.as_str() || held.attempt != task.attempt);
        self.tasks.len() < before
    }

    /// The attempt's result has come, perhaps from before the platform was started anew, which then sends the attempt
    /// again: it would be worked at once more.
    pub(crate) fn end(&mut self, task: TaskRef, fence: u64) {
        self.tasks.retain(|(held, _)| held.task.as_str() != task.task_id.as_str() || held.fence != fence);
        let ended = (task, fence);
        if self.ended.contains(&ended) {
            return;
        }
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
    }

    /// How much is welcome from now on.
    pub(crate) fn set_credit(&mut self, credit: Credit) {
        self.credit = credit;
    }

    /// The next frame that may go, messages aside.
    pub(crate) fn next(&mut self) -> Option<Out> {
        if let Some(assign) = self.assign.take() {
            return Some(Out::Assign(assign));
        }
        if let Some((frame, _)) = self.frames.pop_front() {
            return Some(Out::Frame(frame));
        }
        if self.credit.tasks == 0 {
            return None;
        }
        let (task, frame) = self.tasks.pop_front()?;
        self.credit.tasks -= 1;
        Some(Out::Task(task, frame))
    }

    /// Whether a message is welcome.
    pub(crate) fn takes_message(&self) -> bool {
        self.credit.messages > 0
    }

    /// A message goes out.
    pub(crate) fn message_sent(&mut self) {
        self.credit.messages = self.credit.messages.saturating_sub(1);
    }

    /// The link is gone: answers are asked for again, and credit is given anew.
    pub(crate) fn link_lost(&mut self) {
        self.frames.retain(|(_, keep)| *keep == Keep::Yes);
        self.credit = Credit::default();
    }

    /// How many frames wait.
    pub(crate) fn waiting(&self) -> usize {
        self.frames.len() + self.tasks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> HeldTask {
        let task = name.parse().unwrap();
        let context = "cx".to_owned();
        HeldTask { task, attempt: 1, fence: 1, depth: 0, context, traceparent: None, origin: None }
    }

    fn of(name: &str) -> TaskRef {
        TaskRef { task_id: name.parse().unwrap(), attempt: 1 }
    }

    fn frame(text: &str) -> Option<Out> {
        Some(Out::Frame(text.into()))
    }

    fn credit(tasks: u32) -> Credit {
        Credit { tasks, messages: 0 }
    }

    #[test]
    fn an_attempt_that_has_ended_is_not_sent_whether_it_was_held_before_or_comes_late() {
        let mut outlet = Outlet::new(4, 2);
        outlet.hold(task("tk_1"), "one".into()).unwrap();
        outlet.end(of("tk_1"), 1);
        outlet.hold(task("tk_1"), "one".into()).unwrap();
        outlet.set_credit(credit(1));
        assert_eq!(outlet.next(), None);
        // It waited for answers, and goes on with them.
        let next = HeldTask { fence: 2, ..task("tk_1") };
        outlet.hold(next.clone(), "two".into()).unwrap();
        outlet.end(of("tk_1"), 1);
        assert_eq!(outlet.next(), Some(Out::Task(next, "two".into())));
    }

    #[test]
    fn tasks_go_only_against_credit_and_once() {
        let mut outlet = Outlet::new(4, 2);
        outlet.hold(task("a"), "a".into()).unwrap();
        outlet.hold(task("a"), "a".into()).unwrap();
        outlet.hold(task("b"), "b".into()).unwrap();
        assert_eq!(outlet.hold(task("c"), "c".into()), Err(Full));
        assert_eq!(outlet.next(), None);
        outlet.set_credit(credit(1));
        assert_eq!(outlet.next(), Some(Out::Task(task("a"), "a".into())));
        assert_eq!(outlet.next(), None, "the credit is used up");
        assert!(!outlet.withdraw(&of("a")), "it is out");
        assert!(outlet.withdraw(&of("b")));
        outlet.set_credit(credit(9));
        assert_eq!(outlet.next(), None);
    }

    #[test]
    fn the_assignment_goes_first_and_answers_do_not_outlive_a_link() {
        let mut outlet = Outlet::new(2, 2);
        outlet.push("reply".into(), Keep::No).unwrap();
        outlet.push("cancel".into(), Keep::Yes).unwrap();
        assert_eq!(outlet.push("more".into(), Keep::No), Err(Full));
        outlet.set_credit(credit(3));
        outlet.assign("assign".into());
        assert_eq!(outlet.next(), Some(Out::Assign("assign".into())));
        outlet.link_lost();
        outlet.hold(task("a"), "a".into()).unwrap();
        assert_eq!(outlet.next(), frame("cancel"));
        assert_eq!(outlet.next(), None, "credit ends with its link");
    }
}
