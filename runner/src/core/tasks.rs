//! Tasks: attempts in hand, their cancellation, their results.

use std::{collections::HashMap, io, path::Path, time::Duration};

use link::{
    CancelFrame, Content, Error, ErrorType, Id, TaskFrame, TaskResultFrame, ToGateway,
    handler::{Cancel, Executed, State},
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{Core, OnLoss, Phase};
use crate::{
    carrier::{Carrier, ms_since},
    event::Event,
    workspace::{TaskDir, Workspace},
};

/// Tasks that may wait for the handler although the credit said otherwise.
const WAITING_MAX: usize = 64;

/// One attempt in the handler's hands.
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) fence: u64,
    /// Fenced: nothing is said about it any more.
    pub(super) is_dropped: bool,
    /// Why it is to be stopped, once it is.
    pub(super) canceled: Option<String>,
    /// How often each delegation without a key was asked for, by its hash.
    pub(super) delegations: HashMap<u64, u32>,
    pub(super) last_sign: Instant,
    begun: Instant,
    lease_until: Instant,
    work: AbortHandle,
    dir: TaskDir,
}

impl Attempt {
    pub(super) fn lease(&mut self, until: Instant) {
        self.lease_until = until;
        self.last_sign = Instant::now();
    }

    /// The attempt's directory.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How long the busy lease still runs.
    pub(super) fn lease_ms(&self) -> u64 {
        let left = self.lease_until.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Core {
    pub(super) fn on_task(&mut self, task: TaskFrame) {
        self.link.believed.tasks = self.link.believed.tasks.saturating_sub(1);
        let id = &task.params.task_id;
        let is_known = self
            .attempts
            .get(id)
            .is_some_and(|attempt| attempt.number == task.attempt && !attempt.is_dropped)
            || self
                .waiting
                .iter()
                .any(|waiting| waiting.params.task_id == *id && waiting.attempt == task.attempt)
            || self.results.values().any(|result| result.task_id == *id && result.attempt == task.attempt);
        if is_known {
            // Sent again after a lost link; its result comes, or was sent again too.
            return;
        }
        let refused = match self.phase {
            Phase::Running | Phase::Starting(_) if self.waiting.len() < WAITING_MAX => None,
            Phase::Running | Phase::Starting(_) => Some("too many tasks wait for the handler"),
            _ => Some("the handler takes no more tasks"),
        };
        match refused {
            None => self.waiting.push_back(task),
            Some(why) => self.refuse_task(&task, why),
        }
    }

    /// Gives a task back untouched.
    pub(super) fn refuse_task(&mut self, task: &TaskFrame, why: &str) {
        let error = Error::new(ErrorType::Unavailable, why).with("retry", "transient");
        self.send_result(task.params.task_id.clone(), task.attempt, task.fence, Err(error), 0);
    }

    /// Gives the handler what waits, as far as its hands are free.
    pub(super) fn admit(&mut self) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        while self.attempts.len() < self.concurrency() {
            let free = |task: &TaskFrame| !self.attempts.contains_key(&task.params.task_id);
            let Some(index) = self.waiting.iter().position(free) else { return };
            let Some(task) = self.waiting.remove(index) else { return };
            self.begin(task);
        }
    }

    fn begin(&mut self, task: TaskFrame) {
        let Some(carrier) = self.agent.as_ref().and_then(|agent| agent.carrier.clone()) else { return };
        let (workspace, platform) = (self.workspace.clone(), self.platform.clone());
        let TaskFrame { attempt: number, fence, params, .. } = task;
        let id = params.task_id.clone();
        let dir = workspace.task_dir();
        let path = dir.path().to_owned();
        let made = dir.make();
        let work = tokio::spawn(async move {
            let (id, attempt) = (params.task_id.clone(), number);
            let outcome = match made {
                Ok(()) => work(carrier.as_ref(), &workspace, params, number, &path).await,
                Err(error) => Err(not_made(&path, &error)),
            };
            platform.tell(Event::Finished(id, attempt, Box::new(outcome))).await;
        });
        let now = Instant::now();
        let attempt = Attempt {
            number,
            fence,
            is_dropped: false,
            canceled: None,
            delegations: HashMap::new(),
            last_sign: now,
            begun: now,
            lease_until: now,
            work: work.abort_handle(),
            dir,
        };
        self.attempts.insert(id, attempt);
    }

    /// How long a task's handler has been silent about it. The clock stands still while a call of it is pending, and
    /// where silence means nothing.
    pub(super) fn idle_ms(&self, task: &Id, attempt: &Attempt) -> u64 {
        let carrier = self.agent.as_ref().and_then(|agent| agent.carrier.as_ref());
        if !carrier.is_some_and(|carrier| carrier.speaks()) || self.has_call(task) {
            return 0;
        }
        ms_since(attempt.last_sign)
    }

    pub(super) fn on_cancel(&mut self, cancel: CancelFrame) {
        let waiting = self.waiting.iter();
        let mut waiting = waiting.enumerate().filter(|(_, task)| task.params.task_id == cancel.task_id);
        if let Some((index, _)) = waiting.find(|(_, task)| task.attempt == cancel.attempt) {
            if let Some(task) = self.waiting.remove(index) {
                let outcome = Ok(Executed::ended(State::Canceled, cancel.reason));
                self.send_result(task.params.task_id, task.attempt, task.fence, outcome, 0);
            }
            return;
        }
        let Some(attempt) = self.attempts.get_mut(&cancel.task_id) else { return };
        if attempt.number == cancel.attempt && attempt.canceled.is_none() {
            attempt.canceled = Some(cancel.reason.clone());
            self.stop_attempt(&cancel.task_id, cancel.attempt, cancel.reason, cancel.grace_ms);
        }
    }

    /// Stops an attempt that is not the current one any more, without a word about it.
    pub(super) fn fence_off(&mut self, task: &Id, number: u32) {
        self.waiting.retain(|waiting| waiting.params.task_id != *task || waiting.attempt != number);
        self.results.retain(|_, result| result.task_id != *task || result.attempt != number);
        let Some(attempt) = self.attempts.get_mut(task).filter(|attempt| attempt.number == number) else {
            return;
        };
        attempt.is_dropped = true;
        if attempt.canceled.is_none() {
            let reason = "the attempt is fenced: another one counts".to_owned();
            attempt.canceled = Some(reason.clone());
            let grace_ms = self.agent.as_ref().map_or(0, |agent| agent.assign.grace_ms);
            self.stop_attempt(task, number, reason, grace_ms);
        }
    }

    fn stop_attempt(&mut self, task: &Id, number: u32, reason: String, grace_ms: u64) {
        self.end_calls_of(task);
        let Some(carrier) = self.agent.as_ref().and_then(|agent| agent.carrier.clone()) else { return };
        if carrier.cancels_at_once() {
            return self.on_grace_over(task, number);
        }
        let platform = self.platform.clone();
        let cancel = Cancel { task_id: task.clone(), reason, grace_ms };
        tokio::spawn(async move {
            // A handler that does not read its input is not told, and is killed all the same.
            let told = carrier.cancel(&cancel);
            let grace = sleep(Duration::from_millis(grace_ms));
            tokio::pin!(told, grace);
            tokio::select! {
                () = &mut told => grace.await,
                () = &mut grace => {}
            }
            platform.tell(Event::GraceOver(cancel.task_id.clone(), number)).await;
        });
    }

    pub(super) fn on_grace_over(&mut self, task: &Id, number: u32) {
        let Some(attempt) = self.attempts.get(task).filter(|attempt| attempt.number == number) else {
            return;
        };
        let reason = attempt.canceled.clone().unwrap_or_default();
        let carrier = self.agent.as_ref().and_then(|agent| agent.carrier.clone());
        if let Some(carrier) = carrier.as_ref().filter(|carrier| carrier.is_killed_whole()) {
            // The attempt ends with the handler: were its end told first, another task would be on its way into a
            // handler that dies.
            let killed = format!("it did not stop task {task} within its grace ({reason})");
            self.killed.get_or_insert(killed);
            carrier.kill(task);
            return;
        }
        let Some(attempt) = self.attempts.remove(task) else { return };
        attempt.work.abort();
        self.conclude(task, &attempt, Ok(Executed::ended(State::Canceled, reason)));
        if let Some(carrier) = carrier {
            carrier.kill(task);
        }
    }

    pub(super) fn on_finished(&mut self, task: &Id, number: u32, outcome: Result<Executed, Error>) {
        // What a handler comes to that is being killed is told by its end.
        if self.killed.is_none()
            && self.attempts.get(task).is_some_and(|attempt| attempt.number == number)
            && let Some(attempt) = self.attempts.remove(task)
        {
            let outcome = match (&attempt.canceled, outcome) {
                // Whatever went wrong after a cancel went wrong because of it.
                (Some(reason), Err(_)) => Ok(Executed::ended(State::Canceled, reason.clone())),
                (_, outcome) => outcome,
            };
            self.conclude(task, &attempt, outcome);
        }
    }

    fn conclude(&mut self, task: &Id, attempt: &Attempt, outcome: Result<Executed, Error>) {
        self.end_calls_of(task);
        if !attempt.is_dropped {
            self.send_result(task.clone(), attempt.number, attempt.fence, outcome, ms_since(attempt.begun));
        }
    }

    fn send_result(
        &mut self,
        task_id: Id,
        attempt: u32,
        fence: u64,
        outcome: Result<Executed, Error>,
        ms: u64,
    ) {
        let id = self.next_id();
        let mut frame = TaskResultFrame { id, task_id, attempt, fence, outcome, ms };
        if let Err(error) = self.outbox.push(&ToGateway::TaskResult(frame.clone()), OnLoss::Forget) {
            frame.outcome = Err(error.with("hint", "put large results into artifacts"));
            self.send(&ToGateway::TaskResult(frame.clone()), OnLoss::Forget);
        }
        self.results.insert(id, frame);
    }

    /// The result is durable.
    pub(super) fn on_ack(&mut self, id: u64) {
        self.results.remove(&id);
    }

    /// Forgets every attempt, as the handler is gone.
    pub(super) fn abandon_attempts(&mut self) {
        for (_, attempt) in self.attempts.drain() {
            attempt.work.abort();
        }
        self.waiting.clear();
    }
}

fn not_made(dir: &Path, error: &io::Error) -> Error {
    let message = format!("the task's directory `{}` could not be made: {error}", dir.display());
    Error::new(ErrorType::Unavailable, message).with("retry", "transient")
}

/// Does one attempt: files in, the handler's work, files out.
async fn work(
    carrier: &dyn Carrier,
    workspace: &Workspace,
    mut params: link::handler::Execute,
    number: u32,
    dir: &Path,
) -> Result<Executed, Error> {
    workspace.prepare(&params, dir).await?;
    params.attempt = number;
    params.dir = dir.to_string_lossy().into_owned();
    let result = carrier.execute(&params).await?;
    let mut result = workspace.collect(result, dir).await?;
    if result.output.as_ref().is_some_and(|output| output == &Content::default()) {
        result.output = None;
    }
    Ok(result)
}
