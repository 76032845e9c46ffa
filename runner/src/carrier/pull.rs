//! A handler with a loop of its own, which fetches its work over HTTP.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use link::{
    Error, ErrorType, HandlerInfo, Id, Messages,
    handler::{Cancel, Deliver, Execute, Executed, Shutdown},
    limits::NEXT_WAIT_MS_MAX,
};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Carrier, Failure, LAST_WORDS_MS_MAX, Launch, Started, TERM_MS_MAX, ended_early, ms_since, not_spawned,
    too_slow,
};
use crate::{
    child::Child,
    event::Event,
    log::{Log, Words},
};

/// A handler that calls `next`.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(super) child: Child,
    state: Mutex<State>,
    /// Wakes a `next` that waits.
    changed: Notify,
    /// Wakes whoever waits for the first `next`.
    asked: Notify,
    concurrency: usize,
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Bounded by what the core gives out.
#[derive(Debug, Default)]
struct State {
    ready: bool,
    waiting_tasks: VecDeque<(Value, Id)>,
    waiting_messages: VecDeque<(Value, Id)>,
    /// Results that are awaited, in the order in which the handler took the tasks.
    held: VecDeque<Id>,
    results: HashMap<Id, Reply<Executed>>,
    acks: HashMap<Id, Reply<()>>,
    shutdown: Option<Value>,
}

/// Kinds of work that a `next` may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Work {
    Task,
    Message,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Next {
    #[serde(default)]
    wait_ms: u64,
    #[serde(default = "any_work")]
    accept: Vec<Work>,
}

fn any_work() -> Vec<Work> {
    vec![Work::Task, Work::Message]
}

/// What a handler's own words about a failure come to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Failed {
    message: String,
    #[serde(default)]
    retry: Option<link::Retry>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    code: Option<i32>,
}

/// A process that is up.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(super) pull: Arc<Pull>,
    pub(super) launch: Launch,
    copying: JoinHandle<()>,
    spawn_ms: u64,
}

/// Starts the process.
pub(super) fn spawn(launch: Launch) -> Result<Spawned, Failure> {
    let begun = Instant::now();
    let (child, pipes) = Child::spawn(&launch.program, &launch.log, &launch.family)
        .map_err(|error| not_spawned(&launch.program, &error))?;
    let spawn_ms = ms_since(begun);
    drop(pipes.stdin);
    let copying = tokio::spawn(copy(launch.log.clone(), pipes.stdout));
    let pull = Arc::new(Pull {
        child,
        state: Mutex::default(),
        changed: Notify::new(),
        asked: Notify::new(),
        concurrency: launch.spec.concurrency() as usize,
    });
    // From now on the local API finds the carrier, and `next` can come.
    launch.platform.offer_pull(pull.clone());
    Ok(Spawned { pull, launch, copying, spawn_ms })
}

impl Spawned {
    /// Waits for the first `next`.
    pub(super) async fn asked(self, deadline: Instant) -> Result<Started, Failure> {
        let Self { pull, launch, copying, spawn_ms } = self;
        let begun = Instant::now();
        tokio::select! {
            first = timeout_at(deadline, pull.asked.notified()) => if first.is_err() {
                pull.child.signal(Signal::SIGKILL);
                return Err(too_slow(&launch.spec, "call `next`", &launch.log));
            },
            exit = pull.child.ended() => {
                let _ = timeout(Duration::from_millis(LAST_WORDS_MS_MAX), copying).await;
                return Err(ended_early(exit, &launch.log));
            }
        }
        let (watched, platform) = (pull.clone(), launch.platform);
        tokio::spawn(async move {
            let exit = watched.child.ended().await;
            if watched.state().shutdown.is_none() {
                platform.tell(Event::Exited(exit)).await;
            }
        });
        let concurrency = launch.spec.concurrency();
        let info = HandlerInfo { concurrency, messages: Messages::Always, ..HandlerInfo::default() };
        Ok(Started { carrier: pull, info, spawn_ms, initialize_ms: ms_since(begun) })
    }
}

async fn copy(log: Log, stdout: tokio::process::ChildStdout) {
    log.copy(stdout, Words::default()).await;
}

impl Pull {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `next` of the handler: waits for work that it accepts.
    pub(crate) async fn next(&self, params: Value) -> Result<Value, Error> {
        let next: Next = link::params("the params of `next`", params)?;
        let until = Instant::now() + Duration::from_millis(next.wait_ms.min(NEXT_WAIT_MS_MAX));
        self.begin(next.accept.contains(&Work::Task));
        loop {
            let changed = self.changed.notified();
            if let Some(work) = self.take(&next.accept) {
                return Ok(work);
            }
            if timeout_at(until, changed).await.is_err() {
                return Ok(self.take(&next.accept).unwrap_or_else(|| json!({"type": "none"})));
            }
        }
    }

    /// A loop that asks for a task although its hands are full has lost one: it must not look like work.
    fn begin(&self, accepts_tasks: bool) {
        let mut state = self.state();
        state.ready = true;
        self.asked.notify_one();
        if accepts_tasks && state.held.len() >= self.concurrency {
            let message = "the handler asked for another task without a result of this one";
            if let Some(waiting) = state.held.pop_front().and_then(|task| state.results.remove(&task)) {
                let _ = waiting.send(Err(Error::new(ErrorType::Abandoned, message)));
            }
        }
    }

