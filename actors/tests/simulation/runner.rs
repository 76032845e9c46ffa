//! A runner in its sandbox: links, links again, reports, and has its handler work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{CommandId, SandboxId};
use gateway::{Activity, Host, HostCall, Peer};
use link::{ErrorType, handler::HandlerInfo};
use sandbox::Id;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::gateway::{Frame, Gateway};
use super::handler;
use super::world::World;

/// How long a runner waits before it tries to link again.
const RELINK: Duration = Duration::from_millis(200);

/// One link, while it lasts.
#[derive(Clone)]
struct Session {
    gateway: Arc<Gateway>,
    peer: Peer,
    over: CancellationToken,
}

/// A call that waits for its answer: over when it is answered, and when it is given up.
struct Open {
    gateway: Arc<Gateway>,
    sandbox: SandboxId,
}

impl Open {
    fn new(gateway: Arc<Gateway>, sandbox: SandboxId) -> Self {
        gateway.host.activity(&sandbox, Activity::CallStarted);
        Self { gateway, sandbox }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.gateway.life.is_over() {
            self.gateway.host.activity(&self.sandbox, Activity::CallEnded);
        }
    }
}

/// An attempt in hand.
#[derive(Clone)]
pub struct Held {
    pub task: link::Id,
    pub attempt: u32,
    pub fence: u64,
    pub canceled: CancellationToken,
    spoke: Instant,
}

/// What handler and runner share: the link, as far as there is one, and what is in hand.
#[derive(Clone)]
pub struct Line {
    pub world: World,
    pub sandbox: SandboxId,
    session: watch::Sender<Option<Session>>,
    held: Arc<Mutex<BTreeMap<(link::Id, u32), Held>>>,
    frames: Arc<Mutex<u64>>,
}

impl Line {
    fn held(&self) -> MutexGuard<'_, BTreeMap<(link::Id, u32), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_frame(&self) -> u64 {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        *frames += 1;
        *frames
    }

    /// The id of one frame of this sandbox: the same when it is sent again.
    fn command(&self, frame: u64) -> CommandId {
        CommandId::derive(&["frame", self.sandbox.as_str(), &frame.to_string()])
    }

    /// Sends something over the link that there is, or the next that there will be, until it is answered.
    async fn ask<T, F>(&self, send: impl Fn(Arc<Gateway>, Peer) -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        loop {
            // Asked again and again, since a watch wakes those who wait in an order of its own.
            let Some(session) = self.session.borrow().clone() else {
                sleep(RELINK).await;
                continue;
            };
            let answer = tokio::select! {
                biased;
                () = session.over.cancelled() => None,
                answer = session.gateway.life.or_gone(send(Arc::clone(&session.gateway), session.peer.clone())) => {
                    answer.flatten()
                }
            };
            match answer {
                // The answer may be lost on its way; then all of it comes again.
                Some(_) if !self.world.is_calm() && self.world.dice.one_in(12) => {}
                Some(answer) => return answer,
                None => sleep(RELINK).await,
            }
        }
    }

    /// A request of the handler.
    pub async fn call(&self, held: &Held, call: HostCall) -> Result<Value, link::Error> {
        let command = self.command(self.next_frame());
        self.heard(held);
        let answer = self
            .ask(|gateway, peer| {
                let call = call.clone();
                async move {
                    let _open = Open::new(Arc::clone(&gateway), peer.sandbox.clone());
                    let answer = gateway.host.call(&peer, command, call).await;
                    match answer {
                        Err(error) if error.kind == Some(ErrorType::Unavailable) => None,
                        answer => Some(answer),
                    }
                }
            })
            .await;
        self.heard(held);
        answer
    }

    /// The end of an attempt, sent until it is acknowledged.
    pub async fn result(&self, held: &Held, outcome: Result<link::handler::Executed, link::Error>) {
        let id = self.next_frame();
        let command = self.command(id);
        let Held { task, attempt, fence, .. } = held.clone();
        let frame = link::TaskResultFrame { id, task_id: task, attempt, fence, outcome, ms: 1 };
        self.ask(|gateway, peer| {
            let frame = frame.clone();
            async move { give(&gateway, &peer, command, frame).await }
        })
        .await;
    }

    /// The same result a little later and past everything: read from the link before it was cut off.
    pub fn straggle(&self, held: &Held, outcome: Result<link::handler::Executed, link::Error>) {
        let Some(session) = self.session.borrow().clone() else { return };
        let id = self.next_frame();
        let command = self.command(id);
        let frame = link::TaskResultFrame {
            id,
            task_id: held.task.clone(),
            attempt: held.attempt,
            fence: held.fence,
            outcome,
            ms: 1,
        };
        let delay = self.world.dice.up_to_ms(8_000);
        // Not a part of the sandbox: it arrives even when that has ended.
        tokio::spawn(async move {
            sleep(delay).await;
            let Session { gateway, peer, .. } = session;
            gateway.life.or_gone(give(&gateway, &peer, command, frame)).await;
        });
    }

    fn heard(&self, held: &Held) {
        if let Some(held) = self.held().get_mut(&(held.task.clone(), held.attempt)) {
            held.spoke = Instant::now();
        }
    }

    fn resume(&self) -> link::Resume {
        let held = self.held();
        let tasks = held.values().map(|held| link::ResumedTask {
            task_id: held.task.clone(),
            attempt: held.attempt,
            fence: held.fence,
            state: link::ResumeState::Running,
            idle_ms: 0,
        });
        link::Resume { tasks: tasks.collect(), calls: Vec::new() }
    }

    fn heartbeat(&self, seq: u64) -> link::Heartbeat {
        let held = self.held();
        let tasks = held.values().map(|held| link::HeldTask {
            task_id: held.task.clone(),
            attempt: held.attempt,
            idle_ms: held.spoke.elapsed().as_millis() as u64,
            lease_ms: 0,
        });
        link::Heartbeat { seq, tasks: tasks.collect(), ..link::Heartbeat::default() }
    }
}

