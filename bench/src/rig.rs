//! A platform in this process, with a crew of the benches' own handlers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::api::{Caller, Command, Reply};
use events::store::EventStore;
use events::{CrewId, EntityKind, Position, Principal, Recorded, Tenant};
use hypercode::config::Config;
use hypercode::platform::Platform;
use manifest::Manifest;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::place::Place;
use crate::sandboxes::Sandbox;
use crate::{Result, pools};

/// Events read at a time.
const READ_EVENTS: usize = 1_000;
/// How long a hint of the log's head is waited for before the log is read all the same.
const HINT: Duration = Duration::from_millis(200);
/// How long a task may take before the bench is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The profile of every member; the platform takes `hypercode` for the program that runs.
const PROFILE: &str = "
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: worker}
spec:
  handler: {protocol: stdio, command: [hypercode, worker], concurrency: 64, startTimeout: 60s}
";

/// How a task ended: the kind of its last event, and that event's payload.
type End = (Arc<str>, Value);

/// Tasks that ended before anybody asked, and askers whose tasks have not.
#[derive(Default)]
struct Ends {
    ended: HashMap<Arc<str>, End>,
    waiting: HashMap<Arc<str>, oneshot::Sender<End>>,
}

/// A running platform and its crew.
pub(crate) struct Rig {
    pub(crate) platform: Arc<Platform>,
    pub(crate) config: Config,
    pub(crate) crew: CrewId,
    ends: Arc<Mutex<Ends>>,
    follower: JoinHandle<()>,
}

impl Rig {
    /// Starts a platform in `directory` whose agents run in sandboxes of this kind, and has the crew that the manifest
    /// describes.
    pub(crate) async fn start_in(directory: &Path, sandbox: Sandbox, crew: &str) -> Result<Self> {
        let place = Place { directory: directory.to_owned(), database: None };
        Self::start_at(&place, sandbox, crew).await
    }

    /// The same with its log in this place.
    pub(crate) async fn start_at(place: &Place, sandbox: Sandbox, crew: &str) -> Result<Self> {
        let config = place.config(sandbox)?;
        let platform = Platform::start(&config).await?;
        let mut assembled = None;
        for manifest in
            [PROFILE, crew].into_iter().flat_map(|text| manifest::parse("bench", text.as_bytes()).manifests)
        {
            let command = match manifest {
                Manifest::Profile(profile) => Command::ProfileApply {
                    name: profile.metadata.name.to_string(),
                    spec: json!(profile.spec),
                    bundle: None,
                },
                Manifest::Pool(pool) => {
                    Command::PoolApply { name: pool.metadata.name.to_string(), spec: json!(pool.spec) }
                }
                Manifest::Crew(crew) => Command::CrewAssemble {
                    name: crew.metadata.name.to_string(),
                    labels: crew.metadata.labels.clone(),
                    spec: json!(crew.spec),
                },
            };
            assembled = Some(execute(&platform, None, command).await?);
        }
        let crew = assembled.ok_or("the bench's manifests have faults")?.id.parse()?;
        Ok(Self::follow(platform, config, crew))
    }

    /// The platform of `directory` as it comes back, with the crew that it had.
    pub(crate) async fn resume(directory: &Path, sandbox: Sandbox, crew: CrewId) -> Result<Self> {
        let place = Place { directory: directory.to_owned(), database: None };
        let config = place.config(sandbox)?;
        Ok(Self::follow(Platform::start(&config).await?, config, crew))
    }

    fn follow(platform: Platform, config: Config, crew: CrewId) -> Self {
        let ends = Arc::<Mutex<Ends>>::default();
        let follower = tokio::spawn(follow(Arc::clone(&platform.store), Arc::clone(&ends)));
        Self { platform: Arc::new(platform), config, crew, ends, follower }
    }

