//! The handler's life: its start, its end by order, its end by itself.

use link::{
    Assign, Error, ErrorType, Exited, Failed, HandlerInfo, Id, Prestart, Ready, ToGateway,
    handler::{Shutdown, ShutdownReason},
};
use nix::sys::signal::Signal;
use tokio::{task::AbortHandle, time::Instant};

use super::{Agent, Core, End, OnLoss, PING_EVERY_MS, Phase, every};
use crate::{
    carrier::{Failure, Started},
    child::Exit,
    event::Event,
    log::Log,
    process,
    setup::{Running, Setup},
    uplink::Outgoing,
};

impl Core {
    pub(super) fn on_assign(&mut self, assign: Assign) {
        if let Some(agent) = &self.agent {
            if agent.assign.id != assign.id {
                let message =
                    format!("this sandbox is the agent `{}` once and for ever", agent.assign.agent.id);
                self.refuse(Some(assign.id), Error::new(ErrorType::OutOfOrder, message));
            }
            return;
        }
        if !matches!(self.phase, Phase::Standby) {
            return self.refuse(Some(assign.id), Error::new(ErrorType::OutOfOrder, "the runner is ending"));
        }
        self.token.send_replace(Some(assign.token.clone()));
        self.heartbeat = every(assign.liveness.heartbeat_ms);
        let secrets = assign.secrets.iter().map(|secret| secret.value.expose().to_owned());
        let secrets = secrets.chain([assign.token.expose().to_owned()]);
        self.mask.hide(secrets);
        let (log, starting) = match self.ahead.take() {
            Some(ahead) => ahead.assign(assign.clone()),
            None => {
                let log = Log::open(&self.work, self.mask.clone());
                (log.clone(), self.start(assign.clone(), log))
            }
        };
        self.phase = Phase::Starting(starting);
        let source = self.work.clone();
        self.agent =
            Some(Agent { assign, log, carrier: None, info: HandlerInfo::default(), ready: None, source });
    }

    /// Starts the handler of an agent.
    fn start(&self, assign: Assign, log: Log) -> AbortHandle {
        let setup = self.setup(Prestart::of(&assign), Some(assign.clone()), log);
        let platform = self.platform.clone();
        let starting = tokio::spawn(async move {
            let outcome = match setup.spawn().await {
                Ok(spawned) => spawned.initialize(&assign).await,
                Err(failure) => Err(failure),
            };
            platform.tell(Event::Started(Box::new(outcome))).await;
        });
        starting.abort_handle()
    }

    pub(super) fn setup(&self, start: Prestart, agent: Option<Assign>, log: Log) -> Setup {
        Setup {
            start,
            agent,
            work: self.work.clone(),
            log,
            family: self.family.clone(),
            platform: self.platform.clone(),
            workspace: self.workspace.clone(),
        }
    }

    pub(super) fn on_started(&mut self, outcome: Result<Running, Failure>) {
        if let (Phase::Standby, Err(failure)) = (&self.phase, &outcome) {
            return self.on_ahead_failed(failure);
        }
        let was_out_of_memory = outcome.as_ref().is_err_and(|failure| self.was_out_of_memory(failure.exit));
        let (Some(agent), Phase::Starting(_)) = (&mut self.agent, &self.phase) else { return };
        match outcome {
            Ok(Running { started, source, source_ms }) => {
                let Started { carrier, info, spawn_ms, initialize_ms } = started;
                let re = agent.assign.id.clone();
                let ready = Ready { re, source_ms, spawn_ms, initialize_ms, handler: info.clone() };
                agent.carrier = Some(carrier);
                agent.source = source;
                self.ping_due =
                    info.ping.then(|| Instant::now() + std::time::Duration::from_millis(PING_EVERY_MS));
                agent.info = info;
                agent.ready = Some(ready.clone());
                self.phase = Phase::Running;
                self.send_if_open(&ToGateway::Ready(ready));
            }
            Err(mut failure) => {
                if was_out_of_memory {
                    failure.message += ": it ran out of memory";
                }
                let failed = Failed {
                    re: Some(agent.assign.id.clone()),
                    stage: failure.stage,
                    message: failure.message,
                    exit_code: failure.exit.code,
                    signal: failure.exit.signal,
                    log_tail: failure.log_tail,
                };
                self.say_last(ToGateway::Failed(failed), End::HandlerEnded);
            }
        }
    }

