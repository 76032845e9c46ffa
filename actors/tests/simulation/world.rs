//! What outlives the platform's process: the sandboxes, and whatever works in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sandbox::{Error, Exit, Found, Id, Isolation, Kind, Labels, Level, Pid, Provider, Running, Spec, State};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use super::dice::Dice;
use super::gateway::Gateway;
use super::life::Life;
use super::runner;

/// Exits that a slow reader may be behind.
const EXITS_MAX: usize = 1_024;

struct Sandbox {
    labels: Labels,
    /// What works in it; none once it has ended.
    runner: Option<AbortHandle>,
    exit: Option<Exit>,
    /// Nothing in it moves.
    paused: bool,
}

struct Inner {
    sandboxes: BTreeMap<Id, Sandbox>,
    /// Ids that were used and whose sandboxes are gone.
    used: BTreeSet<Id>,
    /// The incarnations that a sandbox was told to be (SB-1).
    served: BTreeMap<Id, BTreeSet<(String, u64)>>,
}

/// Everything beside the platform. Clones are of the same world.
#[derive(Clone)]
pub struct World {
    pub dice: Dice,
    inner: Arc<Mutex<Inner>>,
    exits: broadcast::Sender<Exit>,
    gateway: watch::Sender<Option<Arc<Gateway>>>,
    calm: watch::Sender<bool>,
}

