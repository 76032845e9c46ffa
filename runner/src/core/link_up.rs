//! The link: its coming and going, and what comes over it.

use std::time::Duration;

use link::{
    CloseCode, Credit, Error, ErrorFrame, ErrorType, HandlerState, Heartbeat, HeldTask, Hello, Id, Resume,
    ResumeState, ResumedTask, ToGateway, ToRunner, Welcome, handler::PROTOCOL_VERSION,
    handler::ShutdownReason,
};
use tokio::time::Instant;

use super::{Core, End, LINGER_MS_MAX, OnLoss, PING_EVERY_MS, Phase, WELCOME_MS_MAX, every, outbox};
use crate::{
    carrier::ms_since,
    event::{Alive, Event, Ping},
    process,
    uplink::{Outgoing, Uplink},
};

/// The only version of the link.
const LINK_VERSION: u32 = 1;

impl Core {
    pub(super) fn on_uplink(&mut self, uplink: Uplink) {
        match uplink {
            Uplink::Up(out) => {
                self.link.since = Instant::now();
                self.outbox.on_loss();
                let hello = outbox::encode(&ToGateway::Hello(self.hello()));
                match hello.map(|text| out.try_send(Outgoing::Text(text))) {
                    Ok(Ok(())) => self.link.out = Some(out),
                    _ => tracing::warn!("the link was gone before hello"),
                }
            }
            Uplink::Frame(Ok(frame)) => self.on_frame(frame),
            Uplink::Frame(Err(error)) => self.refuse(None, error),
            Uplink::Down(code) => self.on_down(code),
            Uplink::Abandoned => self.orphaned(),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            v: vec![LINK_VERSION],
            runner: env!("CARGO_PKG_VERSION").to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            resume: self.agent.as_ref().map(|_| self.resume()),
        }
    }

    fn resume(&self) -> Resume {
        let running = self.attempts.iter().filter(|(_, attempt)| !attempt.is_dropped);
        let running = running.map(|(task_id, attempt)| ResumedTask {
            task_id: task_id.clone(),
            attempt: attempt.number,
            fence: attempt.fence,
            state: ResumeState::Running,
            idle_ms: self.idle_ms(task_id, attempt),
        });
        let waiting = self.waiting.iter().map(|task| ResumedTask {
            task_id: task.params.task_id.clone(),
            attempt: task.attempt,
            fence: task.fence,
            state: ResumeState::Running,
            idle_ms: 0,
        });
        let done = self.results.values().map(|result| ResumedTask {
            task_id: result.task_id.clone(),
            attempt: result.attempt,
            fence: result.fence,
            state: ResumeState::Done,
            idle_ms: 0,
        });
        Resume {
            tasks: running.chain(waiting).chain(done).collect(),
            calls: self.calls.keys().copied().collect(),
        }
    }

    fn on_down(&mut self, code: Option<u16>) {
        let now = Instant::now();
        if self.link.is_open {
            self.link.lost_at = now;
        }
        self.link.out = None;
        self.link.is_open = false;
        self.link.since = now;
        self.ended_at = None;
        let is_final = code.is_some_and(CloseCode::is_final);
        if self.link.is_closing || (is_final && matches!(self.phase, Phase::Ended(_))) {
            self.finish();
        } else if is_final {
            // There is nobody left to serve: whatever the handler has in hand is somebody else's by now.
            self.stop(None, ShutdownReason::Restart, None, End::Done);
        }
    }

    fn on_frame(&mut self, frame: ToRunner) {
        if self.agent.is_none() && !frame.legal_before_assign() {
            return self.refuse(None, Error::new(ErrorType::OutOfOrder, "nothing was assigned yet"));
        }
        match frame {
            ToRunner::Welcome(welcome) => self.on_welcome(welcome),
            ToRunner::Assign(assign) => self.on_assign(*assign),
            ToRunner::Task(task) => self.on_task(*task),
            ToRunner::TaskCancel(cancel) => self.on_cancel(cancel),
            ToRunner::Message(message) => self.on_message(*message),
            ToRunner::Reply(reply) => self.on_reply(reply),
            ToRunner::Ack { re } => self.on_ack(re),
            ToRunner::Token(token) => drop(self.token.send_replace(Some(token.token))),
            ToRunner::Drain(drain) => {
                self.stop(Some(drain.id), drain.reason, Some(drain.grace_ms), End::Done);
            }
            ToRunner::Error(error) => self.on_error(error),
        }
    }

    fn on_welcome(&mut self, welcome: Welcome) {
        if welcome.v != LINK_VERSION {
            let message = format!("the runner speaks link version {LINK_VERSION}, not {}", welcome.v);
            return self.refuse(None, Error::new(ErrorType::UnsupportedVersion, message));
        }
        self.link.is_open = true;
        self.link.believed = Credit::default();
        self.heartbeat = every(welcome.heartbeat_ms);
        for task in welcome.drop {
            self.fence_off(&task.task_id, task.attempt);
        }
        self.send_again();
        if let Some(prestart) = welcome.prestart {
            self.start_ahead(*prestart);
        }
    }

    /// Everything that the gateway may not have got: the same ids, so it takes each once.
    fn send_again(&mut self) {
        if let Some(ready) = self.agent.as_ref().and_then(|agent| agent.ready.clone()) {
            self.send(&ToGateway::Ready(ready), OnLoss::Forget);
        }
        let calls = self.calls.iter().map(|(id, call)| (*id, ToGateway::Call(call.frame(*id))));
        let results = self.results.iter().map(|(id, result)| (*id, ToGateway::TaskResult(result.clone())));
        let mut frames: Vec<(u64, ToGateway)> = calls.chain(results).collect();
        frames.sort_by_key(|(id, _)| *id);
        for (_, frame) in frames {
            self.send(&frame, OnLoss::Forget);
        }
        if let Some(last_word) = self.last_word.clone() {
            self.send(&last_word, OnLoss::Forget);
        }
    }

