//! The platform's side of a check: answers the handler's calls and writes down what is odd.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use link::{ArtifactPut, Call, Content, Error, ErrorType, Note, handler::State};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::Finding;
use crate::event::{self, Event};

/// Findings of one kind beyond this are not repeated.
const SAME_MAX: usize = 3;

/// A platform of one handler, without channels, people or storage.
#[derive(Debug)]
pub(super) struct Desk(Arc<Mutex<Books>>);

#[derive(Debug)]
struct Books {
    tasks: HashMap<String, PathBuf>,
    findings: Vec<Finding>,
    values: HashMap<String, (Value, u64)>,
    work: PathBuf,
    child: Content,
}

impl Desk {
    /// Answers until the check is over.
    pub(super) fn open(mut events: mpsc::Receiver<Event>, work: PathBuf, child: Content) -> Self {
        let books =
            Books { tasks: HashMap::new(), findings: Vec::new(), values: HashMap::new(), work, child };
        let state = Arc::new(Mutex::new(books));
        let shared = Self(state.clone());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Event::Call(call) => state.answer(call),
                    Event::Oddity(kind, detail) => state.odd(kind, &detail),
                    _ => {}
                }
            }
        });
        shared
    }

    fn state(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handler has this task in hand from now on.
    pub(super) fn take_task(&self, task: &str, dir: &Path) {
        self.state().tasks.insert(task.to_owned(), dir.to_owned());
    }

    pub(super) fn end_task(&self, task: &str) {
        self.state().tasks.remove(task);
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        std::mem::take(&mut self.state().findings)
    }
}

impl Books {
    fn odd(&mut self, kind: &'static str, detail: &str) {
        let found = format!("{kind}: {}", super::brief(detail));
        let finding = match kind {
            "handler.stdout_noise" => {
                Finding::warning("stdout", found, "stdout carries JSON-RPC only; use stderr for logs")
            }
            "handler.double_answer" => Finding::error("stdout", found, "every request is answered once"),
            "handler.unknown_answer" => {
                Finding::error("stdout", found, "only the runner's own requests are answered")
            }
            "handler.line_too_long" => Finding::error("stdout", found, "a line has at most 240 KiB"),
            "handler.half_line" => Finding::error("stdout", found, "a line ends with a newline"),
            "handler.invalid_note" => {
                Finding::warning("note", found, "a notification has the fields of its method")
            }
            _ => Finding::error("stdout", found, "a line is one JSON-RPC 2.0 object"),
        };
        if self.findings.iter().filter(|seen| seen.rule == finding.rule).count() < SAME_MAX {
            self.findings.push(finding);
        }
    }

    fn answer(&mut self, call: event::Call) {
        let event::Call { method, params, answer, .. } = call;
        let outcome = self.outcome(&method, params);
        if let Err(error) = &outcome
            && matches!(
                error.kind,
                Some(ErrorType::InvalidParams | ErrorType::MethodNotFound | ErrorType::UnknownTask)
            )
        {
            let found = super::brief(&error.message);
            self.findings.push(Finding::error(
                "call",
                found,
                "a call has the fields of its method and names a task in hand",
            ));
        }
        // Whoever asked may be gone.
        let _ = answer.send(outcome);
    }

    fn outcome(&mut self, method: &str, params: Value) -> Result<Value, Error> {
        if Note::METHODS.contains(&method) {
            let note = Note::parse(method, params)?;
            return self.has_task(note.task_id()).map(|()| json!({}));
        }
        match method {
            "artifact/put" => return self.put(params),
            "artifact/get" => return Err(ErrorType::UnknownArtifact.into()),
            _ => {}
        }
        let call = Call::parse(method, params)?;
        self.has_task(call.task_id())?;
        Ok(match call {
            Call::Checkpoint(_) => json!({"position": 1}),
            Call::Delegate(call) => {
                self.child("tk_child", if call.wait { State::Completed } else { State::Submitted })
            }
            Call::Await(call) => {
                json!({"tasks": call.task_ids.iter().map(|id| self.child(id, State::Completed)).collect::<Vec<_>>()})
            }
            Call::CancelChild(_) => json!({"state": "canceled"}),
            Call::MessageSend(_) => json!({"messageId": "ms_check", "position": 1, "recipients": 1}),
            Call::InputRequest(_) => json!({"action": "decline"}),
            Call::StatePut(call) => {
                let version = self.values.get(&call.key).map_or(1, |(_, version)| version + 1);
                self.values.insert(call.key, (call.value, version));
                json!({"version": version})
            }
            Call::StateGet(call) => {
                let (value, version) = self.values.get(&call.key).ok_or(ErrorType::UnknownKey)?;
                json!({"value": value, "version": version})
            }
            Call::ToolList(_) => json!({"tools": []}),
            Call::ToolCall(_) => return Err(ErrorType::ToolDenied.into()),
        })
    }

    /// A child as the handler is told of it.
    fn child(&self, id: &str, state: State) -> Value {
        let output = &self.child;
        let output =
            (state == State::Completed).then(|| json!({"text": output.joined_text(), "parts": output.parts}));
        json!({"taskId": id, "state": state, "output": output})
    }

    fn has_task(&self, task: Option<&link::Id>) -> Result<(), Error> {
        match task {
            Some(task) if !self.tasks.contains_key(task.as_str()) => {
                Err(Error::new(ErrorType::UnknownTask, format_args!("the task `{task}` is not in hand")))
            }
            _ => Ok(()),
        }
    }

    /// Answers as if the bytes were stored; only their digest is made.
    fn put(&self, params: Value) -> Result<Value, Error> {
        let invalid = |error: serde_json::Error| Error::new(ErrorType::InvalidParams, error);
        let put: ArtifactPut = serde_json::from_value(params).map_err(invalid)?;
        put.check()?;
        let bytes = match (put.path, put.text) {
            (Some(path), _) => {
                let dirs = self.tasks.values().chain([&self.work]);
                let read = dirs.map(|dir| dir.join(&path)).find_map(|path| std::fs::read(path).ok());
                let absent =
                    || Error::new(ErrorType::InvalidParams, format_args!("the file `{path}` is not there"));
                read.ok_or_else(absent)?
            }
            (None, text) => text.unwrap_or_default().into_bytes(),
        };
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        Ok(json!({"url": format!("artifact:{digest}"), "digest": digest, "size": bytes.len()}))
    }
}
