//! Requests of handlers about tasks: waiting, checkpoints, questions.

use std::sync::Arc;
use std::time::Duration;

use events::domain::task::{Attempt, Command, Ended, State, Status, Submitted, Task};
use events::{CommandId, Meta, TaskId};
use gateway::{HostCall, Peer};
use link::{AwaitMode, Error, ErrorType};
use serde_json::{Value, json};

use super::delegate::Way;
use super::{Host, wire_error};
use crate::contents;
use crate::core::Core;
use crate::entity::{Outcome, Request};
use crate::hosted;
use crate::waits;

/// What the next attempt's frame has room for, beside what else stands in it.
const CARRIED_BYTES_MAX: usize = link::limits::FRAME_BYTES_MAX - (16 << 10);

/// A task that the calling agent has in hand.
pub(super) struct InHand {
    pub(super) task: TaskId,
    pub(super) state: Arc<State>,
    pub(super) submitted: Submitted,
    pub(super) attempt: Attempt,
}

impl Host {
    pub(super) async fn answer_call(
        &self,
        peer: &Peer,
        command: CommandId,
        call: HostCall,
    ) -> Result<Value, Error> {
        match call {
            HostCall::Delegate { call, member, agent, depth, fan_out } => {
                self.delegate(peer, command, call, Way { member, agent, depth, fan_out }).await
            }
            HostCall::Await(call) => self.wait_for(peer, call).await,
            HostCall::CancelChild(call) => self.cancel_child(peer, command, call).await,
            HostCall::Checkpoint(call) => {
                let held = self.in_hand(peer, &call.task_id).await?;
                check_carried(&held.submitted.input, &call.data)?;
                let data = contents::put(&self.core, call.data).await.map_err(|p| wire_error(&p))?;
                let checkpoint = Command::Checkpoint { fence: held.attempt.fence, data };
                let position = self.execute(peer, command, &held.task, checkpoint).await?.position.0;
                Ok(json!({ "position": position }))
            }
            HostCall::InputRequest(call) => self.ask(peer, command, call).await,
        }
    }

    pub(super) async fn in_hand(&self, peer: &Peer, task: &link::Id) -> Result<InHand, Error> {
        let unknown =
            || Error::new(ErrorType::UnknownTask, format!("task `{task}` is not in this agent's hands"));
        let id: TaskId = task.as_str().parse().map_err(|_| unknown())?;
        let state = self.core.tasks.read(id.as_str()).await.map_err(|problem| wire_error(&problem))?;
        let submitted = state.submitted.clone().filter(|it| it.crew == peer.crew).ok_or_else(unknown)?;
        let attempt = state
            .attempt
            .clone()
            .filter(|live| {
                live.placement.agent == peer.agent && live.placement.incarnation == peer.incarnation
            })
            .ok_or_else(|| Error::new(ErrorType::Fenced, format!("the attempt at task `{task}` is over")))?;
        Ok(InHand { task: id, state, submitted, attempt })
    }

    /// The envelope of what an agent does for a task: in the task's trace.
    pub(super) fn meta(&self, peer: &Peer, submitted: &Submitted) -> Meta {
        let traceparent = submitted.traceparent.as_deref().map(Into::into);
        Meta { traceparent, ..self.core.agent_meta(peer) }
    }

    pub(super) async fn execute(
        &self,
        peer: &Peer,
        command_id: CommandId,
        task: &TaskId,
        command: Command,
    ) -> Result<Outcome<Task>, Error> {
        let state = self.core.tasks.read(task.as_str()).await.map_err(|problem| wire_error(&problem))?;
        let meta = match &state.submitted {
            Some(submitted) => self.meta(peer, submitted),
            None => self.core.agent_meta(peer),
        };
        let request = Request { command, command_id, digest: None, meta, is_first: false };
        self.core.tasks.execute(task.as_str(), request).await.map_err(|problem| wire_error(&problem))
    }

    async fn own_children(&self, held: &InHand, ids: &[link::Id]) -> Result<Vec<TaskId>, Error> {
        let own = |id: &link::Id| {
            held.state
                .children
                .values()
                .map(|child| &child.task)
                .find(|task| task.as_str() == id.as_str())
                .cloned()
        };
        ids.iter()
            .map(|id| {
                own(id).ok_or_else(|| {
                    Error::new(
                        ErrorType::UnknownTask,
                        format!("task `{id}` is not a child of `{}`", held.task),
                    )
                })
            })
            .collect()
    }