    /// Refuses a gateway's frame.
    pub(super) fn refuse(&mut self, re: Option<Id>, error: Error) {
        tracing::warn!(%error, "a frame of the gateway was refused");
        self.send(&ToGateway::Error(ErrorFrame::new(re, error)), OnLoss::Forget);
    }

    /// The gateway refused a frame: a call is answered with that, a result is not sent again.
    fn on_error(&mut self, frame: ErrorFrame<u64>) {
        let Some(id) = frame.re else {
            tracing::warn!(kind = frame.kind.name(), message = frame.message, "the gateway refused a frame");
            return;
        };
        let error = frame.into_error();
        if let Some(call) = self.calls.remove(&id) {
            call.answer(Err(error));
        } else if self.results.contains_key(&id) && !error.kind.is_some_and(ErrorType::retryable) {
            self.on_ack(id);
        }
    }

    /// Sends a heartbeat, and asks the handler whether it lives where that is due.
    pub(super) fn beat(&mut self) {
        if !self.link.is_open {
            return;
        }
        self.heartbeats += 1;
        let usage = self.family.usage();
        let tasks = self.attempts.iter().filter(|(_, attempt)| !attempt.is_dropped);
        let tasks = tasks.map(|(task_id, attempt)| HeldTask {
            task_id: task_id.clone(),
            attempt: attempt.number,
            idle_ms: self.idle_ms(task_id, attempt),
            lease_ms: attempt.lease_ms(),
        });
        let pid = self.agent.as_ref().and_then(|agent| agent.carrier.as_ref()?.pid());
        let heartbeat = Heartbeat {
            seq: self.heartbeats,
            handler: self.handler_state(),
            tasks: tasks.collect(),
            memory_bytes: usage.memory_bytes,
            cpu_ms: usage.cpu_ms,
            stopped: pid.is_some_and(process::is_stopped),
            ping_ms: self.pinged_at.map(ms_since).unwrap_or_default(),
            dropped: self.outbox.take_dropped(),
        };
        self.send(&ToGateway::Heartbeat(heartbeat), OnLoss::Forget);
    }

    fn handler_state(&self) -> HandlerState {
        match &self.phase {
            Phase::Standby => self.ahead_state(),
            Phase::Starting(_) => HandlerState::Starting,
            Phase::Stopping(..) => HandlerState::Draining,
            Phase::Ended(_) => HandlerState::Exited,
            Phase::Running if self.attempts.is_empty() => HandlerState::Idle,
            Phase::Running if self.attempts.keys().all(|task| self.waits_for_input(task)) => {
                HandlerState::Waiting
            }
            Phase::Running => HandlerState::Busy,
        }
    }

    pub(super) fn on_alive(&mut self, alive: Alive) {
        let now = Instant::now();
        for attempt in self.attempts.values_mut() {
            match alive {
                Alive::BusyMs(ms) => attempt.lease(now + Duration::from_millis(ms)),
                Alive::Progress => attempt.last_sign = now,
            }
        }
    }

    pub(super) fn on_ping(&mut self, ping: Ping) {
        match ping {
            Ping::Asked => self.pinged_at = Some(Instant::now()),
            Ping::Answered => {
                self.pinged_at = None;
                self.ping_due = Some(Instant::now() + Duration::from_millis(PING_EVERY_MS));
            }
        }
    }

    /// The next moment at which something is due by itself.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        let far = now + Duration::from_secs(24 * 60 * 60);
        let mut due = vec![far];
        if self.link.is_open {
            due.extend(self.ping_due);
        } else {
            if !matches!(self.phase, Phase::Stopping(..)) {
                due.push(self.link.lost_at + self.orphan_grace());
            }
            if self.link.out.is_some() {
                due.push(self.link.since + Duration::from_millis(WELCOME_MS_MAX));
            }
        }
        due.extend(self.ended_at.map(|at| at + Duration::from_millis(LINGER_MS_MAX)));
        due.into_iter().min().unwrap_or(far)
    }

    fn orphan_grace(&self) -> Duration {
        let ms =
            self.agent.as_ref().map_or(self.options.orphan_grace_ms, |agent| agent.assign.orphan_grace_ms);
        Duration::from_millis(ms)
    }

    /// Does what is due by itself.
    pub(super) fn on_time(&mut self, now: Instant) {
        if !self.link.is_open {
            if self.link.out.is_some() && now >= self.link.since + Duration::from_millis(WELCOME_MS_MAX) {
                // Dropping the way out closes the link; another is made.
                self.link.out = None;
            }
            if now >= self.link.lost_at + self.orphan_grace() {
                self.orphaned();
            }
        }
        if self.ping_due.is_some_and(|due| now >= due) {
            self.ping_due = None;
            self.ping();
        }
        if self.ended_at.is_some_and(|at| now >= at + Duration::from_millis(LINGER_MS_MAX)) {
            self.finish();
        }
    }

    fn ping(&self) {
        let carrier = self.agent.as_ref().and_then(|agent| agent.carrier.clone());
        let (Some(carrier), Phase::Running) = (carrier, &self.phase) else { return };
        let platform = self.platform.clone();
        tokio::spawn(async move {
            platform.tell(Event::Ping(Ping::Asked)).await;
            carrier.ping().await;
            platform.tell(Event::Ping(Ping::Answered)).await;
        });
    }
}

/// The two versions are counted apart; this holds as long as there is one of each.
const _: () = assert!(PROTOCOL_VERSION == 1 && LINK_VERSION == 1);
