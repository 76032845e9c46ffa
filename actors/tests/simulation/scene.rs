//! One simulation from its seed: a platform that is killed and started, a world that misbehaves, a user, and the laws.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use events::api::{Command, Problem};
use events::artifact::{self, ArtifactStore};
use events::domain::{agent, crew};
use events::invariant::Law;
use events::projection::Unfinished;
use events::store::{Fault, Memory};
use events::{AgentId, CrewId, Digest, EventStore, Position, Recorded, Tenant, Timestamp, chain};
use hypercode_actors::{Clock, Leasing, Limits, Options, Platform, Resolved, Seams, Unresolved, watchdog};
use manifest::SecretSource;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::claim;
use super::dice::Dice;
use super::gateway::Gateway;
use super::laws::{self, Broken, Story, hold};
use super::life::{Life, Point};
use super::snapshots::Snapshots;
use super::user::{Door, User};
use super::wire::{Sabotage, Wire};
use super::world::{Sandboxes, World};

/// For how long things go wrong, in virtual time.
const TROUBLE: Duration = Duration::from_secs(30);
/// How long everything may take to come to an end once nothing goes wrong any more, in virtual time.
pub const PATIENCE: Duration = Duration::from_secs(3_600);

/// What a simulation came to.
pub struct Outcome {
    /// The hash of its whole log.
    pub hash: Digest,
    pub broken: Option<Broken>,
    pub log: Vec<Recorded>,
    /// How many snapshots the platform was given, and how many forged ones.
    pub snapshots: (usize, usize),
}

/// Plays the simulation of `seed` on a runtime of its own, with a clock of its own.
pub fn play(seed: u64, sabotage: Sabotage) -> Outcome {
    play_on(1, seed, sabotage)
}

/// The same with so many nodes, which share the log and a bus.
pub fn play_on(nodes: usize, seed: u64, sabotage: Sabotage) -> Outcome {
    runtime().block_on(async {
        let scene = Scene::new(nodes, seed, sabotage);
        let broken = scene.play().await.err();
        let log = std::mem::take(&mut scene.story().log);
        let hash = log.last().map_or(Digest::ZERO, |event| event.hash);
        Outcome { hash, broken, log, snapshots: scene.snapshots.given() }
    })
}

/// A runtime with a clock of its own.
pub fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads starts")
}

/// What the log tells, whatever goes wrong with the platform's own wire to it: it is read on and not read again.
#[derive(Clone)]
struct Reader {
    log: Memory,
    story: Arc<Mutex<Story>>,
}

impl Reader {
    fn so_far(&self) -> MutexGuard<'_, Story> {
        let mut story = self.story.lock().unwrap_or_else(PoisonError::into_inner);
        story.catch_up(&self.log);
        story
    }
}

/// Nobody in the simulation has a secret.
struct NoSecrets;

#[async_trait]
impl hypercode_actors::Secrets for NoSecrets {
    async fn resolve(&self, _: &Tenant, source: &SecretSource) -> Result<Resolved, Unresolved> {
        Err(Unresolved(format!("`{}` is not there", source.reference())))
    }
}

/// What the views would tell.
struct Registry(Reader);

#[async_trait]
impl hypercode_actors::Registry for Registry {
    async fn unfinished(&self, _: Position) -> Result<Unfinished, Problem> {
        Ok(laws::unfinished(&self.0.so_far()))
    }
}

/// A machine on which the platform runs, dies, stands still and is started again.
pub struct Machine {
    pub name: String,
    pub world: World,
    door: watch::Sender<Option<Door>>,
    stopped: watch::Sender<bool>,
    platform: Mutex<Option<Platform>>,
}

pub struct Scene {
    dice: Dice,
    pub machines: Vec<Machine>,
    pub log: Memory,
    reader: Reader,
    artifacts: Arc<dyn ArtifactStore>,
    snapshots: Snapshots,
    bus: nats::Memory,
    clock: Clock,
    sabotage: Sabotage,
    /// How long an answer about leases takes.
    pub answer: Duration,
    pub user: User,
}

pub fn profile(handler: &Value) -> Value {
    json!({ "description": "simulated", "handler": handler, "retry": { "maxAttempts": 3, "unclassified": "permanent" } })
}

