//! The platform as the gateway sees it: what runners and handlers say becomes commands to entities.

use std::sync::Arc;

use async_trait::async_trait;
use events::api::Problem;
use events::domain::agent::{Command, Container, Status};
use events::domain::crew::Resource;
use events::domain::message::Recipient;
use events::domain::task::{self, Attempt};
use events::supervision::Exit;
use events::{CommandId, CrewId, SandboxId, TaskId};
use gateway::{Activity, HeldTask, HostCall, Linked, Peer};
use link::{Error, ErrorType};
use serde_json::Value;

use crate::core::Core;
use crate::posts::Post;
use crate::watchdog::{Beat, Sign, Signal, Subject};
use crate::{contents, hibernation, hosted};

mod call;
mod coalesce;
mod delegate;
mod progress;
mod result;
mod usage;

/// The longest last line of a log that stands in an event.
const LOG_LINE_CHARS_MAX: usize = 300;

/// Answers the gateway's upcalls.
pub(crate) struct Host {
    core: Arc<Core>,
    progress: Arc<coalesce::Coalescer<link::Progress>>,
    usage: Arc<coalesce::Coalescer<usage::Reported>>,
}

impl Host {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, progress: Arc::default(), usage: Arc::default() }
    }

    /// Writes what is held back of handlers' notes; later ones are written at once.
    pub(crate) async fn close_notes(&self) {
        self.progress.close(&self.core).await;
        self.usage.close(&self.core).await;
    }

    fn tell(&self, post: &Post, sign: Sign) {
        let subject = Subject { agent: post.agent.clone(), incarnation: post.incarnation };
        self.core.tell(Signal::Of(subject, sign));
    }

    fn post(&self, sandbox: &SandboxId) -> Result<Post, Error> {
        self.core.posts.get(sandbox).ok_or_else(|| {
            Error::new(ErrorType::Fenced, format!("sandbox {sandbox} serves no live incarnation"))
        })
    }

    /// Of the attempts that a runner says it holds: those that are current, and those that it must stop.
    async fn sort_out(&self, post: &Post, hello: &link::Hello) -> (Vec<(HeldTask, u64)>, Vec<link::TaskRef>) {
        let (mut held, mut drop) = (Vec::new(), Vec::new());
        for resumed in hello.resume.iter().flat_map(|resume| &resume.tasks) {
            match self.is_current(post, resumed).await {
                Some(task) => held.push((task, resumed.fence)),
                None => {
                    drop.push(link::TaskRef { task_id: resumed.task_id.clone(), attempt: resumed.attempt })
                }
            }
        }
        (held, drop)
    }

    async fn is_current(&self, post: &Post, resumed: &link::ResumedTask) -> Option<HeldTask> {
        let task: TaskId = resumed.task_id.as_str().parse().ok()?;
        let state = self.core.look(&self.core.tasks, task.as_str()).await;
        let submitted = state.submitted.as_ref()?;
        let live = state.attempt.as_ref().is_some_and(|live| {
            live.fence == resumed.fence
                && live.placement.agent == post.agent
                && live.placement.incarnation == post.incarnation
        });
        // A result whose acknowledgement was lost is sent again, and acknowledged again.
        let known = live || state.result_fence == Some(resumed.fence);
        known.then(|| HeldTask {
            task,
            attempt: resumed.attempt,
            fence: resumed.fence,
            depth: submitted.depth,
            context: submitted.context.clone(),
            traceparent: submitted.traceparent.clone(),
            origin: None,
        })
    }

    /// A runner that nobody has claimed yet waits.
    async fn stands_by(&self, sandbox: &SandboxId) -> Result<Linked, Error> {
        let shelves = &self.core.shelves;
        let elsewhere = "the sandbox is on its way to its agent or its end";
        if !shelves.stands_by(sandbox) {
            return Err(Error::new(ErrorType::Unavailable, elsewhere));
        }
        let prestart = match shelves.prestart(sandbox) {
            Some((tenant, prestart)) => Some(hosted::prestart(&self.core, &tenant, &prestart).await),
            None => None,
        };
        // A log that cannot be read now can be read when the runner links again.
        let later = |problem: Problem| Error::new(ErrorType::Unavailable, problem.detail);
        let prestart = prestart.transpose().map_err(later)?.map(Box::new);
        // It may have been claimed while the log was read: then the runner links again, and is told whose it is.
        if !shelves.stands_by(sandbox) || self.core.posts.get(sandbox).is_some() {
            return Err(Error::new(ErrorType::Unavailable, elsewhere));
        }
        shelves.linked(sandbox);
        let heartbeat_ms = self.core.options.limits.standby_heartbeat_ms;
        Ok(Linked { heartbeat_ms, prestart, ..Linked::default() })
    }

    async fn down(&self, sandbox: &SandboxId, exit: Exit, detail: String) {
        match self.core.posts.get(sandbox) {
            Some(post) => hosted::down(&self.core, &post.agent, post.incarnation, exit, detail).await,
            // It stood by, with a handler that was started ahead.
            None => hosted::ended(&self.core, sandbox, &detail),
        }
    }

    /// Sends what the agent has in hand and its runner does not know of.
    async fn send_held(&self, post: &Post) {
        for task in self.core.tallies.of(&post.crew) {
            let state = self.core.look(&self.core.tasks, task.as_str()).await;
            let theirs = |live: &&Attempt| live.placement.agent == post.agent;
            if let Some(attempt) = state.attempt.clone().filter(|live| theirs(&live)) {
                let worker = Arc::clone(&self.core);
                self.core.spawn_for(&post.crew, async move {
                    hosted::dispatch(&worker, task.as_str(), None, &attempt).await;
                });
            }
        }
    }
}