    /// The task in this agent's hands whose children these are.
    async fn parent_of(&self, peer: &Peer, ids: &[link::Id]) -> Result<(InHand, Vec<TaskId>), Error> {
        let first = ids.first().ok_or_else(|| Error::new(ErrorType::InvalidParams, "`taskIds` is empty"))?;
        let state = self.core.tasks.read(first.as_str()).await.map_err(|problem| wire_error(&problem))?;
        let parent = state.submitted.as_ref().and_then(|it| it.parent.clone());
        let parent = parent.and_then(|parent| link::Id::try_from(parent.as_str()).ok()).ok_or_else(|| {
            Error::new(ErrorType::UnknownTask, format!("task `{first}` is not a child of this agent's"))
        })?;
        let held = self.in_hand(peer, &parent).await?;
        let children = self.own_children(&held, ids).await?;
        Ok((held, children))
    }

    /// The task when it has ended. Should its crew become another node's, the agent is told by that one.
    pub(super) async fn over(&self, task: &TaskId) -> Arc<State> {
        self.core.until(&self.core.tasks, task.as_str(), |state| state.status.is_terminal()).await
    }

    /// Waits for `work` for as long as the task in hand may go on: not longer than until it is called off, or the attempt
    /// at it is over.
    pub(super) async fn unless_over<T>(
        &self,
        held: &InHand,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let fence = held.attempt.fence;
        let over = |state: &State| state.cancel.is_some() || !is_live(state, fence);
        tokio::select! {
            biased;
            done = work => Ok(done),
            _ = self.core.until(&self.core.tasks, held.task.as_str(), over) => Err(canceled(&held.task)),
        }
    }

    async fn wait_for(&self, peer: &Peer, call: link::Await) -> Result<Value, Error> {
        let (held, children) = self.parent_of(peer, &call.task_ids).await?;
        let _wait = self.wait_for_open(&held, &call, &children).await?;
        let waits = children.iter().map(|child| Box::pin(self.over(child)));
        let waited = async {
            match call.mode {
                AwaitMode::All => within(call.timeout_ms, futures_util::future::join_all(waits)).await,
                AwaitMode::Any => within(call.timeout_ms, futures_util::future::select_all(waits)).await,
            }
        };
        self.unless_over(&held, waited).await?;
        let mut tasks = Vec::with_capacity(children.len());
        for child in &children {
            let state = self.core.tasks.read(child.as_str()).await.map_err(|problem| wire_error(&problem))?;
            tasks.push(child_view(&self.core, child, &state).await?);
        }
        Ok(json!({ "tasks": tasks }))
    }

    /// The wait for those children that have not ended; one that ends by itself, or needs nobody, is none.
    async fn wait_for_open(
        &self,
        held: &InHand,
        call: &link::Await,
        children: &[TaskId],
    ) -> Result<Option<waits::Held>, Error> {
        let mut open = Vec::with_capacity(children.len());
        for child in children {
            let state = self.core.tasks.read(child.as_str()).await.map_err(|problem| wire_error(&problem))?;
            if let Some(submitted) = state.submitted.as_ref().filter(|_| !state.status.is_terminal()) {
                open.push(hosted::wish(submitted));
            }
        }
        let any = call.mode == AwaitMode::Any;
        let is_over = open.is_empty() || (any && open.len() < children.len());
        if is_over || call.timeout_ms.is_some() {
            return Ok(None);
        }
        self.wait_of(held, any, open).await.map(Some)
    }

    async fn cancel_child(
        &self,
        peer: &Peer,
        command: CommandId,
        call: link::CancelChild,
    ) -> Result<Value, Error> {
        let (_, children) = self.parent_of(peer, std::slice::from_ref(&call.task_id)).await?;
        let Some(child) = children.first() else { return Ok(Value::Null) };
        let reason = if call.reason.is_empty() { "its parent called it off".to_owned() } else { call.reason };
        let canceled = self.execute(peer, command, child, Command::Cancel { reason, by_parent: true }).await;
        let state = self.core.tasks.read(child.as_str()).await.map_err(|problem| wire_error(&problem))?;
        if let Err(error) = canceled
            && !state.status.is_terminal()
        {
            return Err(error);
        }
        Ok(json!({ "state": wire_state(state.status) }))
    }