fn crew_spec(dice: &Dice) -> Value {
    let strategy = dice.weighted(&[(6, "one_for_one"), (1, "one_for_all"), (1, "rest_for_one")]);
    let exhausted = dice.weighted(&[(4, "quarantine"), (1, "disband")]);
    let mut analyst = json!({ "name": "analyst", "profile": "analyst", "replicas": 2 });
    match dice.below(6) {
        0 => analyst["hibernate"] = json!({ "after": "5s", "wakeEvery": "90s" }),
        1 => analyst["hibernate"] = json!({ "after": "5s" }),
        _ => {}
    }
    let sandbox = if dice.one_in(2) { json!({ "pool": "small" }) } else { json!({}) };
    json!({
        "entry": "scout",
        "sandbox": sandbox,
        "members": [{ "name": "scout", "profile": "scout" }, analyst],
        "channels": [{ "from": "scout", "to": "analyst", "kinds": ["task"], "maxDepth": 2 }],
        "supervision": {
            "strategy": strategy, "maxRestarts": 5 + dice.below(30), "within": "60s", "onExhausted": exhausted,
            "backoff": { "initial": "100ms", "max": "2s", "jitter": 0.2 },
        },
        "liveness": { "heartbeat": "1s", "missed": 3, "progress": "10s" },
    })
}

fn pool_spec(dice: &Dice) -> Value {
    let standby = dice.weighted(&[(3, "running"), (1, "paused")]);
    let when_empty = dice.weighted(&[(2, "cold"), (1, "wait")]);
    let memory = dice.weighted(&[(1, "64Mi"), (1, "128Mi")]);
    let mut spec = json!({
        "size": { "min": 1, "max": 3 },
        "standby": standby,
        "resources": { "memory": memory },
        "refill": { "concurrency": 1 + dice.below(2), "idle": "10s" },
        "queue": { "whenEmpty": when_empty, "length": 10, "deadline": "5s" },
    });
    if dice.one_in(4) {
        spec["prestart"] = json!("analyst");
    }
    spec
}

impl Machine {
    fn new(name: String, dice: &Dice) -> Self {
        Self {
            name,
            world: World::new(dice.clone()),
            door: watch::Sender::new(None),
            stopped: watch::Sender::new(false),
            platform: Mutex::default(),
        }
    }

    /// What the platform lives on it, while it does or as long as nobody has seen that it does not.
    pub fn life(&self) -> Option<Life> {
        self.door.borrow().as_ref().map(|door| door.life.clone())
    }

    /// The process dies in mid-step. What it leaves in this one's memory is put away.
    pub fn kill(&self) {
        if let Some(door) = self.door.send_replace(None) {
            door.life.end();
        }
        self.world.set_gateway(None);
        if let Some(platform) = self.platform.lock().unwrap_or_else(PoisonError::into_inner).take() {
            put_away(platform);
        }
    }
}

fn put_away(platform: Platform) {
    tokio::spawn(async move { platform.shutdown().await });
}

impl Scene {
    pub fn new(nodes: usize, seed: u64, sabotage: Sabotage) -> Self {
        let dice = Dice::new(seed);
        let machines: Vec<Machine> =
            (0..nodes).map(|node| Machine::new(format!("node-{node}"), &dice)).collect();
        let doors = machines.iter().map(|machine| machine.door.subscribe()).collect();
        let log = Memory::new();
        Self {
            user: User::new(machines[0].world.clone(), doors),
            machines,
            reader: Reader { log: log.clone(), story: Arc::default() },
            log,
            artifacts: Arc::new(artifact::Memory::default()),
            snapshots: Snapshots::default(),
            bus: nats::Memory::new(),
            clock: Clock::starting_at(Timestamp(1_795_382_626_000_000), seed),
            sabotage,
            answer: Duration::ZERO,
            dice,
        }
    }

    fn seams(&self, machine: &Machine, life: &Life) -> Seams {
        let stopped = machine.stopped.subscribe();
        let wire = Wire::new(self.log.clone(), life.clone(), stopped, self.sabotage);
        let wire = Arc::new(wire.answering_within(self.answer));
        let bus = (self.machines.len() > 1).then(|| Arc::new(self.bus.clone()) as Arc<dyn nats::Bus>);
        Seams {
            store: Arc::clone(&wire) as Arc<dyn EventStore>,
            leases: wire,
            registry: Arc::new(Registry(self.reader.clone())),
            snapshots: Arc::new(self.snapshots.clone()),
            bus,
            artifacts: Arc::clone(&self.artifacts),
            provider: Arc::new(Sandboxes { world: machine.world.clone(), life: life.clone() }),
            secrets: Arc::new(NoSecrets),
            clock: self.clock.clone(),
        }
    }

