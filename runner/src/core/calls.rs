//! Calls and notes of the handler.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use link::{
    ArtifactGet, ArtifactPut, Call, CallFrame, Delegate, Error, ErrorType, Id, Note, NoteFrame, ReplyFrame,
    ToGateway, limits::CALLS_IN_FLIGHT_MAX,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::Instant};

use super::{Core, OnLoss};
use crate::event;

const ARTIFACT_PUT: &str = "artifact/put";
const ARTIFACT_GET: &str = "artifact/get";

/// A call that waits for the gateway's answer.
pub(super) struct OpenCall {
    method: &'static str,
    params: Value,
    /// Which of identical calls it is, where that counts.
    repeat: Option<u32>,
    /// The task whose clock stands still meanwhile.
    task: Option<Id>,
    /// Whether it ends with the task's cancellation.
    ends_with_task: bool,
    answer: oneshot::Sender<Result<Value, Error>>,
}

impl OpenCall {
    pub(super) fn frame(&self, id: u64) -> CallFrame {
        CallFrame { id, method: self.method.to_owned(), params: self.params.clone(), repeat: self.repeat }
    }

    pub(super) fn answer(self, outcome: Result<Value, Error>) {
        // Whoever asked may be gone.
        let _ = self.answer.send(outcome);
    }
}

impl Core {
    pub(super) fn on_call(&mut self, call: event::Call) {
        let event::Call { method, params, task, answer } = call;
        if self.agent.is_none() {
            let nobody = Error::new(ErrorType::OutOfOrder, "nobody is served yet: wait for `initialize`");
            let _ = answer.send(Err(nobody));
            return;
        }
        let outcome = match method.as_str() {
            ARTIFACT_PUT | ARTIFACT_GET => {
                self.signs_of_life(task.as_ref());
                return self.artifact(&method, params, task, answer);
            }
            name if Note::METHODS.contains(&name) => self.note(name, params, task),
            name => match self.open_call(name, params, task) {
                Ok(mut call) => {
                    call.answer = answer;
                    return self.pass_on(call);
                }
                Err(error) => Err(error),
            },
        };
        let _ = answer.send(outcome);
    }

    /// Reads a call and judges whether its task may make it.
    fn open_call(&mut self, method: &str, params: Value, task: Option<Id>) -> Result<OpenCall, Error> {
        let call = Call::parse(method, params.clone())?;
        let task = call.task_id().cloned().or(task).or_else(|| self.only_task());
        let ends_with_task =
            matches!(call, Call::Delegate(_) | Call::Await(_) | Call::InputRequest(_) | Call::ToolCall(_));
        self.may_speak_for(call.task_id(), ends_with_task)?;
        if self.calls.len() >= CALLS_IN_FLIGHT_MAX {
            let message = format!("{CALLS_IN_FLIGHT_MAX} calls are in flight");
            return Err(Error::new(ErrorType::RateLimited, message).with("retryAfterMs", 100));
        }
        // The other end of this channel is replaced by the caller's.
        let (answer, _) = oneshot::channel();
        let repeat = self.repeat(&call);
        Ok(OpenCall { method: call.method(), params, repeat, task, ends_with_task, answer })
    }

    /// Which of identical delegations without a key this is. It is counted here since only here an attempt's calls are
    /// all known: the platform may be started anew between two of them.
    fn repeat(&mut self, call: &Call) -> Option<u32> {
        let Call::Delegate(Delegate { task_id, to, input, key: None, .. }) = call else { return None };
        let attempt = self.attempts.get_mut(task_id)?;
        let mut identical = DefaultHasher::new();
        (to.to_string(), json!(input).to_string()).hash(&mut identical);
        let count = attempt.delegations.entry(identical.finish()).or_insert(0);
        *count += 1;
        Some(*count)
    }

    fn pass_on(&mut self, call: OpenCall) {
        self.signs_of_life(call.task.as_ref());
        let id = self.next_id();
        match self.outbox.push(&ToGateway::Call(call.frame(id)), OnLoss::Forget) {
            Ok(()) => drop(self.calls.insert(id, call)),
            Err(error) => call.answer(Err(error)),
        }
    }

    pub(super) fn on_reply(&mut self, reply: ReplyFrame) {
        // A reply may come twice when its call was sent twice.
        let Some(call) = self.calls.remove(&reply.re) else { return };
        self.signs_of_life(call.task.as_ref());
        call.answer(reply.outcome);
    }

