//! From `assign` to a handler that is ready; or to one whose process is up, and from there to ready.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Component, Path, PathBuf},
};

use link::{
    Assign, AssignedSecret, Prestart, Protocol, Secret, SecretForm, Stage,
    handler::{Initialize, PROTOCOL_VERSION},
    limits::ARTIFACT_BYTES_MAX,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    api::{self, Api},
    carrier::{self, Failure, Launch, Started, ms_since},
    child::Program,
    event::Platform,
    log::Log,
    process::Family,
    source,
    workspace::Workspace,
};

/// Where programs are looked for when the runner itself was started without `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The word in a command that stands for the runner's own program, wherever that lies in this sandbox: handlers that
/// it has built in need nothing else.
const OWN_PROGRAM: &str = "hypercode";
/// That program, whatever became of its name since it was started: the kernel leads to the file itself (proc_pid_exe(5)).
const OWN_FILE: &str = "/proc/self/exe";
/// What SDKs insist on; the real keys are the gateway's.
const NO_KEY: &str = "provided-by-hypercode";
/// Where secrets that the profile wants as files are, in the work directory, which is in memory wherever a sandbox has a
/// file system of its own.
const SECRETS: &str = ".secrets";

type Env = BTreeMap<String, String>;

/// All that a start needs.
pub(crate) struct Setup {
    pub(crate) start: Prestart,
    /// For whom, where that is known.
    pub(crate) agent: Option<Assign>,
    /// Absolute and free of links.
    pub(crate) work: PathBuf,
    pub(crate) log: Log,
    pub(crate) family: Family,
    pub(crate) platform: Platform,
    pub(crate) workspace: Workspace,
}

/// A handler that was started and has not been told yet for whom it works.
pub(crate) struct Spawned {
    start: Prestart,
    /// Whether that was not known when it was started: nothing of it is in its environment then.
    is_ahead: bool,
    process: carrier::Spawned,
    info: watch::Sender<Option<serde_json::Value>>,
    work: PathBuf,
    source: PathBuf,
    source_ms: u64,
}

/// A handler that is ready.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) started: Started,
    /// Where its files are.
    pub(crate) source: PathBuf,
    /// How long it took to put them there.
    pub(crate) source_ms: u64,
}

impl Setup {
    /// Starts the handler, as far as it can be before it is told for whom it works.
    pub(crate) async fn spawn(self) -> Result<Spawned, Failure> {
        let begun = Instant::now();
        let artifact_bytes = self.start.limits.artifact_bytes.min(ARTIFACT_BYTES_MAX);
        let door = self.workspace.door().with_limit(artifact_bytes);
        let at_source = |message| Failure::new(Stage::Source, message);
        let source = source::bring(&self.start.source, &self.work, &door).await.map_err(at_source)?;
        if let Some(agent) = &self.agent {
            write_secrets(&agent.secrets, &self.work).map_err(at_source)?;
        }
        let source_ms = ms_since(begun);

        let (info, known) = watch::channel(None);
        let uploads = self.work.join("uploads");
        let api = Api { platform: self.platform.clone(), door, info: known, uploads };
        let at_spawn = |message| Failure::new(Stage::Spawn, message);
        let base =
            api::serve(api).await.map_err(|error| at_spawn(format!("serve the handler API: {error}")))?;
        let program = self.program(&source, self.env(&base)).map_err(at_spawn)?;
        let Self { start, agent, work, log, family, platform, .. } = self;
        let process = carrier::spawn(Launch { spec: start.handler.clone(), program, log, family, platform })?;
        Ok(Spawned { start, is_ahead: agent.is_none(), process, info, work, source, source_ms })
    }

