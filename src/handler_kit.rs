//! A kit for handlers written in Rust: the handler protocol on stdio, with blocking calls and threads.
//!
//! A handler implements [`Handler`]; [`serve`] speaks the protocol for it. Every task runs on a thread of its own and
//! may start more; all of them call the platform through the [`Task`] at the same time. A line that is malformed, half
//! written or too long is answered or skipped, never fatal; a handler that panics fails its task alone.

mod lines;
mod peer;
mod task;

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use link::handler::{Cancel, Deliver, Execute, Executed, HandlerInfo, State, method};
use link::rpc::{Line, Parsed, RequestId};
use link::{Error, ErrorType, Id, limits::LINE_BYTES_MAX};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use lines::{Lines, Read};
use peer::Peer;
use task::Canceled;
pub use task::Task;
pub(crate) use task::storage;

/// What an agent does.
pub trait Handler: Send + Sync + 'static {
    /// What it says of itself at the start.
    fn info(&self) -> HandlerInfo {
        HandlerInfo { ping: true, ..HandlerInfo::default() }
    }

    /// Does a task. An error of kind `canceled` ends it as canceled; of any other, `data.retry` says whether trying
    /// again may help.
    ///
    /// # Errors
    /// Whatever kept the task from being done.
    fn execute(&self, task: &Task) -> Result<Executed, Error>;

    /// Takes a message; returning acknowledges it. Handlers that take none leave this as it is.
    ///
    /// # Errors
    /// Whatever kept the message from being taken: it is delivered again.
    fn deliver(&self, message: &Deliver) -> Result<(), Error> {
        Err(Error::new(
            ErrorType::MethodNotFound,
            format_args!("no use for message `{}`", message.message_id),
        ))
    }
}

/// Serves a handler on this process's standard input and output until the input ends.
pub fn serve_stdio(handler: impl Handler) -> ExitCode {
    match serve(handler, io::stdin().lock(), io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::output::remark(format_args!("failed to read from the runner: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves a handler until `input` ends; then tasks in hand are cancelled and waited for.
///
/// # Errors
/// If `input` cannot be read. A failing `output` fails the calls that need it.
pub fn serve(
    handler: impl Handler,
    input: impl BufRead,
    output: impl Write + Send + 'static,
) -> io::Result<()> {
    let mut server =
        Server { handler: Arc::new(handler), peer: Arc::new(Peer::new(output)), running: HashMap::new() };
    let mut lines = Lines::new(input, LINE_BYTES_MAX);
    let outcome = loop {
        match lines.next() {
            Ok(Some(Read::Line(line))) => server.take(link::rpc::parse(line)),
            Ok(Some(Read::TooLong)) => {
                let message = format!("a line of more than {LINE_BYTES_MAX} bytes");
                server.peer.respond(None, Err(Error::new(ErrorType::TooLarge, message)));
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    server.end();
    outcome
}

/// A task in hand.
struct Running {
    canceled: Arc<Canceled>,
    /// Whether its outcome is known, so that it does not count against the concurrency.
    has_ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Server<H> {
    handler: Arc<H>,
    peer: Arc<Peer>,
    running: HashMap<Id, Running>,
}

impl<H: Handler> Server<H> {
    fn take(&mut self, parsed: Parsed) {
        match parsed {
            Parsed::Line(Line::Request { id, method, params }) => self.request(id, &method, params),
            Parsed::Line(Line::Notification { method, params }) => self.notification(&method, params),
            Parsed::Line(Line::Response { id, outcome }) => self.peer.answered(id.as_ref(), outcome),
            Parsed::BadCall(id, error) => self.peer.respond(id, Err(error)),
            Parsed::BadAnswer(id, error) => self.peer.answered(id.as_ref(), Err(error)),
            // What is no line of the protocol has nobody to answer to.
            Parsed::Noise => {}
        }
    }

    fn request(&mut self, id: RequestId, name: &str, params: Value) {
        let outcome = match name {
            method::INITIALIZE => Ok(json!(self.handler.info())),
            method::EXECUTE => match self.execute(&id, params) {
                // The task's thread answers.
                Ok(()) => return,
                Err(error) => Err(error),
            },
            method::DELIVER => read(name, params).and_then(|message: Deliver| {
                let taken = catch_unwind(AssertUnwindSafe(|| self.handler.deliver(&message)));
                taken.unwrap_or_else(|_| Err(panicked())).map(|()| json!({}))
            }),
            method::PING => Ok(json!({})),
            method::SHUTDOWN => {
                self.running.values().for_each(|running| running.canceled.set());
                Ok(json!({}))
            }
            _ => Err(Error::new(ErrorType::MethodNotFound, format_args!("no method `{name}`"))),
        };
        self.peer.respond(Some(id), outcome);
    }

    fn notification(&self, name: &str, params: Value) {
        if name == method::CANCEL
            && let Ok(cancel) = read::<Cancel>(name, params)
            && let Some(running) = self.running.get(&cancel.task_id)
        {
            running.canceled.set();
        }
    }

    fn execute(&mut self, id: &RequestId, params: Value) -> Result<(), Error> {
        let params: Execute = read(method::EXECUTE, params)?;
        self.running.retain(|_, running| !running.has_ended.load(Ordering::Acquire));
        let most = self.handler.info().concurrency.max(1) as usize;
        if self.running.len() >= most || self.running.contains_key(&params.task_id) {
            let message = format!("has {} in hand and takes no more", self.running.len());
            return Err(Error::new(ErrorType::Unavailable, message));
        }
        let task_id = params.task_id.clone();
        let canceled = Arc::new(Canceled::default());
        let task = Task::new(params, Arc::clone(&self.peer), Arc::clone(&canceled));
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&has_ended);
        let (handler, peer, id) = (Arc::clone(&self.handler), Arc::clone(&self.peer), id.clone());
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| handler.execute(&task)));
            // Before the answer: the runner may send the next task at once.
            ended.store(true, Ordering::Release);
            peer.respond(Some(id), result(outcome.unwrap_or_else(|_| Err(panicked()))));
        };
        let thread = thread::Builder::new().name("task".to_owned()).spawn(work);
        let thread =
            thread.map_err(|error| Error::new(ErrorType::Unavailable, format_args!("no thread: {error}")))?;
        self.running.insert(task_id, Running { canceled, has_ended, thread });
        Ok(())
    }

    fn end(self) {
        self.running.values().for_each(|running| running.canceled.set());
        self.peer.close();
        for running in self.running.into_values() {
            // A task's panic has been caught and answered; there is nothing more to learn from the thread.
            let _ = running.thread.join();
        }
    }
}

/// The answer to `task/execute`.
fn result(outcome: Result<Executed, Error>) -> Result<Value, Error> {
    match outcome {
        Ok(executed) => Ok(json!(executed)),
        Err(error) if error.kind == Some(ErrorType::Canceled) => {
            Ok(json!(Executed::ended(State::Canceled, error.message)))
        }
        Err(error) => Err(error),
    }
}

fn panicked() -> Error {
    Error::new(ErrorType::HandlerFailed, "the handler panicked; its log has the message")
}

fn read<T: DeserializeOwned>(method: &str, params: Value) -> Result<T, Error> {
    link::params(&format!("the params of `{method}`"), params)
}

/// Locks a mutex whose data stays whole even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
