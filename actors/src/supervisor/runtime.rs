//! The supervisor's own actor. Owns the children, the budget and the journal's queue.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use events::supervision::{self, Budget, ChildKind, Decision, Exit, Failure, OnExhausted, Policy, Strategy};

use super::children::{Children, Stage};
use super::counters::Tally;
use super::exit::{ChildExit, detail};
use super::journal::{Entry, Writer};
use super::{ChildId, ChildSpec, ChildState, Error, Limits, Options, Unbound};

pub(super) enum Message {
    Add(ChildSpec, RpcReplyPort<Result<(), Error>>),
    Remove(ChildId, RpcReplyPort<bool>),
    Replace(ChildId, Exit, RpcReplyPort<bool>),
    List(RpcReplyPort<Vec<(ChildId, ChildState)>>),
    /// The wait of the restart of this number is over.
    Due(u64),
}

/// How a supervisor that escalates ends.
#[derive(Debug, thiserror::Error)]
#[error("keep child `{0}` up: the restart budget is spent")]
struct Exhausted(ChildId);

/// What came of an exit.
#[derive(PartialEq, Eq)]
enum Outcome {
    Ignored,
    Scheduled,
    Quarantined,
    Disbanded,
}

pub(super) struct Supervisor {
    tally: Arc<Tally>,
}

impl Supervisor {
    pub(super) fn new(options: &Options) -> (Self, Unbound) {
        let tally = Arc::new(Tally::default());
        let calls = Arc::new(Semaphore::new(options.limits.calls_max.max(1)));
        (Self { tally: tally.clone() }, Unbound { calls, tally })
    }
}

pub(super) struct State {
    me: ActorRef<Message>,
    policy: Policy,
    limits: Limits,
    budget: Budget<ChildId>,
    children: Children,
    journal: Writer,
    tally: Arc<Tally>,
    /// What the journal's clock read, and when on ours.
    epoch: (u64, Instant),
    seed: u64,
    /// The number of the last restart that was scheduled.
    ticket: u64,
}

#[ractor::async_trait]
impl Actor for Supervisor {
    type Msg = Message;
    type State = State;
    type Arguments = Options;

    async fn pre_start(&self, me: ActorRef<Message>, options: Options) -> Result<State, ActorProcessingErr> {
        let mut children = Children::default();
        for spec in options.children {
            let id = spec.id.clone();
            if !children.push(spec) {
                return Err(Error::Duplicate(id).into());
            }
        }
        Ok(State {
            me,
            journal: Writer::spawn(options.journal, &options.limits, self.tally.clone()),
            policy: options.policy,
            limits: options.limits,
            budget: options.budget,
            children,
            tally: self.tally.clone(),
            epoch: (options.now_ms, Instant::now()),
            seed: options.seed,
            ticket: 0,
        })
    }