    /// The handler's whole environment: nothing of the runner's own but `PATH`. The profile's variables cannot replace
    /// those by which the platform speaks.
    fn env(&self, api: &str) -> Env {
        let work = self.work.to_string_lossy();
        let mut env = Env::from([
            ("PATH".to_owned(), search_path()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
        ]);
        env.extend(self.start.env.clone());
        if let Some(agent) = &self.agent {
            env.extend(values(&agent.secrets).map(|(name, value)| (name, value.expose().to_owned())));
            env.extend(paths(&agent.secrets, &self.work));
        }
        let ours = [
            ("HOME", work.as_ref()),
            ("HYPERCODE_API", api),
            ("HYPERCODE_WORK", work.as_ref()),
            ("NO_PROXY", "127.0.0.1,localhost,::1"),
        ];
        env.extend(ours.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(Assign { agent, .. }) = &self.agent {
            let identity = [
                ("HYPERCODE_CREW", agent.crew.clone()),
                ("HYPERCODE_MEMBER", agent.member.clone()),
                ("HYPERCODE_AGENT", agent.id.to_string()),
                ("HYPERCODE_INCARNATION", agent.incarnation.to_string()),
            ];
            env.extend(identity.map(|(name, value)| (name.to_owned(), value)));
        }
        if !self.start.models.is_empty() {
            let models = [
                ("OPENAI_BASE_URL", format!("{api}/model/v1")),
                ("ANTHROPIC_BASE_URL", format!("{api}/model")),
                ("OPENAI_API_KEY", NO_KEY.to_owned()),
                ("ANTHROPIC_API_KEY", NO_KEY.to_owned()),
            ];
            env.extend(models.map(|(name, value)| (name.to_owned(), value)));
        }
        env
    }

    fn program(&self, source: &Path, env: Env) -> Result<Program, String> {
        let spec = &self.start.handler;
        let (name, args) = spec.command.split_first().ok_or("the handler has no command")?;
        let search = env.get("PATH").cloned().unwrap_or_else(search_path);
        // By the runner's own name it would be a runner.
        let own_name = (name == OWN_PROGRAM).then_some(OWN_PROGRAM);
        let found = match own_name {
            Some(_) => Some(PathBuf::from(OWN_FILE)),
            None => source::find_program(name, source, &search),
        };
        let path = found.ok_or_else(|| {
            format!("the command `{name}` is neither a program of the source nor in PATH ({search})")
        })?;
        let cwd = match &spec.cwd {
            Some(cwd) => source.join(cwd),
            None => source.to_owned(),
        };
        if !cwd.is_dir() {
            return Err(format!("the working directory `{}` is not there", cwd.display()));
        }
        // A command that runs in the task's directory still finds the files of its source.
        let absolute = |arg: &String| match source.join(arg) {
            path if spec.protocol == Protocol::Exec && !arg.is_empty() && path.is_file() => {
                path.to_string_lossy().into_owned()
            }
            _ => arg.clone(),
        };
        Ok(Program { path, name: own_name, args: args.iter().map(absolute).collect(), cwd, env })
    }
}

impl Spawned {
    /// Waits until its process has ended, which it should not.
    pub(crate) async fn ended(&self) -> Failure {
        self.process.ended().await
    }

    /// Tells the handler for whom it works, and waits until it is ready.
    pub(crate) async fn initialize(self, assign: &Assign) -> Result<Running, Failure> {
        if !self.start.fits(assign) {
            let message = "what was started ahead is not what was assigned";
            return Err(Failure::new(Stage::Initialize, message));
        }
        let mut initialize = initialize(assign);
        if self.is_ahead {
            let at_source = |message| Failure::new(Stage::Source, message);
            write_secrets(&assign.secrets, &self.work).map_err(at_source)?;
            initialize.env.clone_from(&assign.env);
            initialize.env.extend(paths(&assign.secrets, &self.work));
            initialize.secrets = values(&assign.secrets).collect();
        }
        self.info.send_replace(serde_json::to_value(&initialize).ok());
        let started = self.process.initialize(&initialize).await?;
        Ok(Running { started, source: self.source, source_ms: self.source_ms })
    }
}

fn initialize(assign: &Assign) -> Initialize {
    Initialize {
        protocol_version: PROTOCOL_VERSION,
        agent: assign.agent.clone(),
        peers: assign.peers.clone(),
        models: assign.models.clone(),
        tools: assign.tools.clone(),
        limits: assign.limits,
        env: Env::new(),
        secrets: BTreeMap::new(),
    }
}

fn search_path() -> String {
    std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.to_owned())
}

/// The secrets that the handler finds in its environment.
fn values(secrets: &[AssignedSecret]) -> impl Iterator<Item = (String, Secret)> {
    let given = secrets.iter().filter(|secret| secret.form == SecretForm::Env);
    given.map(|secret| (secret.name.clone(), secret.value.clone()))
}

/// Where it finds those that it wants as files.
fn paths(secrets: &[AssignedSecret], work: &Path) -> impl Iterator<Item = (String, String)> {
    let given = secrets.iter().filter(|secret| secret.form == SecretForm::File);
    given.map(|secret| (secret.name.clone(), secret_file(secret, work).to_string_lossy().into_owned()))
}

fn secret_file(secret: &AssignedSecret, work: &Path) -> PathBuf {
    work.join(SECRETS).join(secret.path.as_deref().unwrap_or(&secret.name))
}

/// Writes the secrets that the profile wants as files, for their owner's eyes only.
fn write_secrets(secrets: &[AssignedSecret], work: &Path) -> Result<(), String> {
    for secret in secrets.iter().filter(|secret| secret.form == SecretForm::File) {
        let path = secret_file(secret, work);
        let below = path.strip_prefix(work.join(SECRETS)).unwrap_or_else(|_| Path::new(""));
        let is_below = below.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below || below.as_os_str().is_empty() {
            return Err(format!(
                "the path of the secret `{}` is not under the directory of secrets",
                secret.name
            ));
        }
        write_secret(&path, secret.value.expose()).map_err(|error| {
            format!("write the secret `{}` to `{}`: {error}", secret.name, path.display())
        })?;
    }
    Ok(())
}

fn write_secret(path: &Path, value: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(value.as_bytes())
}
