//! What handlers ask for and report: judged, handed on, answered once.

use std::sync::Arc;
use std::time::Duration;

use events::CommandId;
use link::{Call, CallFrame, Delegate, ErrorFrame, ErrorType, Id, ReplyFrame, TaskResultFrame, ToRunner};
use serde_json::{Value, json};

use crate::calls::Begin;
use crate::channel;
use crate::core::Core;
use crate::host::{Activity, HostCall, Peer};
use crate::outlet::Keep;
use crate::policy::Kind;
use crate::sandbox::Sandbox;
use crate::session::{command, text};
use crate::state;

/// How soon a call that was one too many may come again.
const TOO_MANY_RETRY_MS: u64 = 100;
/// First and longest pause before a result that the platform could not take is offered again.
const RESULT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A call came in: it is answered later, or again. False: it did nothing new.
pub(crate) fn begin(core: &Arc<Core>, sandbox: &Arc<Sandbox>, peer: &Arc<Peer>, frame: CallFrame) -> bool {
    let begun = sandbox.state().calls.begin(frame.id);
    match begun {
        Begin::New => {}
        Begin::Pending => return false,
        Begin::Answered(answer) => {
            sandbox.push(answer, Keep::No);
            return false;
        }
        Begin::TooMany => {
            let max = core.options.limits.calls_in_flight_max;
            let error =
                link::Error::new(ErrorType::RateLimited, format_args!("{max} calls are in flight already"))
                    .with("retryAfterMs", TOO_MANY_RETRY_MS);
            sandbox.push(reply(frame.id, Err(error)), Keep::No);
            return false;
        }
    }
    let call = match Call::parse(&frame.method, frame.params) {
        Ok(Call::Delegate(call)) => Call::Delegate(Delegate { repeat: frame.repeat, ..call }),
        Ok(call) => call,
        Err(error) => {
            answer(sandbox, frame.id, Err(error));
            return true;
        }
    };
    if let Ok(host) = core.host() {
        host.activity(&sandbox.id, Activity::CallStarted);
    }
    let call = match call {
        Call::MessageSend(call) => {
            sandbox.send(core, peer, (frame.id, call));
            return true;
        }
        other => other,
    };
    let (core, sandbox, peer, id) = (core.clone(), sandbox.clone(), peer.clone(), frame.id);
    let tracker = sandbox.tracker.clone();
    tracker.spawn(async move {
        let command = command(&sandbox, id);
        let closed = sandbox.closed.clone();
        let served = closed.run_until_cancelled(serve(&core, &sandbox, &peer, command, call)).await;
        if let Some(outcome) = served {
            finish(&core, &sandbox, id, outcome);
        }
    });
    true
}

/// A call is answered for good.
pub(crate) fn finish(core: &Core, sandbox: &Sandbox, id: u64, outcome: Result<Value, link::Error>) {
    if let Ok(host) = core.host() {
        host.activity(&sandbox.id, Activity::CallEnded);
    }
    answer(sandbox, id, outcome);
}

fn answer(sandbox: &Sandbox, id: u64, outcome: Result<Value, link::Error>) {
    let mut frame = reply(id, outcome);
    if let Err(error) = link::check_frame(&frame) {
        frame = reply(id, Err(error));
    }
    sandbox.state().calls.finish(id, frame.clone());
    sandbox.push(frame, Keep::No);
}

fn reply(re: u64, outcome: Result<Value, link::Error>) -> Arc<str> {
    text(&ToRunner::Reply(ReplyFrame { re, outcome }))
}