async fn give(
    gateway: &Gateway,
    peer: &Peer,
    command: CommandId,
    frame: link::TaskResultFrame,
) -> Option<()> {
    let (peer, frame) = gateway.stamp(peer.clone(), frame);
    match gateway.host.task_result(&peer, command, frame).await {
        Err(error) if error.kind == Some(ErrorType::Unavailable) => None,
        _ => Some(()),
    }
}

/// Why a link ended.
enum Ended {
    /// It may be made again.
    Lost,
    /// The sandbox is done.
    Done,
}

/// Runs until the sandbox ends.
pub async fn run(world: World, id: Id) {
    let sandbox: SandboxId = id.as_str().parse().expect("the platform names sandboxes so");
    let line = Line {
        world: world.clone(),
        sandbox: sandbox.clone(),
        session: watch::Sender::new(None),
        held: Arc::default(),
        frames: Arc::default(),
    };
    let mut runner = Runner { id: id.clone(), line, assigned: None, handlers: JoinSet::new() };
    sleep(world.dice.up_to_ms(40)).await;
    loop {
        if let Some(gateway) = world.gateway()
            && let Some(frames) = gateway.accept(&sandbox, world.is_of_pool(&id))
        {
            let ended = gateway.life.or_gone(runner.link(&gateway, frames)).await;
            if let Some(session) = runner.line.session.send_replace(None) {
                session.over.cancel();
            }
            if matches!(ended, Some(Ended::Done)) {
                world.end(&id, None);
                return;
            }
            gateway.hang_up(&sandbox, "the link was lost");
        }
        sleep(RELINK).await;
    }
}

struct Runner {
    id: Id,
    line: Line,
    assigned: Option<link::Assign>,
    handlers: JoinSet<()>,
}

impl Runner {
    async fn link(&mut self, gateway: &Arc<Gateway>, mut frames: mpsc::Receiver<Frame>) -> Ended {
        let host = &gateway.host;
        let sandbox = self.line.sandbox.clone();
        let hello = link::Hello {
            v: vec![1],
            runner: "simulated".into(),
            arch: String::new(),
            resume: Some(self.line.resume()),
        };
        let linked = match host.linked(&sandbox, &hello, self.assigned.is_some()).await {
            Ok(linked) => linked,
            Err(error) if error.kind == Some(ErrorType::Unavailable) => return Ended::Lost,
            Err(_) => return Ended::Done,
        };
        for stale in &linked.drop {
            if let Some(held) = self.line.held().remove(&(stale.task_id.clone(), stale.attempt)) {
                held.canceled.cancel();
            }
        }
        let assign = match linked.assign {
            None if self.assigned.is_none() => match self.stand_by(&**host, &mut frames, &linked).await {
                Ok(assign) => Some(assign),
                Err(ended) => return ended,
            },
            assign => assign,
        };
        if let Some(assign) = assign {
            self.line.world.serves(&self.id, assign.agent.id.as_str(), assign.agent.incarnation);
            if self.assigned.is_none() {
                sleep(self.line.world.dice.up_to_ms(100)).await;
            }
            self.assigned = Some(*assign);
        }
        let Some(assign) = self.assigned.clone() else { return Ended::Lost };
        let Some(peer) = gateway.peer(&sandbox) else { return Ended::Lost };
        if !self.line.world.is_calm() && self.line.world.dice.one_in(25) {
            let failed = link::Failed {
                re: Some(assign.id),
                stage: link::Stage::Initialize,
                message: "no such file".into(),
                exit_code: Some(1),
                signal: None,
                log_tail: String::new(),
            };
            host.failed(&sandbox, failed).await;
            return Ended::Done;
        }
        let info = HandlerInfo { concurrency: assign.handler.concurrency(), ..HandlerInfo::default() };
        let ready = link::Ready { re: assign.id, source_ms: 0, spawn_ms: 1, initialize_ms: 1, handler: info };
        host.ready(&sandbox, ready).await;
        let session = Session { gateway: Arc::clone(gateway), peer, over: CancellationToken::new() };
        self.line.session.send_replace(Some(session));
        self.serve(&**host, &mut frames, assign.liveness.heartbeat_ms).await
    }

