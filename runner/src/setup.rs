//! From `assign` to a handler that is ready.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use link::{
    Assign, AssignedSecret, Protocol, SecretForm, Stage,
    handler::{Initialize, PROTOCOL_VERSION},
    limits::ARTIFACT_BYTES_MAX,
};
use tokio::time::Instant;

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
/// What SDKs insist on; the real keys are the gateway's.
const NO_KEY: &str = "provided-by-hypercode";

type Env = BTreeMap<String, String>;

/// All that a start needs.
pub(crate) struct Setup {
    pub(crate) assign: Assign,
    /// Absolute and free of links.
    pub(crate) work: PathBuf,
    pub(crate) log: Log,
    pub(crate) family: Family,
    pub(crate) platform: Platform,
    pub(crate) workspace: Workspace,
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
    pub(crate) async fn run(self) -> Result<Running, Failure> {
        let begun = Instant::now();
        let door =
            self.workspace.door().with_limit(self.assign.limits.artifact_bytes.min(ARTIFACT_BYTES_MAX));
        let at_source = |message| Failure::new(Stage::Source, message);
        let source = source::bring(&self.assign.source, &self.work, &door).await.map_err(at_source)?;
        write_secrets(&self.assign.secrets, &self.work).map_err(at_source)?;
        let source_ms = ms_since(begun);

        let initialize = self.initialize();
        let api = Api {
            platform: self.platform.clone(),
            door,
            info: serde_json::to_value(&initialize).unwrap_or_default(),
            uploads: self.work.join("uploads"),
        };
        let at_spawn = |message| Failure::new(Stage::Spawn, message);
        let base =
            api::serve(api).await.map_err(|error| at_spawn(format!("serve the handler API: {error}")))?;
        let program = self.program(&source, self.env(&base)).map_err(at_spawn)?;
        let launch = Launch {
            spec: self.assign.handler,
            program,
            initialize,
            log: self.log,
            family: self.family,
            platform: self.platform,
        };
        Ok(Running { started: carrier::start(launch).await?, source, source_ms })
    }

    fn initialize(&self) -> Initialize {
        Initialize {
            protocol_version: PROTOCOL_VERSION,
            agent: self.assign.agent.clone(),
            peers: self.assign.peers.clone(),
            models: self.assign.models.clone(),
            tools: self.assign.tools.clone(),
            limits: self.assign.limits,
            env: Env::new(),
            secrets: BTreeMap::new(),
        }
    }

    /// The handler's whole environment: nothing of the runner's own but `PATH`. The profile's variables cannot replace
    /// those by which the platform speaks.
    fn env(&self, api: &str) -> Env {
        let agent = &self.assign.agent;
        let work = self.work.to_string_lossy();
        let mut env = Env::from([
            ("PATH".to_owned(), search_path()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
        ]);
        env.extend(self.assign.env.clone());
        let secrets = self.assign.secrets.iter().filter(|secret| secret.form == SecretForm::Env);
        env.extend(secrets.map(|secret| (secret.name.clone(), secret.value.expose().to_owned())));
        let ours = [
            ("HOME", work.as_ref()),
            ("HYPERCODE_API", api),
            ("HYPERCODE_CREW", &agent.crew),
            ("HYPERCODE_MEMBER", &agent.member),
            ("HYPERCODE_AGENT", &agent.id),
            ("HYPERCODE_INCARNATION", &agent.incarnation.to_string()),
            ("HYPERCODE_WORK", work.as_ref()),
            ("NO_PROXY", "127.0.0.1,localhost,::1"),
        ];
        env.extend(ours.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if !self.assign.models.is_empty() {
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
        let spec = &self.assign.handler;
        let (name, args) = spec.command.split_first().ok_or("the handler has no command")?;
        let search = env.get("PATH").cloned().unwrap_or_else(search_path);
        // By the runner's own name it would be a runner.
        let own_name = (name == OWN_PROGRAM).then_some(OWN_PROGRAM);
        let found = match own_name {
            Some(_) => std::env::current_exe().ok(),
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

fn search_path() -> String {
    std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.to_owned())
}

/// Writes the secrets that the profile wants as files, for their owner's eyes only.
fn write_secrets(secrets: &[AssignedSecret], work: &Path) -> Result<(), String> {
    for secret in secrets.iter().filter(|secret| secret.form == SecretForm::File) {
        let name = secret.path.as_deref().unwrap_or(&secret.name);
        let is_below = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below || name.is_empty() {
            return Err(format!(
                "the path `{name}` of the secret `{}` is not under the work directory",
                secret.name
            ));
        }
        let path = work.join(name);
        write_secret(&path, secret.value.expose()).map_err(|error| {
            format!("write the secret `{}` to `{}`: {error}", secret.name, path.display())
        })?;
    }
    Ok(())
}

fn write_secret(path: &Path, value: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(value.as_bytes())
}