    /// Gives a task, and answers its id.
    pub(crate) async fn submit(&self, to: Option<&str>, work: Value) -> Result<String> {
        let command = Command::TaskSubmit {
            crew: self.crew.clone(),
            to: to.map(str::to_owned),
            input: json!({"parts": [{"data": work}]}),
            subject: None,
            context: None,
            deadline_ms: None,
        };
        Ok(execute(&self.platform, None, command).await?.id)
    }

    /// Waits for a task's end, and answers the data that came out.
    pub(crate) async fn output(&self, task: &str) -> Result<Value> {
        let ended = {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            match ends.ended.remove(task) {
                Some(end) => Ok(end),
                None => {
                    let (sender, receiver) = oneshot::channel();
                    ends.waiting.insert(task.into(), sender);
                    Err(receiver)
                }
            }
        };
        let (kind, payload) = match ended {
            Ok(end) => end,
            Err(later) => tokio::time::timeout(PATIENCE, later)
                .await
                .map_err(|_| format!("task {task} does not end"))??,
        };
        if &*kind != "task_completed" {
            return Err(format!("task {task} ended with {kind}: {payload}").into());
        }
        Ok(payload["output"]["parts"][0]["data"].clone())
    }

    /// Gives a task and waits for its end.
    pub(crate) async fn run(&self, to: Option<&str>, work: Value) -> Result<Value> {
        let task = self.submit(to, work).await?;
        self.output(&task).await
    }

    /// The first event after `position` that is of this kind.
    pub(crate) async fn next(&self, mut position: Position, kind: &str) -> Result<Recorded> {
        let store = &*self.platform.store;
        let mut head = store.watch();
        loop {
            for event in store.read(position, READ_EVENTS).await? {
                position = event.position;
                if &*event.kind == kind {
                    return Ok(event);
                }
            }
            let changed = tokio::time::timeout(PATIENCE, head.changed()).await;
            changed.map_err(|_| format!("no `{kind}` comes"))??;
        }
    }

    /// Ends the crew, the pools and the platform.
    pub(crate) async fn stop(self) -> Result<()> {
        self.follower.abort();
        let before = self.platform.store.head().await?.position;
        let disband =
            Command::CrewDisband { crew: self.crew.clone(), reason: "the bench is over".to_owned() };
        execute(&self.platform, None, disband).await?;
        self.next(before, "crew_disbanded").await?;
        pools::drain(&self.platform).await?;
        Arc::into_inner(self.platform).ok_or("something still uses the platform")?.shutdown().await;
        Ok(())
    }
}

/// Has the platform carry out a command.
pub(crate) async fn execute(platform: &Platform, key: Option<&str>, command: Command) -> Result<Reply> {
    let caller = Caller {
        tenant: Tenant::default(),
        principal: Principal::user("bench"),
        idempotency_key: key.map(Into::into),
        traceparent: None,
    };
    Ok(platform.commands.execute(&caller, command).await?)
}

/// Follows the log, and tells of the ends of tasks.
async fn follow(store: Arc<dyn EventStore>, ends: Arc<Mutex<Ends>>) {
    let mut head = store.watch();
    let mut position = Position(0);
    loop {
        let events = store.read(position, READ_EVENTS).await.unwrap_or_default();
        for event in &events {
            position = event.position;
            if event.stream.kind == EntityKind::Task && is_end(&event.kind) {
                tell(&ends, event);
            }
        }
        if events.is_empty() {
            // The hint may be missed, so the log is read again all the same.
            let _ = tokio::time::timeout(HINT, head.changed()).await;
        }
    }
}

fn is_end(kind: &str) -> bool {
    ["task_completed", "task_failed", "task_canceled", "task_rejected", "task_dead_lettered"].contains(&kind)
}

fn tell(ends: &Mutex<Ends>, event: &Recorded) {
    let end = (Arc::clone(&event.kind), serde_json::from_str(&event.payload).unwrap_or_default());
    let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
    match ends.waiting.remove(&event.stream.id) {
        // A bench that has given up wants no answer.
        Some(waiting) => drop(waiting.send(end)),
        None => drop(ends.ended.insert(Arc::clone(&event.stream.id), end)),
    }
}
