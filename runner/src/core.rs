//! The core of a runner: one loop that owns all state, is told of everything as an [`Event`], and never waits for
//! anyone while it handles one. Whoever floods it waits instead.

mod ahead;
mod calls;
mod life;
mod link_up;
mod messages;
mod outbox;
mod tasks;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use link::{Assign, Credit, HandlerInfo, Id, Ready, Secret, TaskFrame, TaskRef, TaskResultFrame, ToGateway};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use self::{
    ahead::Ahead,
    calls::OpenCall,
    messages::Inbox,
    outbox::{OnLoss, Outbox},
    tasks::Attempt,
};
use crate::{
    carrier::Carrier,
    event::{Event, Platform},
    log::Log,
    mask::Mask,
    options::Options,
    process::Family,
    uplink::Outgoing,
    workspace::Workspace,
};

/// Heartbeats until `welcome` says how often.
const HEARTBEAT_MS: u64 = 1_000;
/// However often a gateway asks for heartbeats.
const HEARTBEAT_MS_MIN: u64 = 20;
/// How long `welcome` may take before the link is tried anew.
const WELCOME_MS_MAX: u64 = 5_000;
/// How long the end waits for acknowledgements and for the peer's goodbye.
const LINGER_MS_MAX: u64 = 3_000;
/// How often a handler is asked whether it lives, if it said that it answers.
const PING_EVERY_MS: u64 = 5_000;

/// How a runner ended; the number is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Drained, or told that its incarnation is over.
    Done = 0,
    /// The handler could not be started or ended by itself.
    HandlerEnded = 1,
    /// No gateway came back within the orphan grace.
    Orphaned = 3,
}

/// Where the sandbox is in its one life.
#[derive(Debug)]
enum Phase {
    /// No agent yet.
    Standby,
    /// The handler is being started by this task.
    Starting(AbortHandle),
    /// The handler takes work.
    Running,
    /// The handler has been told to end; this drain is to be acknowledged, and this is how the runner ends.
    Stopping(Option<Id>, End),
    /// The handler is gone; what is queued still goes out.
    Ended(End),
}

/// What the sandbox was assigned.
struct Agent {
    assign: Assign,
    log: Log,
    carrier: Option<Arc<dyn Carrier>>,
    info: HandlerInfo,
    ready: Option<Ready>,
    /// Where the handler's source is.
    source: PathBuf,
}

/// The link as the core sees it.
struct Link {
    /// The way out, while there is a link.
    out: Option<mpsc::Sender<Outgoing>>,
    /// Whether `welcome` came.
    is_open: bool,
    /// Whether it was closed from this side, for good.
    is_closing: bool,
    /// Since when there is a link without `welcome`, or none at all.
    since: Instant,
    /// Since when no link has been open.
    lost_at: Instant,
    /// What the gateway believes it may still send.
    believed: Credit,
}

/// The state of a runner. See the module.
pub(crate) struct Core {
    options: Options,
    work: PathBuf,
    platform: Platform,
    family: Family,
    workspace: Workspace,
    token: watch::Sender<Option<Secret>>,
    phase: Phase,
    /// The handler that was started before there is an agent.
    ahead: Option<Ahead>,
    agent: Option<Agent>,
    link: Link,
    outbox: Outbox,
    /// What nothing that leaves the sandbox may hold.
    mask: Mask,
    last_id: u64,
    attempts: HashMap<Id, Attempt>,
    /// Tasks beyond what the handler takes: the gateway's view of the credit may lag behind.
    waiting: VecDeque<TaskFrame>,
    /// Results without acknowledgement, by frame id.
    results: BTreeMap<u64, TaskResultFrame>,
    calls: BTreeMap<u64, OpenCall>,
    inbox: Inbox,
    heartbeat: Interval,
    heartbeats: u64,
    pinged_at: Option<Instant>,
    ping_due: Option<Instant>,
    /// Sent again on every link: the handler's end or its failure to start.
    last_word: Option<ToGateway>,
    oom_kills: u64,
    /// Why the handler was killed from here, once it was.
    killed: Option<String>,
    ended_at: Option<Instant>,
    end: Option<End>,
}

