//! Requests to the handler that wait for their answers.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use link::{Error, rpc::RequestId};
use serde_json::Value;
use tokio::sync::oneshot;

/// Open requests, by their ids, which count up from 1. As many as the core has in hand, which is bounded.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: i64,
    open: HashMap<i64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    is_task: bool,
    answer: oneshot::Sender<Result<Value, Error>>,
}

/// What an answer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The awaited one.
    Once,
    /// One to a request that has its answer.
    Again,
    /// One to a request that was never made.
    Foreign,
}

impl Pending {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new request and where its answer will come.
    pub(super) fn open(&self, is_task: bool) -> (i64, oneshot::Receiver<Result<Value, Error>>) {
        let (answer, receiver) = oneshot::channel();
        let mut inner = self.inner();
        inner.last += 1;
        let id = inner.last;
        inner.open.insert(id, Waiting { is_task, answer });
        (id, receiver)
    }

    pub(super) fn forget(&self, id: i64) {
        self.inner().open.remove(&id);
    }

    /// Gives an answer to whoever waits for it, if they still do.
    pub(super) fn answer(&self, id: Option<&RequestId>, outcome: Result<Value, Error>) -> Answered {
        let Some(RequestId::Number(id)) = id else { return Answered::Foreign };
        let mut inner = self.inner();
        match inner.open.remove(id) {
            Some(waiting) => {
                let _ = waiting.answer.send(outcome);
                Answered::Once
            }
            None if (1..=inner.last).contains(id) => Answered::Again,
            None => Answered::Foreign,
        }
    }

    /// Answers every open task with this error.
    pub(super) fn fail_tasks(&self, error: &Error) {
        for (_, waiting) in self.inner().open.extract_if(|_, waiting| waiting.is_task) {
            let _ = waiting.answer.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_first_answer_counts() {
        let pending = Pending::default();
        let (id, mut receiver) = pending.open(true);
        let id = RequestId::Number(id);
        assert_eq!(pending.answer(Some(&id), Ok(json!(1))), Answered::Once);
        assert_eq!(pending.answer(Some(&id), Ok(json!(2))), Answered::Again);
        assert_eq!(receiver.try_recv().unwrap(), Ok(json!(1)));
        for foreign in
            [Some(RequestId::Number(0)), Some(RequestId::Number(2)), Some(RequestId::Text("1".into())), None]
        {
            assert_eq!(pending.answer(foreign.as_ref(), Ok(json!(3))), Answered::Foreign);
        }
    }

    #[test]
    fn a_line_too_long_fails_tasks_and_nothing_else() {
        let pending = Pending::default();
        let (_, mut task) = pending.open(true);
        let (ping, mut other) = pending.open(false);
        pending.fail_tasks(&link::ErrorType::TooLarge.into());
        assert!(task.try_recv().unwrap().is_err());
        assert!(other.try_recv().is_err());
        assert_eq!(pending.answer(Some(&RequestId::Number(ping)), Ok(json!({}))), Answered::Once);
    }
}
