//! `hypercode demo`: the code-health crew on a real source tree, in one process, with nothing installed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::api::{Caller, Command, Problem, ProblemKind, Reply};
use events::domain::DomainEvent;
use events::domain::crew::Event as CrewEvent;
use events::domain::task::{Completed, Event as TaskEvent};
use events::{
    AgentId, CrewId, EntityKind, Position, Principal, Recorded, StreamId, TaskId, Tenant, Version, chain,
};
use link::ArtifactUrl;
use manifest::Manifest;
use serde_json::{Value, json};

use crate::code_health::{self, PackedTree};
use crate::config::Config;
use crate::output::{self, Output};
use crate::platform::{Platform, StartError};

mod chaos;
mod follow;
mod place;
mod timeline;

use follow::Follower;
use place::Place;
use timeline::Timeline;

/// Events read at a time.
const BATCH_EVENTS: usize = 1_000;
/// The wait of an analyst before each batch of files under `--chaos`, so that there is a task to be killed in.
const CHAOS_PACE_MS: u64 = 150;
/// How long agents outlive a demo that was killed: nobody takes them over.
const ORPHAN_GRACE: manifest::Millis = manifest::Millis::from_secs(10);
/// How long a killed agent is waited for when everything else is done.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(30);

/// What the demo is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The tree to report on.
    pub path: PathBuf,
    /// Whether an analyst is killed in the middle of its task.
    pub chaos: bool,
    /// Where the platform keeps its data: kept if it is given, else a directory is made and removed.
    pub data_dir: Option<PathBuf>,
    /// How the platform is set up otherwise.
    pub config: Config,
    /// How the outcome is printed.
    pub output: Output,
}

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The tree cannot be read.
    #[error("read the tree `{path}`: {source}")]
    Tree {
        /// The tree.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No directory for the demo's data can be made.
    #[error("make a data directory: {0}")]
    DataDir(io::Error),
    /// The platform does not start.
    #[error("start the platform: {0}")]
    Start(#[from] StartError),
    /// The platform refused something.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// The crew's task did not complete.
    #[error("the task ended {status}: {reason}")]
    Task {
        /// How it ended.
        status: String,
        /// Why.
        reason: String,
    },
    /// Somebody interrupted it.
    #[error("interrupted; the crew was disbanded and nothing is left running")]
    Interrupted,
}

/// Runs the demo: progress to standard error; report, timeline and figures to standard output.
pub async fn run(options: Options) -> ExitCode {
    match Box::pin(demo(&options)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "hypercode demo: {error}");
            ExitCode::from(match &error {
                DemoError::Tree { .. } => 2,
                DemoError::Problem(problem) => problem.kind.exit_code(),
                DemoError::Start(_) | DemoError::DataDir(_) => 5,
                DemoError::Task { .. } | DemoError::Interrupted => 1,
            })
        }
    }
}

