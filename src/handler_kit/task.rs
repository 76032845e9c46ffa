//! A task in hand, and what it may ask of the platform.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use link::handler::Execute;
use link::{
    Address, ArtifactGet, ArtifactGot, ArtifactPut, ArtifactStored, ArtifactUrl, Checkpoint, Checkpointed,
    Child, Content, Delegate, Error, ErrorType, Id, Log, LogLevel, MessageSend, MessageSent, Progress,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{lock, peer::Peer};

/// Whether a task has been cancelled.
#[derive(Debug, Default)]
pub(super) struct Canceled {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Canceled {
    pub(super) fn set(&self) {
        *lock(&self.is_set) = true;
        self.changed.notify_all();
    }
}

/// A task in hand. All calls block the thread that makes them; any number of threads may call at once.
pub struct Task {
    params: Execute,
    peer: Arc<Peer>,
    canceled: Arc<Canceled>,
}

impl Task {
    pub(super) fn new(params: Execute, peer: Arc<Peer>, canceled: Arc<Canceled>) -> Self {
        Self { params, peer, canceled }
    }

    /// What `task/execute` gave.
    pub fn params(&self) -> &Execute {
        &self.params
    }

    /// The task's id.
    pub fn id(&self) -> &Id {
        &self.params.task_id
    }

    /// A file that came with the input.
    pub fn input_file(&self, name: &str) -> PathBuf {
        Path::new(&self.params.dir).join("in").join(name)
    }

    /// Where to leave a file that shall become an artifact. Makes the directory.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn output_file(&self, name: &str) -> Result<PathBuf, Error> {
        let directory = Path::new(&self.params.dir).join("out");
        std::fs::create_dir_all(&directory).map_err(|error| storage("make", &directory, &error))?;
        Ok(directory.join(name))
    }

    /// Ends a task that has been cancelled: to be asked between steps of long work.
    ///
    /// # Errors
    /// `canceled` if the task has been cancelled.
    pub fn check(&self) -> Result<(), Error> {
        if *lock(&self.canceled.is_set) { Err(canceled()) } else { Ok(()) }
    }

    /// Waits, but no longer than until the task is cancelled.
    ///
    /// # Errors
    /// `canceled` if it has been.
    pub fn pause(&self, time: Duration) -> Result<(), Error> {
        let until = Instant::now() + time;
        let mut is_set = lock(&self.canceled.is_set);
        while !*is_set {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let waited = self.canceled.changed.wait_timeout(is_set, left);
            is_set = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(canceled())
    }

    /// Has another member do a task and waits for its end. The same key gives the same child, in later attempts too.
    /// A child that failed is no error here: its state says so.
    ///
    /// # Errors
    /// If there is no child: no channel leads there, the queue is full, or the platform is gone.
    pub fn delegate(&self, to: &Address, key: &str, input: Content) -> Result<Child, Error> {
        let delegate = Delegate {
            task_id: self.id().clone(),
            to: to.clone(),
            input,
            key: Some(key.to_owned()),
            wait: true,
            timeout_ms: None,
            metadata: None,
            repeat: None,
        };
        self.call("task/delegate", &delegate)
    }

    /// Sends a message about this task. The same key is the same message, in later attempts too.
    ///
    /// # Errors
    /// If the message is not in the log: no channel leads there, it is too fast, or the platform is gone.
    pub fn send(&self, to: &Address, key: &str, content: Content) -> Result<MessageSent, Error> {
        let send = MessageSend {
            to: to.clone(),
            content,
            key: Some(key.to_owned()),
            task_id: Some(self.id().clone()),
            context_id: Some(self.params.context_id.clone()),
            reply_to: None,
        };
        self.call("message/send", &send)
    }

    /// Keeps up to 64 KiB for the next attempt, in place of what was kept before.
    ///
    /// # Errors
    /// If it is not kept.
    pub fn checkpoint(&self, data: Value) -> Result<Checkpointed, Error> {
        self.call("task/checkpoint", &Checkpoint { task_id: self.id().clone(), data })
    }

    /// Keeps a file of the task's directory as an artifact.
    ///
    /// # Errors
    /// If it is not kept.
    pub fn put_artifact(&self, path: &Path, name: &str) -> Result<ArtifactStored, Error> {
        let path = Some(path.to_string_lossy().into_owned());
        self.call("artifact/put", &ArtifactPut { path, text: None, name: name.to_owned(), media_type: None })
    }

    /// Has an artifact's bytes put into a file of the task's directory.
    ///
    /// # Errors
    /// If there is no such artifact, or it is not for this agent.
    pub fn get_artifact(&self, url: &ArtifactUrl, path: &Path) -> Result<ArtifactGot, Error> {
        let path = Some(path.to_string_lossy().into_owned());
        self.call("artifact/get", &ArtifactGet { url: url.clone(), path })
    }

    /// Says how far the task is.
    pub fn progress(&self, message: impl Into<String>, done: u32, total: u32) {
        let progress = Progress {
            task_id: self.id().clone(),
            message: Some(message.into()),
            progress: Some(done.into()),
            total: Some(total.into()),
            delta: None,
        };
        self.peer.notify("task/progress", json!(progress));
    }

    /// Writes a line to the agent's log.
    pub fn log(&self, level: LogLevel, message: impl Into<String>) {
        let log =
            Log { level, message: message.into(), fields: [("taskId".to_owned(), json!(self.id()))].into() };
        self.peer.notify("log", json!(log));
    }

    fn call<R: DeserializeOwned>(&self, method: &str, params: &impl Serialize) -> Result<R, Error> {
        self.check()?;
        let result = self.peer.call(method, json!(params))?;
        serde_json::from_value(result).map_err(|error| {
            Error::new(ErrorType::Internal, format_args!("the answer to `{method}` does not fit: {error}"))
        })
    }
}

fn canceled() -> Error {
    Error::new(ErrorType::Canceled, "the task was cancelled")
}

/// An error of the task's own files.
pub(crate) fn storage(action: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorType::HandlerFailed, format_args!("cannot {action} `{}`: {error}", path.display()))
        .with("retry", "transient")
}