    /// Waits until it is somebody's.
    async fn stand_by(
        &self,
        host: &dyn Host,
        frames: &mut mpsc::Receiver<Frame>,
        linked: &gateway::Linked,
    ) -> Result<Box<link::Assign>, Ended> {
        let world = &self.line.world;
        let is_ahead = linked.prestart.is_some();
        let handler = if is_ahead { link::HandlerState::Idle } else { link::HandlerState::None };
        let mut beats = interval(Duration::from_millis(linked.heartbeat_ms.max(1)));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seq = 0;
        loop {
            tokio::select! {
                biased;
                frame = frames.recv() => {
                    world.moves(&self.id).await;
                    match frame {
                        None => return Err(Ended::Lost),
                        Some(Frame::Assign(assign)) => return Ok(assign),
                        Some(Frame::Drain) => {
                            host.drained(&self.line.sandbox).await;
                            return Err(Ended::Done);
                        }
                        Some(Frame::Cancel(_) | Frame::Task(_)) => {}
                    }
                }
                _ = beats.tick() => {
                    world.moves(&self.id).await;
                    seq += 1;
                    let beat = link::Heartbeat { seq, handler, ..link::Heartbeat::default() };
                    host.heartbeat(&self.line.sandbox, &beat);
                    if !world.is_calm() {
                        match world.dice.below(100) {
                            0 => return Err(Ended::Lost),
                            1 if is_ahead => {
                                host.exited(&self.line.sandbox, link::Exited::default()).await;
                                return Err(Ended::Done);
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    async fn serve(
        &mut self,
        host: &dyn Host,
        frames: &mut mpsc::Receiver<Frame>,
        heartbeat_ms: u64,
    ) -> Ended {
        let dice = self.line.world.dice.clone();
        let mut beats = interval(Duration::from_millis(heartbeat_ms.max(1)));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seq = 0;
        loop {
            tokio::select! {
                biased;
                frame = frames.recv() => match frame {
                    None => return Ended::Lost,
                    // It was told so already, by the answer to its link.
                    Some(Frame::Assign(_)) => {}
                    Some(Frame::Drain) => {
                        host.drained(&self.line.sandbox).await;
                        return Ended::Done;
                    }
                    Some(Frame::Cancel(cancel)) => self.cancel(&cancel),
                    Some(Frame::Task(task)) => self.start(*task),
                },
                _ = beats.tick() => {
                    seq += 1;
                    host.heartbeat(&self.line.sandbox, &self.line.heartbeat(seq));
                    if !self.line.world.is_calm() {
                        match dice.below(400) {
                            // The link breaks; or it stands, and nothing is heard for longer than is borne.
                            0..6 => return Ended::Lost,
                            6..8 => sleep(Duration::from_secs(8)).await,
                            8..10 => {
                                host.exited(&self.line.sandbox, link::Exited::default()).await;
                                return Ended::Done;
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    fn cancel(&self, cancel: &link::CancelFrame) {
        if let Some(held) = self.line.held().get(&(cancel.task_id.clone(), cancel.attempt)) {
            held.canceled.cancel();
        }
    }

    fn start(&mut self, frame: link::TaskFrame) {
        let key = (frame.params.task_id.clone(), frame.attempt);
        let held = Held {
            task: key.0.clone(),
            attempt: key.1,
            fence: frame.fence,
            canceled: CancellationToken::new(),
            spoke: Instant::now(),
        };
        if self
            .line
            .held()
            .insert(key.clone(), held.clone())
            .is_some_and(|earlier| earlier.fence == frame.fence)
        {
            return;
        }
        let (line, id) = (self.line.clone(), self.id.clone());
        let leads = self.assigned.as_ref().is_some_and(|assign| assign.agent.member == "scout");
        while self.handlers.try_join_next().is_some() {}
        self.handlers.spawn(async move {
            handler::execute(&line, &id, &held, frame.params, leads).await;
            let mut in_hand = line.held();
            if in_hand.get(&key).is_some_and(|it| it.fence == held.fence) {
                in_hand.remove(&key);
            }
        });
    }
}
