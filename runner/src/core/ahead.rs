//! The handler of an agent that is not known yet: a pool may have its process started ahead. Nothing of the agent and no
//! secret is in the sandbox by then (SB-2); both come with `assign`, and the handler is told of them by `initialize`.

use link::{Assign, Exited, HandlerState, Prestart, ToGateway};
use tokio::{sync::oneshot, task::AbortHandle};

use super::{Core, End, Phase};
use crate::{carrier::Failure, event::Event, log::Log};

/// A handler that was started ahead.
pub(super) struct Ahead {
    pub(super) log: Log,
    /// Whether its process is up.
    is_up: bool,
    assigned: oneshot::Sender<Assign>,
    starting: AbortHandle,
}

impl Ahead {
    /// It is this agent's from now on.
    pub(super) fn assign(self, assign: Assign) -> (Log, AbortHandle) {
        // Whoever does not take it says by itself that the handler has failed.
        let _ = self.assigned.send(assign);
        (self.log, self.starting)
    }
}

impl Core {
    /// Starts the handler, unless it was started on an earlier link.
    pub(super) fn start_ahead(&mut self, prestart: Prestart) {
        if self.ahead.is_some() || self.agent.is_some() || !matches!(self.phase, Phase::Standby) {
            return;
        }
        let log = Log::open(&self.work, self.mask.clone());
        let setup = self.setup(prestart, None, log.clone());
        let platform = self.platform.clone();
        let (assigned, assignment) = oneshot::channel();
        let starting = tokio::spawn(async move {
            let outcome = match setup.spawn().await {
                Err(failure) => Err(failure),
                Ok(spawned) => {
                    platform.tell(Event::Ahead).await;
                    tokio::select! {
                        biased;
                        Ok(assign) = assignment => spawned.initialize(&assign).await,
                        failure = spawned.ended() => Err(failure),
                    }
                }
            };
            platform.tell(Event::Started(Box::new(outcome))).await;
        });
        self.ahead = Some(Ahead { log, is_up: false, assigned, starting: starting.abort_handle() });
    }

    /// Its process is up: the platform hears of it at once.
    pub(super) fn on_ahead(&mut self) {
        if let Some(ahead) = &mut self.ahead {
            ahead.is_up = true;
            self.beat();
        }
    }

    /// It ended, or did not come up, while nobody had claimed it: nobody will.
    pub(super) fn on_ahead_failed(&mut self, failure: &Failure) {
        let exited = Exited {
            exit_code: failure.exit.code,
            signal: failure.exit.signal,
            oom: self.was_out_of_memory(failure.exit),
            reason: None,
            tasks: Vec::new(),
            log_tail: format!("{}\n{}", failure.log_tail.trim_end(), failure.message),
        };
        self.say_last(ToGateway::Exited(exited), End::HandlerEnded);
    }

    /// What heartbeats say of a handler that has no agent.
    pub(super) fn ahead_state(&self) -> HandlerState {
        match &self.ahead {
            None => HandlerState::None,
            Some(ahead) if ahead.is_up => HandlerState::Idle,
            Some(_) => HandlerState::Starting,
        }
    }
}