    async fn post_start(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        let all = state.children.ids();
        Ok(state.start_in_order(&all, false).await?)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // A reply that cannot be delivered has nobody waiting for it.
        match message {
            Message::Add(spec, reply) => {
                let _ = reply.send(state.add(spec).await);
            }
            Message::Remove(child, reply) => {
                let _ = reply.send(state.remove(&child).await);
            }
            Message::Replace(child, exit, reply) => {
                let _ = reply.send(state.replace(&child, exit).await?);
            }
            Message::List(reply) => {
                let _ = reply.send(state.children.states());
            }
            Message::Due(ticket) => {
                let due = state.children.waiting_for(ticket);
                state.start_in_order(&due, true).await?;
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(ended) = ChildExit::read(&event) else { return Ok(()) };
        // A child that was stopped by order is no longer known by its actor.
        let Some(child) = state.children.running_as(ended.actor) else { return Ok(()) };
        state.take_down(&child);
        state.exited(&child, ended.exit, ended.detail).await?;
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.stop_all().await;
        state.journal.close().await;
        Ok(())
    }
}

impl State {
    fn now_ms(&self) -> u64 {
        let (then_ms, then) = self.epoch;
        then_ms.saturating_add(then.elapsed().as_millis() as u64)
    }

    async fn add(&mut self, spec: ChildSpec) -> Result<(), Error> {
        let child = spec.id.clone();
        if !self.children.push(spec) {
            return Err(Error::Duplicate(child));
        }
        self.start(&child).await.map_err(|detail| {
            self.record_exit(&child, Exit::StartFailed, detail.clone());
            self.forget(&child);
            Error::StartFailed { child, detail }
        })
    }

    async fn remove(&mut self, child: &ChildId) -> bool {
        if self.children.get(child).is_none() {
            return false;
        }
        self.stop(child).await;
        self.forget(child);
        true
    }

    async fn replace(&mut self, child: &ChildId, exit: Exit) -> Result<bool, Exhausted> {
        let bound_ms = self.stop_bound_ms(child);
        let Some(cell) = self.take_down(child) else { return Ok(false) };
        let ended = self.end(&cell, bound_ms).await;
        if ended == Exit::Killed {
            self.tally.exited(ended);
        }
        let detail = if ended == Exit::Killed { "replaced, by force" } else { "replaced" };
        self.exited(child, exit, detail.to_owned()).await?;
        Ok(true)
    }

    /// Starts children one after the other. Where one fails, and the strategy says that those after it were built on
    /// it, they are left to the restart that its failure brings.
    async fn start_in_order(&mut self, children: &[ChildId], again: bool) -> Result<(), Exhausted> {
        for child in children {
            self.children.set(child, Stage::Down);
        }
        for child in children {
            let Err(detail) = self.start(child).await else {
                if again {
                    self.tally.restarted();
                    self.journal.record(Entry::Restarted { child: child.clone(), at_ms: self.now_ms() });
                }
                continue;
            };
            let outcome = self.exited(child, Exit::StartFailed, detail).await?;
            let independent = self.policy.strategy == Strategy::OneForOne || outcome == Outcome::Ignored;
            if !independent || outcome == Outcome::Disbanded {
                break;
            }
        }
        Ok(())
    }

    /// Starts one child, in a task of its own so that a start that panics or spins takes nothing with it.
    async fn start(&mut self, child: &ChildId) -> Result<(), String> {
        let Some(slot) = self.children.get(child) else { return Ok(()) };
        let (start, me) = (slot.spec.start.clone(), self.me.get_cell());
        let mut task = tokio::spawn(async move { start(me).await });
        let mut ended = timeout(Duration::from_millis(self.limits.start_ms), &mut task).await;
        if ended.is_err() {
            task.abort();
            // It may have come up in the very moment in which its time ran out, and is then not to be lost.
            ended = timeout(Duration::from_millis(self.limits.kill_ms), task).await;
        }
        match ended {
            Ok(Ok(Ok(cell))) => {
                self.children.up(child, cell, self.now_ms());
                Ok(())
            }
            Ok(Ok(Err(error))) => Err(detail(&error)),
            Ok(Err(panicked)) if panicked.is_panic() => Err("its start panicked".to_owned()),
            _ => Err(format!("it was not up within `{}` ms", self.limits.start_ms)),
        }
    }

    /// Decides about a child that is down, and does what is to be done at once.
    async fn exited(&mut self, child: &ChildId, exit: Exit, detail: String) -> Result<Outcome, Exhausted> {
        self.record_exit(child, exit, detail);
        let now_ms = self.now_ms();
        self.seed = self.seed.wrapping_add(1);
        let failure = Failure { child, exit, now_ms, jitter_seed: self.seed };
        match supervision::decide(&self.policy, &self.budget, &self.family(child), &failure) {
            Decision::Ignore => {
                self.forget_unless_restartable(child);
                Ok(Outcome::Ignored)
            }
            Decision::Restart { children, stop_first, delay_ms } => {
                self.budget.restarted(&self.policy, child, now_ms);
                self.schedule(child, children, &stop_first, delay_ms).await;
                Ok(Outcome::Scheduled)
            }
            Decision::Exhausted(outcome) => self.give_up(child, outcome).await,
        }
    }

    async fn schedule(
        &mut self,
        failed: &ChildId,
        children: Vec<ChildId>,
        stop_first: &[ChildId],
        delay_ms: u64,
    ) {
        for child in stop_first {
            self.stop(child).await;
            self.forget_unless_restartable(child);
        }
        self.ticket += 1;
        let ticket = self.ticket;
        for child in &children {
            self.children.set(child, Stage::Waiting(ticket));
        }
        let at_ms = self.now_ms();
        self.journal.record(Entry::RestartScheduled { failed: failed.clone(), children, delay_ms, at_ms });
        self.me.send_after(Duration::from_millis(delay_ms), move || Message::Due(ticket));
    }

    async fn give_up(&mut self, child: &ChildId, outcome: OnExhausted) -> Result<Outcome, Exhausted> {
        tracing::error!(%child, ?outcome, "a supervisor's restart budget is spent");
        self.tally.gave_up();
        self.journal.record(Entry::GaveUp { child: child.clone(), outcome, at_ms: self.now_ms() });
        match outcome {
            OnExhausted::Quarantine => {
                self.children.set(child, Stage::Quarantined);
                Ok(Outcome::Quarantined)
            }
            OnExhausted::Disband => {
                self.stop_all().await;
                self.me.stop(None);
                Ok(Outcome::Disbanded)
            }
            OnExhausted::Escalate => {
                self.stop_all().await;
                // `post_stop` does not run for an actor that fails.
                self.journal.close().await;
                Err(Exhausted(child.clone()))
            }
        }
    }

    /// Stops all children, the last started first; none is waited for any longer.
    async fn stop_all(&mut self) {
        for child in self.children.ids().iter().rev() {
            self.stop(child).await;
        }
    }

    /// Stops a child; one that is only waiting for its start will wait no more.
    async fn stop(&mut self, child: &ChildId) {
        let bound_ms = self.stop_bound_ms(child);
        if let Some(cell) = self.take_down(child) {
            let exit = self.end(&cell, bound_ms).await;
            self.record_exit(child, exit, "stopped by its supervisor".to_owned());
        }
    }

    /// Ends an actor, by force where it does not stop in time: a handler that hangs never sees the stop.
    async fn end(&self, cell: &ActorCell, bound_ms: u64) -> Exit {
        cell.stop(None);
        if cell.wait(Some(Duration::from_millis(bound_ms))).await.is_ok() {
            return Exit::Drained;
        }
        cell.kill();
        if cell.wait(Some(Duration::from_millis(self.limits.kill_ms))).await.is_err() {
            tracing::error!(actor = %cell.get_id(), "a killed actor goes on: it never awaits");
        }
        Exit::Killed
    }

    fn stop_bound_ms(&self, child: &ChildId) -> u64 {
        let own = self.children.get(child).and_then(|slot| slot.spec.stop_ms);
        own.unwrap_or(self.limits.stop_ms)
    }

    /// Notes that a child is not up any more; the actor that it was.
    fn take_down(&mut self, child: &ChildId) -> Option<ActorCell> {
        let (cell, since_ms) = self.children.down(child)?;
        if self.policy.is_stable(since_ms, self.now_ms()) {
            self.budget.stable(child);
        }
        Some(cell)
    }

    /// The children that the restart of this one may concern. Alone, it needs no look at thousands of others.
    fn family(&self, child: &ChildId) -> Vec<supervision::Child<ChildId>> {
        match self.policy.strategy {
            Strategy::OneForOne => self.children.get(child).iter().map(|slot| slot.child()).collect(),
            Strategy::OneForAll | Strategy::RestForOne => self.children.family(),
        }
    }

    /// Forgets a child that ended for good. Where siblings restart together, one that has finished may be
    /// started again with them.
    fn forget_unless_restartable(&mut self, child: &ChildId) {
        let temporary = self.children.get(child).is_some_and(|slot| slot.spec.kind == ChildKind::Temporary);
        if temporary || self.policy.strategy == Strategy::OneForOne {
            self.forget(child);
        }
    }

    fn forget(&mut self, child: &ChildId) {
        self.children.forget(child);
        self.budget.stable(child);
    }

    fn record_exit(&self, child: &ChildId, exit: Exit, detail: String) {
        self.tally.exited(exit);
        let at_ms = self.now_ms();
        self.journal.record(Entry::ChildExited { child: child.clone(), exit, detail, at_ms });
    }
}