impl World {
    pub fn new(dice: Dice) -> Self {
        let inner = Inner { sandboxes: BTreeMap::new(), used: BTreeSet::new(), served: BTreeMap::new() };
        Self {
            dice,
            inner: Arc::new(Mutex::new(inner)),
            exits: broadcast::channel(EXITS_MAX).0,
            gateway: watch::Sender::new(None),
            calm: watch::Sender::new(false),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The platform is up, and this is where its sockets are; or it is down.
    pub fn set_gateway(&self, gateway: Option<Arc<Gateway>>) {
        self.gateway.send_replace(gateway);
    }

    pub fn gateway(&self) -> Option<Arc<Gateway>> {
        self.gateway.borrow().clone().filter(|gateway| !gateway.life.is_over())
    }

    /// No more faults: whoever is asked from now on does well.
    pub fn be_calm(&self) {
        self.calm.send_replace(true);
    }

    pub fn is_calm(&self) -> bool {
        *self.calm.borrow()
    }

    /// Whether the sandbox was made to stand by.
    pub fn is_of_pool(&self, id: &Id) -> bool {
        self.inner().sandboxes.get(id).is_some_and(|sandbox| sandbox.labels.pool.is_some())
    }

    /// Waits until the sandbox is not paused.
    pub async fn moves(&self, id: &Id) {
        while self.inner().sandboxes.get(id).is_some_and(|sandbox| sandbox.paused) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Waits until there are no more faults.
    pub async fn calm(&self) {
        while !self.is_calm() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    /// A sandbox was told whom it serves.
    pub fn serves(&self, id: &Id, agent: &str, incarnation: u64) {
        self.inner().served.entry(id.clone()).or_default().insert((agent.to_owned(), incarnation));
    }

    /// Sandboxes that served more than one incarnation.
    pub fn shared(&self) -> Vec<(Id, BTreeSet<(String, u64)>)> {
        let inner = self.inner();
        let shared = inner.served.iter().filter(|(_, served)| served.len() > 1);
        shared.map(|(id, served)| (id.clone(), served.clone())).collect()
    }

    /// Every incarnation that some sandbox was told to be.
    pub fn told(&self) -> Vec<(Id, String, u64)> {
        let inner = self.inner();
        let told = inner.served.iter().flat_map(|(id, served)| {
            served.iter().map(|(agent, incarnation)| (id.clone(), agent.clone(), *incarnation))
        });
        told.collect()
    }

    /// Sandboxes that were made to stand by, and were told of an agent as they were made.
    pub fn named(&self) -> Vec<Id> {
        let inner = self.inner();
        let named = inner.sandboxes.iter().filter(|(_, sandbox)| {
            sandbox.labels.pool.is_some()
                && (sandbox.labels.agent.is_some() || sandbox.labels.incarnation.is_some())
        });
        named.map(|(id, _)| id.clone()).collect()
    }

    /// Everything that runs ends by a signal.
    pub fn end_all(&self) {
        self.running().iter().for_each(|(id, _)| self.end(id, Some(9)));
    }

    /// The sandboxes that run.
    pub fn running(&self) -> Vec<(Id, Labels)> {
        let inner = self.inner();
        let running = inner.sandboxes.iter().filter(|(_, sandbox)| sandbox.runner.is_some());
        running.map(|(id, sandbox)| (id.clone(), sandbox.labels.clone())).collect()
    }

    /// Everything in the sandbox ends, by a signal or by itself; its files are left.
    pub fn end(&self, id: &Id, signal: Option<i32>) {
        let runner = {
            let mut inner = self.inner();
            let Some(sandbox) = inner.sandboxes.get_mut(id) else { return };
            let Some(runner) = sandbox.runner.take() else { return };
            let code = signal.is_none().then_some(0);
            let exit = Exit { id: id.clone(), code, signal, oom: false, log: String::new() };
            sandbox.exit = Some(exit.clone());
            // Nobody listens while the platform is down.
            let _ = self.exits.send(exit);
            runner
        };
        runner.abort();
        if let (Some(gateway), Ok(sandbox)) = (self.gateway(), id.as_str().parse()) {
            gateway.hang_up(&sandbox, "end of file");
        }
    }
}

/// The world's sandboxes as one life of the platform reaches them.
pub struct Sandboxes {
    pub world: World,
    pub life: Life,
}

fn found(id: &Id, sandbox: &Sandbox) -> Found {
    let state = match &sandbox.exit {
        Some(exit) => State::Ended(exit.clone()),
        None => State::Running(None),
    };
    Found { id: id.clone(), labels: sandbox.labels.clone(), socket: None, state }
}

fn running(id: &Id) -> Running {
    Running { id: id.clone(), runner: Some(Pid { pid: 1, start_ticks: 1 }), work: "/simulated".into() }
}

impl Sandboxes {
    fn make(&self, spec: &Spec) -> Result<Running, Error> {
        let mut inner = self.world.inner();
        let id = spec.id.clone();
        match inner.sandboxes.get(&id) {
            Some(sandbox) if sandbox.runner.is_some() => return Ok(running(&id)),
            Some(_) => return Err(Error::Used { id }),
            None if inner.used.contains(&id) => return Err(Error::Used { id }),
            None => {}
        }
        inner.used.insert(id.clone());
        if !self.world.is_calm() && self.world.dice.one_in(20) {
            return Err(Error::Start { id, reason: "no processes are left".to_owned() });
        }
        let runner = tokio::spawn(runner::run(self.world.clone(), id.clone())).abort_handle();
        let sandbox =
            Sandbox { labels: spec.labels.clone(), runner: Some(runner), exit: None, paused: false };
        inner.sandboxes.insert(id.clone(), sandbox);
        Ok(running(&id))
    }

    fn running(&self, id: &Id) -> Result<(), Error> {
        let inner = self.world.inner();
        let runs = inner.sandboxes.get(id).is_some_and(|sandbox| sandbox.runner.is_some());
        if runs { Ok(()) } else { Err(Error::NotRunning { id: id.clone() }) }
    }

    fn set_paused(&self, id: &Id, paused: bool) -> Result<(), Error> {
        self.running(id)?;
        if let Some(sandbox) = self.world.inner().sandboxes.get_mut(id) {
            sandbox.paused = paused;
        }
        Ok(())
    }
}

#[async_trait]
impl Provider for Sandboxes {
    fn kind(&self) -> Kind {
        Kind::Process
    }

    fn isolation(&self) -> Isolation {
        Isolation { level: Level::None, held: Vec::new(), not_held: Vec::new() }
    }

    async fn create(&self, spec: &Spec) -> Result<Running, Error> {
        let create = async {
            tokio::time::sleep(self.world.dice.up_to_ms(30)).await;
            self.make(spec)
        };
        self.life.step("create", create).await
    }

    async fn destroy(&self, id: &Id) -> Result<(), Error> {
        let destroy = async {
            tokio::time::sleep(self.world.dice.up_to_ms(30)).await;
            self.world.end(id, Some(9));
            let mut inner = self.world.inner();
            inner.used.insert(id.clone());
            inner.sandboxes.remove(id);
        };
        self.life.step("destroy", destroy).await;
        Ok(())
    }

    async fn update(&self, id: &Id, _: &sandbox::Resources) -> Result<(), Error> {
        self.life.step("update", async { self.running(id) }).await
    }

    async fn pause(&self, id: &Id) -> Result<(), Error> {
        self.life.step("pause", async { self.set_paused(id, true) }).await
    }

    async fn unpause(&self, id: &Id) -> Result<(), Error> {
        self.life.step("unpause", async { self.set_paused(id, false) }).await
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        self.life.within(async {}).await;
        Ok(self.world.inner().sandboxes.iter().map(|(id, sandbox)| found(id, sandbox)).collect())
    }

    async fn find(&self, id: &Id) -> Result<Option<Found>, Error> {
        self.life.within(async {}).await;
        Ok(self.world.inner().sandboxes.get(id).map(|sandbox| found(id, sandbox)))
    }

    async fn log(&self, _: &sandbox::Id, _: u64) -> Result<Option<String>, sandbox::Error> {
        Ok(None)
    }

    async fn signal(&self, id: &Id, _: sandbox::Target, _: sandbox::Signal) -> Result<(), Error> {
        Err(Error::NotRunning { id: id.clone() })
    }

    async fn owns(&self, _: &Id, _: sandbox::Peer) -> Result<bool, Error> {
        Ok(true)
    }

    fn exits(&self) -> broadcast::Receiver<Exit> {
        self.world.exits.subscribe()
    }
}
