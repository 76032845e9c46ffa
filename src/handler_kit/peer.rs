//! The runner, as the handler sees it: calls that wait for their answers, notifications, answers.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};

use link::rpc::{Line, RequestId};
use link::{Error, ErrorType, limits::LINE_BYTES_MAX};
use serde_json::Value;

use super::lock;

/// One end of the conversation; shared by all threads.
pub(super) struct Peer {
    output: Mutex<Box<dyn Write + Send>>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    last_id: i64,
    /// Whether no more answers can come.
    closed: bool,
    waiting: HashMap<i64, SyncSender<Result<Value, Error>>>,
}

impl Peer {
    pub(super) fn new(output: impl Write + Send + 'static) -> Self {
        Self { output: Mutex::new(Box::new(output)), calls: Mutex::default() }
    }

    /// Calls a method and waits for the answer.
    pub(super) fn call(&self, method: &str, params: Value) -> Result<Value, Error> {
        let (sender, answer) = sync_channel(1);
        let id = {
            let mut calls = lock(&self.calls);
            if calls.closed {
                return Err(gone());
            }
            calls.last_id += 1;
            let id = calls.last_id;
            calls.waiting.insert(id, sender);
            id
        };
        let line = Line::Request { id: RequestId::Number(id), method: method.to_owned(), params };
        if let Err(error) = self.write(&line) {
            lock(&self.calls).waiting.remove(&id);
            return Err(error);
        }
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Sends a notification; one that cannot be sent is lost, as any may be.
    pub(super) fn notify(&self, method: &str, params: Value) {
        let line = Line::Notification { method: method.to_owned(), params };
        if let Err(error) = self.write(&line) {
            crate::output::remark(format_args!("failed to notify of `{method}`: {error}"));
        }
    }

    /// Answers a request; without an id, a line that could not be read.
    pub(super) fn respond(&self, id: Option<RequestId>, outcome: Result<Value, Error>) {
        let line = Line::Response { id: id.clone(), outcome };
        if let Err(error) = self.write(&line) {
            // An answer that is too long is replaced by the reason, so that the request does not wait for ever.
            crate::output::remark(format_args!("failed to answer: {error}"));
            if error.kind == Some(ErrorType::TooLarge) {
                let _ = self.write(&Line::Response { id, outcome: Err(error) });
            }
        }
    }

    /// Hands an answer to the call that waits for it. A second answer, or one to no call, is ignored.
    pub(super) fn answered(&self, id: Option<&RequestId>, outcome: Result<Value, Error>) {
        let waiting = match id {
            Some(RequestId::Number(id)) => lock(&self.calls).waiting.remove(id),
            _ => None,
        };
        match (waiting, outcome) {
            // The channel has room for the one answer.
            (Some(waiting), outcome) => drop(waiting.send(outcome)),
            (None, Err(error)) => {
                crate::output::remark(format_args!("no call waits for this answer of the runner: {error}"))
            }
            (None, Ok(_)) => {}
        }
    }

    /// Ends all calls that wait, and all later ones, with an error.
    pub(super) fn close(&self) {
        let mut calls = lock(&self.calls);
        calls.closed = true;
        calls.waiting.clear();
    }

    fn write(&self, line: &Line) -> Result<(), Error> {
        let mut text = line.to_json().to_string();
        if text.len() > LINE_BYTES_MAX {
            let message = format!("a line of {} bytes: at most {LINE_BYTES_MAX} fit", text.len());
            return Err(Error::new(ErrorType::TooLarge, message));
        }
        text.push('\n');
        let mut output = lock(&self.output);
        let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        written.map_err(|error| {
            Error::new(ErrorType::Unavailable, format_args!("the runner does not read: {error}"))
        })
    }
}

fn gone() -> Error {
    Error::new(ErrorType::Unavailable, "the runner is gone")
}