async fn serve(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Arc<Peer>,
    command: CommandId,
    call: Call,
) -> Result<Value, link::Error> {
    if let Some(task) = call.task_id() {
        in_hand(sandbox, task)?;
    }
    let call = match call {
        Call::Delegate(call) => return delegate(core, sandbox, peer, command, call).await,
        Call::Checkpoint(call) => HostCall::Checkpoint(call),
        Call::Await(call) => HostCall::Await(call),
        Call::CancelChild(call) => HostCall::CancelChild(call),
        Call::InputRequest(call) => HostCall::InputRequest(call),
        Call::ToolList(_) => return Ok(json!({"tools": []})),
        Call::ToolCall(call) => {
            let message = format_args!("the profile allows no tool `{}` of `{}`", call.name, call.server);
            return Err(link::Error::new(ErrorType::ToolDenied, message));
        }
        Call::StatePut(call) => return state::put(core, sandbox, peer, command, call).await,
        Call::StateGet(call) => return state::get(core, sandbox, peer, call).await,
        Call::MessageSend(_) => {
            return Err(link::Error::new(ErrorType::Internal, "messages have a queue of their own"));
        }
    };
    core.host()?.call(peer, command, call).await
}

/// Whether the task is in the sandbox's hand.
pub(crate) fn in_hand(sandbox: &Sandbox, task: &Id) -> Result<(), link::Error> {
    match sandbox.state().hand.get(task) {
        Some(_) => Ok(()),
        None => Err(link::Error::new(
            ErrorType::UnknownTask,
            format_args!("the task `{task}` is not in your hand"),
        )),
    }
}

/// `task/delegate`: over a channel only, and within its depth, rate and fan-out.
async fn delegate(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Arc<Peer>,
    command: CommandId,
    call: Delegate,
) -> Result<Value, link::Error> {
    core.may_refer(&peer.crew, &call.input).await?;
    let depth = sandbox.state().hand.get(&call.task_id).map_or(0, |held| held.depth) + 1;
    let attempt = channel::Attempt { kind: Kind::Task, to: &call.to, task: Some(&call.task_id), depth };
    let admitted = channel::admit(core, sandbox, peer, &attempt).await?;
    let waiting = if call.wait {
        let begun = sandbox.state().hand.delegate(&call.task_id, &admitted.member, admitted.fan_out);
        if !begun {
            return Err(channel::too_many_children(core, sandbox, peer, &attempt, &admitted).await);
        }
        Some(Waiting {
            sandbox: sandbox.clone(),
            task: call.task_id.clone(),
            member: admitted.member.clone(),
        })
    } else {
        None
    };
    let call = HostCall::Delegate {
        call,
        member: admitted.member.as_ref().to_owned(),
        agent: admitted.agent,
        depth,
        fan_out: admitted.fan_out,
    };
    let outcome = core.host()?.call(peer, command, call).await;
    drop(waiting);
    outcome
}

/// A delegation that waits for its child, counted until it is answered or given up.
struct Waiting {
    sandbox: Arc<Sandbox>,
    task: Id,
    member: Arc<str>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.sandbox.state().hand.delegated(&self.task, &self.member);
    }
}

/// The end of an attempt. Offered to the platform until it is taken or refused for good, then answered.
pub(crate) async fn result(core: &Core, sandbox: &Sandbox, peer: &Peer, result: TaskResultFrame) {
    let (id, task, attempt, fence) = (result.id, result.task_id.clone(), result.attempt, result.fence);
    let command = command(sandbox, id);
    let (mut pause, longest) = RESULT_PAUSE;
    let outcome = loop {
        let Ok(host) = core.host() else { return };
        match host.task_result(peer, command, result.clone()).await {
            Err(error) if error.kind == Some(ErrorType::Unavailable) => {
                tracing::warn!(%task, attempt, "the platform cannot take a result yet");
            }
            known => break known,
        }
        drop(host);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    };
    let frame = match outcome {
        Ok(()) => ToRunner::Ack { re: id },
        Err(error) => ToRunner::Error(ErrorFrame::new(Some(id), error)),
    };
    let frame = text(&frame);
    {
        let mut state = sandbox.state();
        state.hand.put_down(&task, fence);
        state.results.finish(id, frame.clone());
    }
    sandbox.push(frame, Keep::No);
}