    async fn ask(
        &self,
        peer: &Peer,
        command: CommandId,
        mut call: link::InputRequest,
    ) -> Result<Value, Error> {
        let task =
            call.task_id.take().ok_or_else(|| Error::new(ErrorType::InvalidParams, "`taskId` is missing"))?;
        let key = call.key.take().ok_or_else(|| Error::new(ErrorType::InvalidParams, "`key` is missing"))?;
        let held = self.in_hand(peer, &task).await?;
        if let Some(fault) = call.fault() {
            return Err(Error::new(ErrorType::InvalidParams, fault));
        }
        let now = self.core.clock.now();
        let expires_at_ms = call.timeout_ms.map(|ms| now.plus_ms(ms).millis());
        let ask = Command::Ask {
            fence: held.attempt.fence,
            key: key.clone(),
            request: contents::wire(call),
            expires_at_ms,
        };
        self.execute(peer, command, &held.task, ask).await?;
        let fence = held.attempt.fence;
        let wanted = key.clone();
        let over = move |state: &State| {
            let answered = state.questions.get(&wanted).is_some_and(|question| question.answer.is_some());
            answered || state.cancel.is_some() || !is_live(state, fence)
        };
        let state = self.core.until(&self.core.tasks, held.task.as_str(), over).await;
        let answers = hosted::answers(&self.core, held.task.as_str(), &state).await;
        let answer = answers.map_err(|problem| wire_error(&problem))?.remove(&key);
        answer.map(contents::wire).ok_or_else(|| canceled(&held.task))
    }
}

fn is_live(state: &State, fence: u64) -> bool {
    state.attempt.as_ref().is_some_and(|live| live.fence == fence)
}

fn canceled(task: &TaskId) -> Error {
    Error::new(ErrorType::Canceled, format!("task `{task}` is called off, or the attempt at it is over"))
}

/// An attempt is given its task's input and the last checkpoint in one frame.
fn check_carried(input: &Value, checkpoint: &Value) -> Result<(), Error> {
    let (input, checkpoint) = (contents::bytes(input), contents::bytes(checkpoint));
    if input + checkpoint <= CARRIED_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "a checkpoint of {checkpoint} bytes beside an input of {input}: {CARRIED_BYTES_MAX} fit into an attempt; \
         put what is large into an artifact"
    );
    Err(Error::new(ErrorType::TooLarge, message))
}

/// Waits for the work, but no longer than so long.
async fn within<T>(timeout_ms: Option<u64>, work: impl Future<Output = T>) {
    match timeout_ms {
        None => drop(work.await),
        Some(timeout_ms) => drop(tokio::time::timeout(Duration::from_millis(timeout_ms), work).await),
    }
}

/// A2A's names of states, as handlers see them.
fn wire_state(status: Status) -> &'static str {
    match status {
        // To its parent a child that was given up has failed; that it can be retried is for people.
        Status::DeadLettered => "failed",
        other => other.as_str(),
    }
}

/// What became of a task that brought nothing.
fn error_type(state: &State) -> ErrorType {
    match (state.status, state.last_end) {
        (Status::Canceled, _) => ErrorType::Canceled,
        (Status::DeadLettered, Some(Ended::Crash | Ended::Lost | Ended::Hung)) => ErrorType::Crash,
        (_, Some(Ended::Killed)) => ErrorType::Crash,
        (_, Some(Ended::Abandoned)) => ErrorType::Abandoned,
        (_, Some(Ended::Timeout | Ended::Deadline)) => ErrorType::Deadline,
        // Nothing but its deadline lets a task fail whose last attempt was to be tried again, or that had none.
        (Status::Failed, Some(Ended::Crash | Ended::Lost | Ended::Hung | Ended::Transient) | None) => {
            ErrorType::Deadline
        }
        _ => ErrorType::HandlerFailed,
    }
}

/// A child as its parent sees it.
pub(super) async fn child_view(core: &Core, task: &TaskId, state: &State) -> Result<Value, Error> {
    let mut view = json!({ "taskId": task, "state": wire_state(state.status) });
    if let Some(output) = &state.output {
        let output = contents::get(core, output).await.map_err(|problem| wire_error(&problem))?;
        let content: Option<link::Content> = serde_json::from_value(output).ok();
        if let Some(content) = content {
            let text = content.joined_text();
            view["output"] = contents::wire(content);
            view["output"]["text"] = Value::String(text);
        }
        view["artifacts"] =
            contents::get(core, &state.artifacts).await.map_err(|problem| wire_error(&problem))?;
    }
    if let Some(error) = &state.error {
        view["error"] = contents::wire(Error::new(error_type(state), error));
    }
    Ok(view)
}
