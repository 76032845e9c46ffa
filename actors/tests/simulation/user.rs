//! A user who asks for this and that, and asks again where no answer came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::api::{Caller, Command, Commands, Problem, Reply, Target};
use events::{AgentId, CrewId, Principal, TaskId, Tenant};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::life::Life;
use super::world::World;

/// The door to a platform, while it lives.
#[derive(Clone)]
pub struct Door {
    pub life: Life,
    pub commands: Arc<dyn Commands>,
}

/// What the user remembers.
#[derive(Default)]
struct Memory {
    keys: u64,
    /// What each key was answered with.
    answers: BTreeMap<String, BTreeSet<String>>,
    tasks: Vec<TaskId>,
}

#[derive(Clone)]
pub struct User {
    world: World,
    doors: Vec<watch::Receiver<Option<Door>>>,
    memory: Arc<Mutex<Memory>>,
}

impl User {
    pub fn new(world: World, doors: Vec<watch::Receiver<Option<Door>>>) -> Self {
        Self { world, doors, memory: Arc::default() }
    }

    /// The door of any node.
    fn door(&self) -> Option<Door> {
        let at = match self.doors.len() {
            1 => 0,
            doors => self.world.dice.below(doors as u64) as usize,
        };
        self.doors[at].borrow().clone()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys that were answered with more than one thing.
    pub fn contradicted(&self) -> Vec<(String, BTreeSet<String>)> {
        let memory = self.memory();
        let several = memory.answers.iter().filter(|(_, answers)| answers.len() > 1);
        several.map(|(key, answers)| (key.clone(), answers.clone())).collect()
    }

    /// The tasks that were accepted.
    pub fn tasks(&self) -> Vec<TaskId> {
        self.memory().tasks.clone()
    }

    /// Asks under a key of its own until there is an answer; sometimes once more, as if it had been lost.
    pub async fn ask(&self, command: Command) -> Result<Reply, Problem> {
        let key = {
            let mut memory = self.memory();
            memory.keys += 1;
            format!("key-{}", memory.keys)
        };
        let caller = Caller {
            tenant: Tenant::default(),
            principal: Principal::user("ada"),
            idempotency_key: Some(key.as_str().into()),
            traceparent: None,
        };
        loop {
            // Asked again and again, since a watch wakes those who wait in an order of its own.
            let Some(Door { life, commands }) = self.door() else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            match life.or_gone(commands.execute(&caller, command.clone())).await {
                Some(Ok(reply)) => {
                    self.memory().answers.entry(key.clone()).or_default().insert(reply.id.clone());
                    if self.world.is_calm() || !self.world.dice.one_in(6) {
                        return Ok(reply);
                    }
                }
                Some(Err(problem)) if !problem.kind.is_retryable() => return Err(problem),
                Some(Err(_)) | None => {}
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    pub async fn apply(&self, name: &str, spec: Value) {
        let command = Command::ProfileApply { name: name.into(), spec, bundle: None };
        self.ask(command).await.expect("the profile is good");
    }

    /// Applies the pool `small`.
    pub async fn apply_pool(&self, spec: Value) {
        let command = Command::PoolApply { name: "small".into(), spec };
        self.ask(command).await.expect("the pool is good");
    }

    /// Does something to the pool; what is not possible is refused, and that is fine.
    pub async fn meddle_with_pool(&self, spec: Value) {
        let dice = &self.world.dice;
        let name = "small".to_owned();
        let command = match dice.below(4) {
            0 => Command::PoolDrain { name, reason: "enough".into() },
            1 => Command::PoolApply { name, spec },
            _ => {
                let pinned = Target::Pinned(dice.below(4) as u32);
                let target = dice.weighted(&[(2, Some(pinned)), (1, Some(Target::Auto)), (1, None)]);
                Command::PoolResize { name, min: None, max: Some(3 + dice.below(3) as u32), target }
            }
        };
        let _ = self.ask(command).await;
    }

    /// Submits a task, and remembers it.
    pub async fn submit(&self, crew: &CrewId) {
        let dice = &self.world.dice;
        let to = dice.weighted(&[(6, None), (3, Some("analyst")), (1, Some("analyst[0]"))]);
        let deadline_ms = dice.one_in(8).then(|| 2_000 + dice.below(30_000));
        let command = Command::TaskSubmit {
            crew: crew.clone(),
            to: to.map(str::to_owned),
            input: json!({ "text": "count" }),
            subject: None,
            context: dice.one_in(3).then(|| "cx-1".to_owned()),
            deadline_ms,
        };
        if let Ok(reply) = self.ask(command).await {
            let task: TaskId = reply.id.parse().expect("a task is named by its id");
            let mut memory = self.memory();
            if !memory.tasks.contains(&task) {
                memory.tasks.push(task);
            }
        }
    }

    /// Does something to a crew or its tasks; what is not possible is refused, and that is fine.
    pub async fn meddle(&self, crew: &CrewId, agents: &[AgentId]) {
        let dice = &self.world.dice;
        let tasks = self.tasks();
        let some_task =
            || (!tasks.is_empty()).then(|| tasks[dice.below(tasks.len() as u64) as usize].clone());
        let command = match dice.below(12) {
            0..4 => some_task().map(|task| Command::TaskCancel { task, reason: "enough".into() }),
            4..6 => some_task().map(|task| Command::TaskRetry { task }),
            6..8 => some_task().map(|task| {
                let key = if dice.one_in(2) { "q" } else { "p" }.to_owned();
                Command::InputAnswer { task, key, accept: true, content: json!("this one") }
            }),
            8 => {
                let replicas = 1 + dice.below(3) as u32;
                Some(Command::CrewScale { crew: crew.clone(), member: "analyst".into(), replicas })
            }
            9 => {
                let _ = self.ask(Command::CrewPause { crew: crew.clone() }).await;
                sleep(dice.up_to_ms(2_000)).await;
                Some(Command::CrewResume { crew: crew.clone(), raised: Default::default() })
            }
            _ if agents.is_empty() => None,
            _ => {
                let agent = agents[dice.below(agents.len() as u64) as usize].clone();
                Some(Command::AgentRestart { agent })
            }
        };
        if let Some(command) = command {
            let _ = self.ask(command).await;
        }
    }
}