/// The cause alone: what a handler wrote before may be about a data subject, and has its place in the agent's log.
fn ended_as(what: &str, code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("{what} with exit code {code}"),
        (None, Some(signal)) => format!("{what} by signal {signal}"),
        (None, None) => what.to_owned(),
    }
}

/// How a handler failed to start, with the last line that it wrote: nothing of a task has reached it yet.
fn failed_as(failed: &link::Failed) -> String {
    let what = format!("its handler failed to start ({:?}: {})", failed.stage, failed.message).to_lowercase();
    let how = ended_as(&what, failed.exit_code, failed.signal);
    let last = failed.log_tail.trim_end().lines().last().unwrap_or_default();
    let log: String = last.chars().take(LOG_LINE_CHARS_MAX).collect();
    if log.is_empty() { how } else { format!("{how}; its log ends: {log}") }
}

#[async_trait]
impl gateway::Host for Host {
    async fn admits(&self, sandbox: &SandboxId, process: gateway::Process) -> Option<bool> {
        let id = sandbox::Id::new(sandbox.as_str()).ok()?;
        let peer = sandbox::Peer { pid: process.pid, uid: process.uid };
        let owns = self.core.provider.owns(&id, peer).await;
        owns.inspect_err(|error| tracing::warn!(%sandbox, %error, "it cannot be told whose a connection is"))
            .ok()
    }

    async fn linked(
        &self,
        sandbox: &SandboxId,
        hello: &link::Hello,
        assigned: bool,
    ) -> Result<Linked, Error> {
        if self.core.posts.get(sandbox).is_none() && self.core.shelves.pool_of(sandbox).is_some() {
            return self.stands_by(sandbox).await;
        }
        let post = self.post(sandbox)?;
        let (held, drop) = self.sort_out(&post, hello).await;
        let known = held.iter().map(|(task, fence)| (task.task.clone(), *fence));
        self.core.posts.linked(sandbox, known);
        self.tell(&post, Sign::Linked);
        Ok(Linked {
            heartbeat_ms: post.assign.liveness.heartbeat_ms,
            drop,
            held: held.into_iter().map(|(task, _)| task).collect(),
            assign: (!assigned).then(|| Box::new((*post.assign).clone())),
            prestart: None,
        })
    }