    fn take(&self, accept: &[Work]) -> Option<Value> {
        let mut state = self.state();
        if let Some(shutdown) = &state.shutdown {
            return Some(shutdown.clone());
        }
        if accept.contains(&Work::Message)
            && let Some((message, _)) = state.waiting_messages.pop_front()
        {
            return Some(message);
        }
        if accept.contains(&Work::Task)
            && let Some((task, id)) = state.waiting_tasks.pop_front()
        {
            state.held.push_back(id);
            return Some(task);
        }
        None
    }

    /// The `task/result` of the handler.
    pub(crate) fn result(&self, params: Value) -> Result<Value, Error> {
        let Value::Object(mut fields) = params else { return Err(no_object("task/result")) };
        let task: Id =
            link::params("the `taskId` of `task/result`", fields.remove("taskId").unwrap_or_default())?;
        let outcome = match fields.remove("error") {
            None => Executed::parse(fields.into())?,
            Some(error) => return self.end(&task, Err(failure(error)?)),
        };
        self.end(&task, Ok(outcome))
    }

    fn end(&self, task: &Id, outcome: Result<Executed, Error>) -> Result<Value, Error> {
        let mut state = self.state();
        state.held.retain(|held| held != task);
        let waiting = state.results.remove(task).filter(|waiting| !waiting.is_closed());
        let fenced = || {
            Error::new(ErrorType::Fenced, format_args!("the task `{task}` is not in this handler's hands"))
        };
        waiting.ok_or_else(fenced)?.send(outcome).map_err(|_| fenced())?;
        Ok(json!({}))
    }

    /// The `message/ack` of the handler.
    pub(crate) fn ack(&self, params: Value) -> Result<Value, Error> {
        let Value::Object(mut fields) = params else { return Err(no_object("message/ack")) };
        let message: Id =
            link::params("the `messageId` of `message/ack`", fields.remove("messageId").unwrap_or_default())?;
        let unknown = || {
            Error::new(
                ErrorType::Fenced,
                format_args!("the message `{message}` was not delivered or is taken"),
            )
        };
        let waiting = self.state().acks.remove(&message).ok_or_else(unknown)?;
        waiting.send(Ok(())).map_err(|_| unknown())?;
        Ok(json!({}))
    }
}

fn no_object(method: &str) -> Error {
    Error::new(ErrorType::InvalidParams, format_args!("the params of `{method}` are a JSON object"))
}

fn failure(error: Value) -> Result<Error, Error> {
    let failed: Failed = link::params("the `error` of `task/result`", error)?;
    let mut error = Error::new(ErrorType::HandlerFailed, failed.message);
    if let Some(code) = failed.code {
        error = Error { code, kind: None, ..error };
    }
    if let Some(retry) = failed.retry {
        error = error.with("retry", json!(retry));
    }
    if let Some(retry_after_ms) = failed.retry_after_ms {
        error = error.with("retryAfterMs", retry_after_ms);
    }
    Ok(error)
}

/// The params of a method with the kind of work that they are.
fn work(kind: &str, params: impl serde::Serialize) -> Result<Value, Error> {
    let mut work = serde_json::to_value(params).map_err(|error| Error::new(ErrorType::Internal, error))?;
    work["type"] = kind.into();
    Ok(work)
}

#[async_trait]
impl Carrier for Pull {
    async fn execute(&self, task: &Execute) -> Result<Executed, Error> {
        let (answer, result) = oneshot::channel();
        {
            let mut state = self.state();
            state.results.insert(task.task_id.clone(), answer);
            state.waiting_tasks.push_back((work("task", task)?, task.task_id.clone()));
        }
        self.changed.notify_waiters();
        match result.await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }

    async fn deliver(&self, message: &Deliver) -> Result<(), Error> {
        let (answer, ack) = oneshot::channel();
        {
            let mut state = self.state();
            state.waiting_messages.retain(|(_, id)| *id != message.message_id);
            state.acks.insert(message.message_id.clone(), answer);
            state.waiting_messages.push_back((work("message", message)?, message.message_id.clone()));
        }
        self.changed.notify_waiters();
        match ack.await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }

    /// The handler learns of it from the calls that it makes for the task: they end with 499.
    async fn cancel(&self, cancel: &Cancel) {
        let mut state = self.state();
        if let Some(index) = state.waiting_tasks.iter().position(|(_, id)| *id == cancel.task_id) {
            state.waiting_tasks.remove(index);
            if let Some(waiting) = state.results.remove(&cancel.task_id) {
                let _ = waiting.send(Err(ErrorType::Canceled.into()));
            }
        }
    }

    async fn shutdown(&self, shutdown: &Shutdown) {
        let over = Instant::now() + Duration::from_millis(shutdown.grace_ms);
        let work = work("shutdown", shutdown).unwrap_or_else(|_| json!({"type": "shutdown"}));
        self.state().shutdown = Some(work);
        self.changed.notify_waiters();
        if timeout_at(over, self.child.ended()).await.is_err() {
            self.child.terminate(Duration::from_millis(TERM_MS_MAX.min(shutdown.grace_ms))).await;
        }
    }

    fn kill(&self, _task: &Id) {
        self.child.signal(Signal::SIGKILL);
    }

    fn pid(&self) -> Option<i32> {
        Some(self.child.pid())
    }
}