    /// Starts the platform; one that cannot start ends and is started again, as an operator would.
    pub async fn start(&self, machine: &Machine) {
        let limits = Limits {
            passivate_idle_ms: 3_000,
            snapshot_every_events: 3,
            passivate_ended_ms: 500,
            grace_ms: 2_000,
            reconcile_every_ms: 10_000,
            effect_retry_initial_ms: 100,
            assembly_ms: 10_000,
            ..Limits::default()
        };
        let options = Options {
            node: machine.name.clone(),
            leasing: Leasing::default(),
            program: "/simulated/hypercode".into(),
            limits,
            admission: Default::default(),
        };
        loop {
            let life = Life::default();
            let platform = Platform::new(options.clone(), self.seams(machine, &life));
            let gateway = Arc::new(Gateway::new(life.clone(), platform.host(), self.sabotage));
            let watching =
                watchdog::Options { tick_ms: 1_000, pause_ms: 60_000, ..watchdog::Options::default() };
            let (handle, signals) = watchdog::Handle::channel(&watching);
            let (outbox, verdicts) = mpsc::channel(watching.verdicts_max);
            tokio::spawn(watchdog::drive(watching, signals, outbox));
            machine.world.set_gateway(Some(Arc::clone(&gateway)));
            match platform.start(gateway, handle, verdicts).await {
                Ok(()) => {
                    machine.door.send_replace(Some(Door { life, commands: platform.commands() }));
                    *machine.platform.lock().unwrap_or_else(PoisonError::into_inner) = Some(platform);
                    return;
                }
                Err(_) => {
                    life.end();
                    machine.world.set_gateway(None);
                    put_away(platform);
                    sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// What the log tells so far.
    pub fn story(&self) -> MutexGuard<'_, Story> {
        self.reader.so_far()
    }

    async fn play(&self) -> Result<(), Broken> {
        for machine in &self.machines {
            self.start(machine).await;
        }
        let mut work = JoinSet::new();
        let user = self.user.clone();
        let dice = self.dice.clone();
        let world = self.machines[0].world.clone();
        work.spawn(async move { live(&user, &dice, &world).await });
        let until = Instant::now() + TROUBLE * self.machines.len() as u32;
        while Instant::now() < until {
            sleep(self.dice.up_to_ms(2_000)).await;
            self.trouble().await;
            self.revive().await;
        }
        self.log.faults().clear();
        self.machines.iter().filter_map(Machine::life).for_each(|life| life.disarm());
        self.revive().await;
        self.machines.iter().for_each(|machine| machine.world.be_calm());
        while let Ok(Some(done)) = timeout(PATIENCE, work.join_next()).await {
            done.expect("the user does not panic");
        }
        hold(Law::Tk1, work.is_empty(), || "a command is never answered".to_owned())?;
        self.settle().await?;
        self.verify().await
    }

    /// Any of the machines; of one alone, that one.
    pub fn any_machine(&self) -> &Machine {
        match self.machines.len() {
            1 => &self.machines[0],
            machines => &self.machines[self.dice.below(machines as u64) as usize],
        }
    }

    /// A node dies, and is started again: soon where it is alone, after others took over where it is not.
    async fn kill(&self, machine: &Machine) {
        machine.kill();
        let alone = self.machines.len() == 1;
        sleep(self.dice.up_to_ms(if alone { 4_000 } else { 20_000 })).await;
        self.start(machine).await;
    }

    /// Nodes that died at a point are started again.
    pub async fn revive(&self) {
        for machine in &self.machines {
            if machine.life().is_none_or(|life| life.is_over()) {
                self.kill(machine).await;
            }
        }
    }

    /// Somebody is to die between two steps of a claim, whenever that comes.
    fn arm(&self, machine: &Machine) {
        let points: Vec<Point> = claim::points().collect();
        let point = points[self.dice.below(points.len() as u64) as usize];
        if let Some(life) = machine.life() {
            life.arm(point, machine.world.clone());
        }
    }

    /// A node stands still for so long that others take over, and goes on as if nothing had been.
    async fn stop(&self, machine: &Machine) {
        machine.stopped.send_replace(true);
        sleep(self.dice.up_to_ms(25_000)).await;
        machine.stopped.send_replace(false);
    }

    async fn trouble(&self) {
        let faults = self.log.faults();
        let machine = self.any_machine();
        if self.machines.len() > 1 && self.dice.one_in(10) {
            return self.stop(machine).await;
        }
        match self.dice.below(12) {
            0..2 => self.kill(machine).await,
            2..5 => {
                for _ in 0..=self.dice.below(3) {
                    let slow = Fault::SlowAck(self.dice.up_to_ms(1_500));
                    let kinds = [(2, Fault::LostAck), (1, Fault::NotAppended), (1, Fault::Full), (1, slow)];
                    faults.next_append(self.dice.weighted(&kinds));
                }
            }
            5 => {
                faults.set_down(true);
                sleep(self.dice.up_to_ms(3_000)).await;
                faults.clear();
            }
            6 => faults.fail_reads(1 + self.dice.below(4) as usize),
            7..9 => {
                let running = machine.world.running();
                if !running.is_empty() {
                    let (id, _) = &running[self.dice.below(running.len() as u64) as usize];
                    machine.world.end(id, Some(9));
                }
            }
            9 => self.arm(machine),
            _ => {}
        }
    }

    /// Nothing goes wrong any more: everything comes to its end.
    pub async fn settle(&self) -> Result<(), Broken> {
        let paused = crews(&self.story(), |status| status == crew::Status::Paused);
        for crew in paused {
            let _ = self.user.ask(Command::CrewResume { crew, raised: Default::default() }).await;
        }
        let until = Instant::now() + PATIENCE;
        loop {
            self.restart_quarantined().await;
            if self.is_settled(Instant::now() >= until)? {
                break;
            }
            sleep(Duration::from_secs(2)).await;
        }
        self.disband().await?;
        // What nobody owns is removed within this time of being found (SB-3).
        sleep(Duration::from_secs(60)).await;
        self.come_to_rest().await
    }

    /// Whether everything has come to its end; late, it has to have.
    fn is_settled(&self, is_late: bool) -> Result<bool, Broken> {
        let story = self.story();
        let (open, unsettled) = (story.open_tasks(), story.unsettled());
        hold(Law::Tk1, !is_late || open.is_empty(), || {
            let open: Vec<_> = open.iter().map(|(id, it)| format!("{id} {}", laws::describe(it))).collect();
            format!("tasks never end: {open:#?}")
        })?;
        hold(Law::Sv1, !is_late || unsettled.is_empty(), || format!("they never settle: {unsettled:?}"))?;
        Ok(open.is_empty() && unsettled.is_empty())
    }

    /// Waits until every agent is up, given up or gone: one that was lost a moment ago still has its sandbox.
    async fn come_to_rest(&self) -> Result<(), Broken> {
        let until = Instant::now() + PATIENCE;
        loop {
            let unsettled = self.story().unsettled();
            if unsettled.is_empty() {
                return Ok(());
            }
            hold(Law::Sv1, Instant::now() < until, || format!("they never settle: {unsettled:?}"))?;
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// A person looks after the agents that were set aside.
    async fn restart_quarantined(&self) {
        let quarantined: Vec<AgentId> = {
            let story = self.story();
            let set_aside =
                story.agents.iter().filter(|(_, told)| told.state.status == agent::Status::Quarantined);
            set_aside.map(|(id, _)| id.parse().expect("an agent's stream is named by its id")).collect()
        };
        for agent in quarantined {
            let _ = self.user.ask(Command::AgentRestart { agent }).await;
        }
    }

    /// In half of all simulations the crews end too, by one way or the other.
    async fn disband(&self) -> Result<(), Broken> {
        if !self.dice.one_in(2) {
            return Ok(());
        }
        let all = crews(&self.story(), |_| true);
        for crew in all {
            let id = crew.clone();
            let reason = "enough".to_owned();
            let command = if self.dice.one_in(2) {
                Command::CrewDrain { crew, grace_ms: None }
            } else {
                Command::CrewDisband { crew, reason }
            };
            let asked = timeout(PATIENCE, self.user.ask(command)).await;
            hold(Law::Sb3, asked.is_ok(), || format!("crew {id} never ends"))?;
        }
        let until = Instant::now() + PATIENCE;
        loop {
            if crews(&self.story(), |status| status != crew::Status::Disbanded).is_empty() {
                return Ok(());
            }
            hold(Law::Sb3, Instant::now() < until, || "a crew never ends".to_owned())?;
            sleep(Duration::from_secs(2)).await;
        }
    }

    pub async fn verify(&self) -> Result<(), Broken> {
        let running = watch::Sender::new(false);
        let wire = Wire::new(self.log.clone(), Life::default(), running.subscribe(), self.sabotage);
        let given = wire.read(Position(0), usize::MAX).await.expect("the log can be read");
        let verified = chain::verify(&wire).await;
        let so_far = self.story();
        // What the store gives its readers is what counts; mostly that is the log as it was read all along.
        let other = (given != so_far.log).then(|| Story::of(given));
        let story = other.as_ref().unwrap_or(&so_far);
        story.check()?;
        hold(Law::Es7, verified.is_ok(), || format!("{verified:?}"))?;
        let (wanted, standing_by) = (story.wanted(), story.standing_by());
        for Machine { name, world, .. } in &self.machines {
            let named = world.named();
            hold(Law::Sb2, named.is_empty(), || format!("they stood by for somebody: {named:?}"))?;
            for (id, agent, incarnation) in world.told() {
                hold(Law::Sb2, story.has_claimed(&agent, incarnation, id.as_str()), || {
                    format!("{id} was told of {agent}, who has not claimed it")
                })?;
            }
            let shared = world.shared();
            hold(Law::Sb1, shared.is_empty(), || format!("{shared:?}"))?;
            for (id, labels) in world.running() {
                let owned = [&wanted, &standing_by].iter().any(|owned| owned.get(id.as_str()) == Some(name));
                hold(Law::Sb3, owned, || format!("on {name} nobody owns {id} of {labels:?}"))?;
            }
        }
        let contradicted = self.user.contradicted();
        hold(Law::Es5, contradicted.is_empty(), || format!("{contradicted:?}"))?;
        for task in self.user.tasks() {
            hold(Law::Es3, story.tasks.contains_key(task.as_str()), || format!("{task} is gone"))?;
        }
        Ok(())
    }
}

/// The crews of which the log tells that they are so.
fn crews(story: &Story, so: impl Fn(crew::Status) -> bool) -> Vec<CrewId> {
    let so = story.crews.iter().filter(|(_, told)| so(told.state.status));
    so.map(|(id, _)| id.parse().expect("a crew's stream is named by its id")).collect()
}

/// What the user does while things go wrong.
async fn live(user: &User, dice: &Dice, world: &World) {
    let stdio = json!({ "protocol": "stdio", "command": ["scout"], "concurrency": 3, "startTimeout": "5s" });
    user.apply("scout", profile(&stdio)).await;
    let stdio = json!({
        "protocol": "stdio", "command": ["analyst"], "concurrency": 1, "startTimeout": "5s", "timeout": "25s",
    });
    user.apply("analyst", profile(&stdio)).await;
    user.apply_pool(pool_spec(dice)).await;
    let mut name = 0;
    while !world.is_calm() {
        name += 1;
        let assemble = Command::CrewAssemble {
            name: format!("crew-{name}"),
            labels: Default::default(),
            spec: crew_spec(dice),
        };
        let Ok(reply) = user.ask(assemble).await else { continue };
        let crew: CrewId = reply.id.parse().expect("a crew is named by its id");
        let agents: Vec<AgentId> = reply.body["agents"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|agent| agent["agent"].as_str()?.parse().ok())
            .collect();
        let mut asked = JoinSet::new();
        while !world.is_calm() {
            sleep(dice.up_to_ms(1_200)).await;
            let (user, crew, agents) = (user.clone(), crew.clone(), agents.clone());
            let (what, pool) = (dice.below(12), pool_spec(dice));
            asked.spawn(async move {
                match what {
                    0..8 => user.submit(&crew).await,
                    8 => user.meddle_with_pool(pool).await,
                    _ => user.meddle(&crew, &agents).await,
                }
            });
        }
        asked.join_all().await;
    }
}