    async fn ready(&self, sandbox: &SandboxId, ready: link::Ready) {
        let Some(post) = self.core.posts.get(sandbox) else { return };
        self.core.posts.set_ready(sandbox);
        let concurrency = ready.handler.concurrency.clamp(1, post.assign.handler.concurrency());
        let container =
            sandbox::Id::new(sandbox.as_str()).ok().and_then(|id| self.core.provider.container(&id));
        let container = container.map(|sandbox::Container { id, image }| Container { id, image });
        let command = Command::Ready { incarnation: post.incarnation, concurrency, container };
        let id = post.agent.as_str();
        let command_id = CommandId::derive(&["handler-ready", id, &post.incarnation.to_string()]);
        let meta = self.core.system_meta(&post.tenant, "spawner");
        let answer = self.core.command(&self.core.agents, id, command, command_id, meta).await;
        let is_up = match &answer {
            Ok(outcome) => outcome.state.status == Status::Ready,
            Err(problem) => {
                tracing::warn!(agent = id, %problem, "ready handler is not taken");
                false
            }
        };
        // One that drains or is being parked goes on with what it has, and takes nothing new.
        if is_up {
            // After a restart of the platform the agent was ready all along, and no event says so again.
            self.core.rosters.ready(&post.crew, &post.agent, concurrency);
            self.core.links().set_ready(&post.agent, true);
        }
        self.send_held(&post).await;
        if is_up {
            hosted::place_waiting(&self.core, &post.crew);
            if let Some(cause) = answer.ok().and_then(|outcome| outcome.cause) {
                hosted::check_assembled(&self.core, &post.crew, &cause).await;
            }
        }
    }

    async fn failed(&self, sandbox: &SandboxId, failed: link::Failed) {
        self.down(sandbox, Exit::StartFailed, failed_as(&failed)).await;
    }

    async fn exited(&self, sandbox: &SandboxId, exited: link::Exited) {
        let what = if exited.oom { "its handler ran out of memory" } else { "its handler ended" };
        let detail = match exited.reason.filter(|_| !exited.oom) {
            Some(reason) => {
                let reason: String = reason.chars().take(contents::MESSAGE_CHARS_MAX).collect();
                format!("its handler was killed: {reason}")
            }
            None => ended_as(what, exited.exit_code, exited.signal),
        };
        let exit = if exited.oom { Exit::OutOfMemory } else { Exit::Failed };
        self.down(sandbox, exit, detail).await;
    }

    async fn drained(&self, sandbox: &SandboxId) {
        self.core.posts.remove(sandbox);
    }

    async fn refused(&self, sandbox: &SandboxId, re: link::Id, error: Error) {
        tracing::warn!(%sandbox, %re, %error, "runner refused a frame");
        let attempt =
            re.as_str().rsplit_once('.').and_then(|(task, fence)| Some((task, fence.parse().ok()?)));
        let (Some((task, fence)), Some(post)) = (attempt, self.core.posts.get(sandbox)) else { return };
        let detail = format!("its runner refused the attempt: {error}");
        let command = task::Command::End { fence, ended: task::Ended::Crash, detail };
        let command_id = CommandId::derive(&["refused", task, &fence.to_string()]);
        let meta = self.core.system_meta(&post.tenant, "spawner");
        self.core.instruct(&self.core.tasks, task, command, command_id, meta).await;
    }

    fn heartbeat(&self, sandbox: &SandboxId, beat: &link::Heartbeat) {
        if let Some(post) = self.core.posts.get(sandbox) {
            self.tell(&post, Sign::Heartbeat(Beat::from(beat)));
        } else if let Some(suspicion) = self.core.shelves.beat(sandbox, beat) {
            hosted::suspect(&self.core, sandbox, &suspicion);
        }
    }