fn every(ms: u64) -> Interval {
    let mut heartbeat = interval(Duration::from_millis(ms.max(HEARTBEAT_MS_MIN)));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

/// What a core is made of.
pub(crate) struct Parts {
    pub(crate) options: Options,
    /// The work directory, absolute and free of links.
    pub(crate) work: PathBuf,
    pub(crate) platform: Platform,
    pub(crate) workspace: Workspace,
    pub(crate) token: watch::Sender<Option<Secret>>,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        let Parts { options, work, platform, workspace, token } = parts;
        let mask = Mask::default();
        Self {
            options,
            work,
            platform,
            family: Family::of_root(),
            workspace,
            token,
            phase: Phase::Standby,
            ahead: None,
            agent: None,
            link: Link {
                out: None,
                is_open: false,
                is_closing: false,
                since: now,
                lost_at: now,
                believed: Credit::default(),
            },
            outbox: Outbox::new(now, mask.clone()),
            mask,
            last_id: 0,
            attempts: HashMap::new(),
            waiting: VecDeque::new(),
            results: BTreeMap::new(),
            calls: BTreeMap::new(),
            inbox: Inbox::default(),
            heartbeat: every(HEARTBEAT_MS),
            heartbeats: 0,
            pinged_at: None,
            ping_due: None,
            last_word: None,
            oom_kills: crate::process::oom_kills(),
            killed: None,
            ended_at: None,
            end: None,
        }
    }

    /// Runs until the sandbox's life is over.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>) -> std::io::Result<End> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut children = signal(SignalKind::child())?;
        loop {
            let sent = self.step(&mut events, &mut terminate, &mut children).await;
            if let Some((permit, text)) = sent {
                let permit: mpsc::OwnedPermit<Outgoing> = permit;
                permit.send(Outgoing::Text(text));
            }
            self.admit();
            self.deliver();
            self.give_credit();
            self.settle();
            if let Some(end) = self.end {
                return Ok(end);
            }
        }
    }

    /// Waits for the next thing that happens and handles it; answers what is to be sent, where something is.
    async fn step(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        terminate: &mut Signal,
        children: &mut Signal,
    ) -> Option<(mpsc::OwnedPermit<Outgoing>, String)> {
        let now = Instant::now();
        let deadline = self.deadline(now);
        let room = self.room(now);
        tokio::select! {
            biased;
            _ = terminate.recv() => self.stop(None, link::handler::ShutdownReason::Drain, None, End::Done),
            _ = children.recv() => self.family.reap_orphans(),
            Some(permit) = room => return Some((permit, self.outbox.pop(Instant::now())?)),
            Some(event) = events.recv() => self.handle(event),
            _ = self.heartbeat.tick() => self.beat(),
            () = sleep_until(deadline) => self.on_time(Instant::now()),
        }
        None
    }

    /// Room on the link, once there is something to send and it may go.
    fn room(&self, now: Instant) -> impl Future<Output = Option<mpsc::OwnedPermit<Outgoing>>> + use<> {
        let out = self.link.out.clone().filter(|_| self.link.is_open);
        let ready = self.outbox.ready_at(now);
        async move {
            // A timer is only as fine as a millisecond.
            if let Some(later) = ready.filter(|at| *at > now) {
                sleep_until(later).await;
            }
            ready?;
            out?.reserve_owned().await.ok()
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Uplink(uplink) => self.on_uplink(uplink),
            Event::Started(outcome) => self.on_started(*outcome),
            Event::Ahead => self.on_ahead(),
            Event::Call(call) => self.on_call(call),
            Event::Finished(task, attempt, outcome) => self.on_finished(&task, attempt, *outcome),
            Event::Delivered(message, outcome) => self.on_delivered(&message, outcome),
            Event::GraceOver(task, attempt) => self.on_grace_over(&task, attempt),
            Event::Alive(alive) => self.on_alive(alive),
            Event::Ping(ping) => self.on_ping(ping),
            Event::Oddity(kind, detail) => self.record(kind, &detail),
            Event::Exited(exit) => self.on_exited(exit),
            Event::Stopped => self.on_stopped(),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Queues a frame that is small by its nature.
    fn send(&mut self, frame: &ToGateway, on_loss: OnLoss) {
        if let Err(error) = self.outbox.push(frame, on_loss) {
            tracing::warn!(%error, "a frame was not sent");
        }
    }

    /// How many tasks the handler takes at once.
    fn concurrency(&self) -> usize {
        let Some(agent) = &self.agent else { return 0 };
        agent.assign.handler.concurrency().min(agent.info.concurrency).max(1) as usize
    }

    /// Every attempt in hand, begun or not, but for those that are fenced.
    fn in_hand(&self) -> Vec<TaskRef> {
        let begun = self.attempts.iter().filter(|(_, attempt)| !attempt.is_dropped);
        let begun =
            begun.map(|(task_id, attempt)| TaskRef { task_id: task_id.clone(), attempt: attempt.number });
        let waiting = self.waiting.iter();
        let waiting =
            waiting.map(|task| TaskRef { task_id: task.params.task_id.clone(), attempt: task.attempt });
        begun.chain(waiting).collect()
    }

    /// Tells the gateway how much more is welcome, where that is more than it believes.
    fn give_credit(&mut self) {
        if !self.link.is_open {
            return;
        }
        let is_running = matches!(self.phase, Phase::Running);
        let room = if is_running {
            let tasks = self.concurrency().saturating_sub(self.attempts.len() + self.waiting.len());
            Credit { tasks: u32::try_from(tasks).unwrap_or(u32::MAX), messages: self.inbox.room() }
        } else {
            Credit::default()
        };
        let believed = self.link.believed;
        let is_more =
            room.tasks > believed.tasks || Inbox::is_worth_telling(believed.messages, room.messages);
        let is_over = !is_running && believed != room;
        if is_more || is_over {
            self.send(&ToGateway::Credit(room), OnLoss::Forget);
            self.link.believed = room;
        }
    }
}