async fn demo(options: &Options) -> Result<(), DemoError> {
    let tree = |source| DemoError::Tree { path: options.path.clone(), source };
    let path = options.path.canonicalize().map_err(tree)?;
    if !path.is_dir() {
        return Err(tree(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    let place = Place::open(options.data_dir.as_deref()).map_err(DemoError::DataDir)?;
    let data_dir = place.path().to_owned();
    let platform = Arc::new(Platform::start(&Config { data_dir, ..options.config.clone() }).await?);
    let show = Show {
        platform: Arc::clone(&platform),
        key: format!("demo-{:016x}", rand::random::<u64>()).into(),
        started: Instant::now(),
        output: options.output,
    };
    let outcome = tokio::select! {
        outcome = show.perform(&path, options.chaos) => outcome,
        () = interrupted() => Err(DemoError::Interrupted),
    };
    let disbanded = show.disband().await;
    drop(show);
    if let Some(platform) = Arc::into_inner(platform) {
        platform.shutdown().await;
    }
    outcome.and(disbanded)
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// One performance of the crew.
struct Show {
    platform: Arc<Platform>,
    /// The key under which this crew is assembled.
    key: Arc<str>,
    started: Instant,
    output: Output,
}

impl Show {
    fn caller(&self, idempotency_key: Option<Arc<str>>) -> Caller {
        let (tenant, principal) = (Tenant::default(), Principal::user("demo"));
        Caller { tenant, principal, idempotency_key, traceparent: None }
    }

    async fn give(&self, command: Command) -> Result<Reply, Problem> {
        self.platform.commands.execute(&self.caller(None), command).await
    }

    /// Who has the crew assembled: its command can be found in the log, whoever else works on it.
    fn director(&self) -> Caller {
        self.caller(Some(Arc::clone(&self.key)))
    }

    async fn perform(&self, path: &Path, chaos: bool) -> Result<(), DemoError> {
        let follower = Follower::start(Arc::clone(&self.platform.store), self.started);
        for (name, spec) in profiles()? {
            self.give(Command::ProfileApply { name, spec, bundle: None }).await?;
        }
        let began = Instant::now();
        let (name, labels, spec) = crew(chaos)?;
        let assemble = Command::CrewAssemble { name, labels, spec };
        let reply = self.platform.commands.execute(&self.director(), assemble).await?;
        let assembly = began.elapsed();
        let crew: CrewId = parse(&reply.id)?;
        let killed = chaos.then(|| chaos::start(Arc::clone(&self.platform)));
        let input = self.input(path).await?;
        let submit = Command::TaskSubmit {
            crew: crew.clone(),
            to: None,
            input,
            subject: None,
            context: None,
            deadline_ms: None,
        };
        let task: TaskId = parse(&self.give(submit).await?.id)?;
        let ended = self.ended(&task).await?;
        // Whoever is not killed by now will not be: nothing is worked at any more.
        match killed {
            Some(killed) if killed.is_finished() => {
                if let Ok(Some(agent)) = killed.await {
                    self.recovered(&crew, &agent).await?;
                }
            }
            Some(killed) => {
                killed.abort();
                output::remark(
                    "nobody was killed: there was too little to do; name a larger tree with `--path`",
                );
            }
            None => {}
        }
        follower.stop().await;
        let report = match ended {
            TaskEvent::Completed(completed) => self.report(&completed).await?,
            other => return Err(failure(&other)),
        };
        self.print(&report, assembly).await
    }

    /// The tree to report on: its path, or where agents see nothing of this host, its files.
    async fn input(&self, path: &Path) -> Result<Value, DemoError> {
        if self.platform.provider.kind() != sandbox::Kind::Docker {
            return Ok(code_health::report_task_input(path));
        }
        let tree = |source| DemoError::Tree { path: path.to_owned(), source };
        let packed = PackedTree::of(path).map_err(tree)?;
        let kept = self.platform.artifacts.put(packed.archive.clone().into()).await;
        let kept = kept.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
        let url = ArtifactUrl::of_digest(&kept.digest.to_string());
        let url = url.map_err(|error| Problem::new(ProblemKind::Internal, error))?;
        Ok(packed.task_input(url))
    }

    /// Follows the task's stream to its end.
    async fn ended(&self, task: &TaskId) -> Result<TaskEvent, DemoError> {
        let is_last = |event: &TaskEvent| {
            matches!(
                event,
                TaskEvent::Completed(_)
                    | TaskEvent::Failed(_)
                    | TaskEvent::Canceled(_)
                    | TaskEvent::Rejected(_)
                    | TaskEvent::DeadLettered(_)
            )
        };
        self.reached(EntityKind::Task, task.as_str(), is_last).await
    }

    /// Waits until the killed agent is back, which the crew's work may not have waited for; not for ever.
    async fn recovered(&self, crew: &CrewId, agent: &AgentId) -> Result<(), DemoError> {
        let is_back = |event: &CrewEvent| match event {
            CrewEvent::RestartCompleted(completed) => completed.agent == *agent,
            other => matches!(other, CrewEvent::RestartsExhausted(_)),
        };
        let back = self.reached(EntityKind::Crew, crew.as_str(), is_back);
        match tokio::time::timeout(RECOVERY_PATIENCE, back).await {
            Ok(back) => back.map(drop),
            Err(_) => {
                tracing::warn!(%agent, "is not back yet; the demo ends without it");
                Ok(())
            }
        }
    }

    /// The first event of an entity's stream that is as wanted, once it is there.
    async fn reached<E: DomainEvent>(
        &self,
        kind: EntityKind,
        id: &str,
        is_wanted: impl Fn(&E) -> bool,
    ) -> Result<E, DemoError> {
        let stream = StreamId::new(kind, id);
        let mut head = self.platform.store.watch();
        let mut after = Version(0);
        loop {
            let batch = self.platform.store.read_stream(&stream, after, BATCH_EVENTS).await;
            for event in batch.map_err(Problem::from)? {
                after = event.version;
                let event = E::decode(&event.kind, event.schema, &event.payload)
                    .map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?;
                if is_wanted(&event) {
                    return Ok(event);
                }
            }
            // The head's news is a hint; without any, the stream is looked at again all the same.
            let _ = tokio::time::timeout(Duration::from_millis(200), head.changed()).await;
        }
    }

    async fn report(&self, completed: &Completed) -> Result<String, DemoError> {
        let artifacts = self.platform.body(&completed.artifacts).await?;
        let url = artifacts
            .as_array()
            .into_iter()
            .flatten()
            .find(|artifact| artifact["name"] == code_health::REPORT_NAME)
            .and_then(|artifact| artifact["url"].as_str())
            .ok_or_else(|| Problem::new(ProblemKind::Failed, "the crew left no report"))?;
        let digest = parse(url.rsplit(':').next().unwrap_or_default())?;
        let bytes = self.platform.artifacts.get(digest).await;
        let bytes = bytes
            .map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?
            .ok_or_else(|| Problem::new(ProblemKind::Failed, "the report is not in the artifact store"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn print(&self, report: &str, assembly: Duration) -> Result<(), DemoError> {
        let events = self.events().await?;
        let verified = chain::verify(&*self.platform.store).await;
        verified.map_err(|broken| Problem::new(ProblemKind::Failed, broken.to_string()))?;
        let timeline = Timeline::of(&events);
        let told = timeline.told(assembly, report);
        self.output.value(&told, |told| {
            format!(
                "{report}\n\n## Timeline\n\n{}\n## Figures\n\n{}",
                timeline.table(),
                timeline::figures(&told["figures"])
            )
        })?;
        Ok(())
    }

    async fn events(&self) -> Result<Vec<Recorded>, DemoError> {
        let mut events = Vec::new();
        loop {
            let after = events.last().map_or(Position(0), |event: &Recorded| event.position);
            let batch = self.platform.store.read(after, BATCH_EVENTS).await.map_err(Problem::from)?;
            if batch.is_empty() {
                return Ok(events);
            }
            events.extend(batch);
        }
    }

    /// Ends the crew, also one that was still being assembled when somebody interrupted.
    async fn disband(&self) -> Result<(), DemoError> {
        let events = self.events().await?;
        let command = self.director().command_id();
        let started = events.iter().rfind(|event| event.command_id == command);
        if let Some(started) = started {
            let crew = parse(&started.stream.id)?;
            self.give(Command::CrewDisband { crew, reason: "the demo is over".to_owned() }).await?;
        }
        Ok(())
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| Problem::new(ProblemKind::Internal, error.to_string()))
}

fn failure(event: &TaskEvent) -> DemoError {
    let reason = match event {
        TaskEvent::Failed(failed) => failed.message.clone(),
        TaskEvent::Canceled(canceled) => canceled.reason.clone(),
        TaskEvent::Rejected(rejected) => rejected.message.clone(),
        TaskEvent::DeadLettered(dead) => dead.message.clone(),
        _ => String::new(),
    };
    let status = event.kind().trim_start_matches("task_").to_owned();
    DemoError::Task { status, reason }
}

fn manifests(file: &str, text: &str) -> Result<Vec<Manifest>, Problem> {
    let parsed = manifest::parse(file, text.as_bytes());
    match parsed.faults.iter().find(|_| parsed.has_errors()) {
        Some(fault) => Err(Problem::new(ProblemKind::Internal, fault.to_string())),
        None => Ok(parsed.manifests),
    }
}

fn profiles() -> Result<Vec<(String, Value)>, Problem> {
    let parsed = manifests("profiles.yaml", code_health::PROFILES)?;
    Ok(parsed
        .into_iter()
        .filter_map(|manifest| match manifest {
            Manifest::Profile(profile) => Some((profile.metadata.name.to_string(), json!(profile.spec))),
            Manifest::Crew(_) | Manifest::Pool(_) => None,
        })
        .collect())
}

type Crew = (String, std::collections::BTreeMap<String, String>, Value);

fn crew(chaos: bool) -> Result<Crew, Problem> {
    let crew = manifests("crew.yaml", code_health::CREW)?.into_iter().find_map(|manifest| match manifest {
        Manifest::Crew(crew) => Some(crew),
        Manifest::Profile(_) | Manifest::Pool(_) => None,
    });
    let mut crew =
        crew.ok_or_else(|| Problem::new(ProblemKind::Internal, "the demo's manifest has no crew"))?;
    crew.spec.liveness.orphan_grace = ORPHAN_GRACE;
    if chaos {
        for member in crew.spec.members.iter_mut().filter(|member| member.name.as_str() == "analyst") {
            member.env.insert(code_health::PACE_VARIABLE.to_owned(), CHAOS_PACE_MS.to_string());
        }
    }
    Ok((crew.metadata.name.to_string(), crew.metadata.labels.clone(), json!(crew.spec)))
}