    fn activity(&self, sandbox: &SandboxId, what: Activity) {
        if let Some(post) = self.core.posts.get(sandbox) {
            let sign = match what {
                Activity::Frame => Sign::Frame,
                Activity::CallStarted => Sign::CallOpened,
                Activity::CallEnded => Sign::CallClosed,
                Activity::Bytes(_) => Sign::BytesMoved,
            };
            self.tell(&post, sign);
        }
    }

    fn link_lost(&self, sandbox: &SandboxId, reason: &str) {
        if let Some(post) = self.core.posts.get(sandbox) {
            tracing::debug!(%sandbox, agent = %post.agent, reason, "link lost");
            self.core.posts.unlinked(sandbox);
            self.tell(&post, Sign::LinkLost);
        } else {
            hosted::ended(&self.core, sandbox, &format!("its link was lost: {reason}"));
        }
    }

    async fn task_result(
        &self,
        peer: &Peer,
        command: CommandId,
        result: link::TaskResultFrame,
    ) -> Result<(), Error> {
        self.take_result(peer, command, result).await
    }

    async fn call(&self, peer: &Peer, command: CommandId, call: HostCall) -> Result<Value, Error> {
        let answer = self.answer_call(peer, command, call).await;
        // What a platform that stops has no answer to, the runner asks the next one.
        if answer.is_err() && self.core.stop.is_cancelled() {
            std::future::pending::<()>().await;
        }
        answer
    }

    fn posted(&self, crew: &CrewId, recipients: &[Recipient]) {
        recipients.iter().for_each(|recipient| hibernation::awaken(&self.core, crew, recipient));
    }

    async fn messages_spent(&self, peer: &Peer, sent: u64) {
        hosted::spend(&self.core, &peer.crew, Resource::Messages, sent).await;
    }

    async fn spoofed(&self, peer: &Peer, times: u32) {
        let reason = format!("its frames named their own sender, {times} of them within a minute");
        let (id, incarnation) = (peer.agent.as_str(), peer.incarnation.to_string());
        let command_id = CommandId::derive(&["spoofed", id, &incarnation]);
        let meta = self.core.system_meta(&peer.tenant, "gateway");
        let command = Command::Quarantine { reason };
        if let Err(problem) = self.core.command(&self.core.agents, id, command, command_id, meta).await {
            tracing::error!(agent = id, %problem, "an agent that poses as others was not set aside");
        }
    }

    async fn note(&self, peer: &Peer, note: link::Note) {
        match note {
            link::Note::Progress(progress) => self.take_progress(peer, progress).await,
            link::Note::Busy(busy) => {
                let subject = Subject { agent: peer.agent.clone(), incarnation: peer.incarnation };
                if let Ok(task) = busy.task_id.as_str().parse() {
                    self.core.tell(Signal::Of(subject, Sign::Busy { task, for_ms: busy.for_ms }));
                }
            }
            link::Note::Usage(usage) => self.take_usage(peer, &usage).await,
            // Its runner has written it into the agent's own log, and it has no place in the platform's.
            link::Note::Log(_) => {}
        }
    }
}

/// A problem as a handler is told of it.
pub(crate) fn wire_error(problem: &events::api::Problem) -> Error {
    use events::api::ProblemKind as K;
    let kind = match problem.kind {
        K::Invalid => ErrorType::InvalidParams,
        K::NotFound => ErrorType::UnknownTask,
        K::KeyConflict => ErrorType::KeyConflict,
        K::Busy => ErrorType::RateLimited,
        K::Unavailable => ErrorType::Unavailable,
        K::Timeout => ErrorType::Deadline,
        K::Conflict => ErrorType::Fenced,
        K::Denied | K::Unauthenticated | K::Failed | K::Internal => ErrorType::Internal,
    };
    Error::new(kind, &problem.detail)
}