    /// Ends the handler, with its grace, and then the runner.
    pub(super) fn stop(&mut self, ack: Option<Id>, reason: ShutdownReason, grace_ms: Option<u64>, end: End) {
        match &mut self.phase {
            Phase::Stopping(waiting, _) => {
                // Told already; a drain that was sent again is still to be acknowledged.
                *waiting = ack.or_else(|| waiting.take());
                return;
            }
            Phase::Ended(_) => {
                if let Some(re) = ack {
                    self.send(&ToGateway::Ack { re }, OnLoss::Keep);
                }
                return;
            }
            Phase::Starting(starting) => starting.abort(),
            Phase::Standby | Phase::Running => {}
        }
        self.phase = Phase::Stopping(ack, end);
        while let Some(task) = self.waiting.pop_front() {
            self.refuse_task(&task, "the agent is ending");
        }
        let Some(agent) = &self.agent else { return self.on_stopped() };
        let Some(carrier) = agent.carrier.clone() else { return self.on_stopped() };
        let grace_ms = grace_ms.unwrap_or(agent.assign.grace_ms);
        let platform = self.platform.clone();
        tokio::spawn(async move {
            carrier.shutdown(&Shutdown { reason, grace_ms }).await;
            platform.tell(Event::Stopped).await;
        });
    }

    /// The handler is gone, as it was told to.
    pub(super) fn on_stopped(&mut self) {
        let (ack, end) = match &mut self.phase {
            Phase::Stopping(ack, end) => (ack.take(), *end),
            _ => return,
        };
        let tasks = self.in_hand();
        if !tasks.is_empty() {
            let log_tail = self.agent.as_ref().map(|agent| agent.log.tail()).unwrap_or_default();
            let exited = Exited { tasks, log_tail, ..Exited::default() };
            self.send(&ToGateway::Exited(exited), OnLoss::Keep);
        }
        self.abandon_attempts();
        if let Some(re) = ack {
            self.send(&ToGateway::Ack { re }, OnLoss::Keep);
        }
        self.phase = Phase::Ended(end);
    }

    /// The handler ended by itself: what it had in hand crashed.
    pub(super) fn on_exited(&mut self, exit: Exit) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let tasks = self.in_hand();
        self.abandon_attempts();
        for (_, call) in std::mem::take(&mut self.calls) {
            call.answer(Err(Error::new(ErrorType::Unavailable, "the handler has ended")));
        }
        let exited = Exited {
            exit_code: exit.code,
            signal: exit.signal,
            oom: self.was_out_of_memory(exit),
            reason: self.killed.take(),
            tasks,
            log_tail: self.agent.as_ref().map(|agent| agent.log.tail()).unwrap_or_default(),
        };
        self.say_last(ToGateway::Exited(exited), End::HandlerEnded);
    }

    pub(super) fn was_out_of_memory(&self, exit: Exit) -> bool {
        exit.signal == Some(Signal::SIGKILL as i32) && process::oom_kills() > self.oom_kills
    }

    pub(super) fn say_last(&mut self, frame: ToGateway, end: End) {
        self.send_if_open(&frame);
        self.last_word = Some(frame);
        self.phase = Phase::Ended(end);
    }

    /// Queues a frame that is made anew for every link.
    fn send_if_open(&mut self, frame: &ToGateway) {
        if self.link.is_open {
            self.send(frame, OnLoss::Forget);
        }
    }

    /// No gateway came back.
    pub(super) fn orphaned(&mut self) {
        match self.phase {
            Phase::Stopping(..) => {}
            Phase::Ended(_) => self.end = Some(End::Orphaned),
            _ => self.stop(None, ShutdownReason::Expired, None, End::Orphaned),
        }
    }

    /// Once the handler is gone: closes the link as soon as everything is said and acknowledged, and ends when it is
    /// closed. Without a link, waits for one only if something is yet to be said.
    pub(super) fn settle(&mut self) {
        let Phase::Ended(end) = self.phase else { return };
        let is_all_said = self.outbox.is_empty() && self.results.is_empty();
        if end == End::Orphaned {
            self.end = Some(end);
        } else if self.link.is_open {
            self.ended_at.get_or_insert_with(Instant::now);
            if is_all_said {
                self.close();
            }
        } else if self.link.is_closing {
            // The peer's goodbye, or the end of patience, is still to come.
        } else if is_all_said && self.last_word.is_none() {
            self.end = Some(end);
        }
    }

    fn close(&mut self) {
        // Where there is no room yet, the next turn of the loop tries again.
        if self.link.out.as_ref().is_some_and(|out| out.try_send(Outgoing::Close).is_ok()) {
            self.link.out = None;
            self.link.is_open = false;
            self.link.is_closing = true;
            self.link.lost_at = Instant::now();
        }
    }

    /// The link is gone for good after the handler.
    pub(super) fn finish(&mut self) {
        if let Phase::Ended(end) = self.phase {
            self.end = Some(end);
        }
    }
}