    fn note(&mut self, method: &str, params: Value, task: Option<Id>) -> Result<Value, Error> {
        let note = Note::parse(method, params.clone())?;
        self.may_speak_for(note.task_id(), true)?;
        let task = note.task_id().cloned().or(task);
        self.signs_of_life(task.as_ref());
        if let Note::Busy(busy) = &note
            && let Some(attempt) = self.attempts.get_mut(&busy.task_id)
        {
            attempt.lease(Instant::now() + Duration::from_millis(busy.for_ms));
        }
        let params = match note {
            Note::Log(log) => {
                if let Some(agent) = &self.agent {
                    let level = format!("{:?}", log.level).to_lowercase();
                    agent.log.line(format!("{level}: {}", log.message).as_bytes());
                }
                json!(log)
            }
            _ => params,
        };
        self.outbox.push_note(NoteFrame { method: method.to_owned(), params })?;
        Ok(json!({}))
    }

    /// A handler speaks for the tasks in its hands only, and for a cancelled one no more than it must.
    fn may_speak_for(&self, task: Option<&Id>, needs_task_alive: bool) -> Result<(), Error> {
        let Some(task) = task else { return Ok(()) };
        match self.attempts.get(task) {
            None => {
                let message = format!("the task `{task}` is not in this handler's hands");
                Err(Error::new(ErrorType::UnknownTask, message))
            }
            Some(attempt) if attempt.is_dropped => Err(Error::new(
                ErrorType::Fenced,
                format_args!("this attempt of the task `{task}` is fenced"),
            )),
            Some(attempt) if needs_task_alive && attempt.canceled.is_some() => {
                Err(Error::new(ErrorType::Canceled, format_args!("the task `{task}` is cancelled")))
            }
            Some(_) => Ok(()),
        }
    }

    /// The task in hand, if it is the only one.
    fn only_task(&self) -> Option<Id> {
        let mut tasks = self.attempts.keys();
        tasks.next().filter(|_| tasks.next().is_none()).cloned()
    }

    fn signs_of_life(&mut self, task: Option<&Id>) {
        let task = task.cloned().or_else(|| self.only_task());
        if let Some(attempt) = task.and_then(|task| self.attempts.get_mut(&task)) {
            attempt.last_sign = Instant::now();
        }
    }

    /// Whether a call is pending that stops the task's clock.
    pub(super) fn has_call(&self, task: &Id) -> bool {
        self.calls.values().any(|call| call.task.as_ref().is_none_or(|of| of == task))
    }

    /// Whether all that the task does is to wait for a person.
    pub(super) fn waits_for_input(&self, task: &Id) -> bool {
        self.calls.values().any(|call| call.method == "input/request" && call.task.as_ref() == Some(task))
    }

    /// Ends the open calls of a task that is cancelled or over.
    pub(super) fn end_calls_of(&mut self, task: &Id) {
        let ended =
            self.calls.extract_if(.., |_, call| call.ends_with_task && call.task.as_ref() == Some(task));
        for (_, call) in ended {
            call.answer(Err(Error::new(ErrorType::Canceled, format_args!("the task `{task}` is cancelled"))));
        }
    }

    /// Artifacts go beside the link.
    fn artifact(
        &self,
        method: &str,
        params: Value,
        task: Option<Id>,
        answer: oneshot::Sender<Result<Value, Error>>,
    ) {
        let is_put = method == ARTIFACT_PUT;
        let task = task.or_else(|| self.only_task());
        let attempt = task.and_then(|task| self.attempts.get(&task));
        let base = attempt.map_or_else(|| self.work.clone(), |attempt| attempt.dir().to_owned());
        let source = self.agent.as_ref().map(|agent| agent.source.clone());
        let bases: Vec<_> = std::iter::once(base.clone()).chain(source).chain([self.work.clone()]).collect();
        let workspace = self.workspace.clone();
        tokio::spawn(async move {
            let outcome = async {
                if is_put {
                    written(workspace.put(read::<ArtifactPut>(ARTIFACT_PUT, params)?, bases).await?)
                } else {
                    written(workspace.get(read::<ArtifactGet>(ARTIFACT_GET, params)?, &base).await?)
                }
            };
            let _ = answer.send(outcome.await);
        });
    }

    /// Records what the protocol does not foresee, for whoever looks at the agent.
    pub(super) fn record(&mut self, kind: &'static str, detail: &str) {
        if self.agent.is_none() {
            // The platform hears nothing of a handler before it is an agent's.
            return tracing::warn!(kind, detail, "a handler that was started ahead is odd");
        }
        let params = json!({"level": "warning", "message": kind, "fields": {"detail": detail}});
        if let Err(error) = self.outbox.push_note(NoteFrame { method: "log".to_owned(), params }) {
            tracing::debug!(%error, kind, "an oddity was not recorded");
        }
    }
}

fn read<T: DeserializeOwned>(method: &str, params: Value) -> Result<T, Error> {
    link::params(&format!("the params of `{method}`"), params)
}

fn written(result: impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(result).map_err(|error| Error::new(ErrorType::Internal, error))
}
