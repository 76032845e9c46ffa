//! The wiring: store, artifacts, sandboxes, gateway, watchdog and actors become one running platform.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::{Clock, Seams, watchdog};
use events::api::{Commands, Problem, ProblemKind};
use events::artifact::ArtifactStore;
use events::audit;
use events::lease::Leases;
use events::private_file;
use events::projection::{self, Unfinished, ViewError, Views};
use events::seal::{Seal, SealError, Sealing};
use events::store::Until;
use events::{EventStore, Position};
use gateway::Gateway;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::RngCore;
use sandbox::{Instance, Provider};

use crate::api::Token;
use crate::config::Config;
use crate::erasure::Eraser;
use crate::keyring::Keyring;
use crate::lifetime::{Lifetime, fingerprint};
use crate::sandboxes::{self, Sandboxes};
use crate::secrets::{Sources, Stored};
use crate::storage::{self, Storage};

mod door;

/// How often the runtime that reads the links shows the watchdog that it is alive, in milliseconds.
const PULSE_MS: u64 = 100;
/// How often it is said that a start still waits for the views.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Why the platform does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log cannot be opened.
    #[error("open the log: {0}")]
    Log(#[from] storage::OpenError),
    /// The artifact store cannot be opened.
    #[error("open the artifact store: {0}")]
    Artifacts(#[from] events::artifact::ArtifactError),
    /// The instance's name cannot be used.
    #[error("open the sandboxes: {0}")]
    Instance(#[from] sandbox::Error),
    /// There are no sandboxes of the kind that is asked for.
    #[error("open the sandboxes: failed to {0}")]
    Sandboxes(#[from] sandboxes::ChoiceError),
    /// A file of the data directory cannot be used.
    #[error("{action} `{path}`: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The key that signs checkpoints cannot be used.
    #[error(transparent)]
    CheckpointKey(#[from] audit::KeyError),
    /// The audit's ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] audit::LedgerError),
    /// A sink of checkpoints cannot be used.
    #[error(transparent)]
    Sinks(#[from] crate::sinks::SettingError),
    /// The audit does not start.
    #[error("start the audit: {0}")]
    Audit(#[from] audit::CutError),
    /// What is set about the bus does not go together.
    #[error("the configuration is not right: {0}")]
    Bus(String),
    /// The watchdog's thread cannot be started.
    #[error("start the watchdog: {0}")]
    Watchdog(io::Error),
    /// What must be recorded of the start cannot be.
    #[error("record the start: {0}")]
    Record(#[source] Problem),
    /// What was unfinished cannot be recovered.
    #[error("recover what was unfinished: {0}")]
    Recovery(#[from] Problem),
    /// The keys of data subjects cannot be used.
    #[error(transparent)]
    Keys(#[from] SealError),
    /// The keys that sign agents' tokens cannot be used.
    #[error("open the keys of agents' tokens: {0}")]
    AgentKeys(#[source] Problem),
    /// The views cannot be opened.
    #[error("open the views: {0}")]
    Views(#[from] ViewError),
}

/// A running platform.
pub struct Platform {
    /// Carries out commands.
    pub commands: Arc<dyn Commands>,
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// Which node runs what.
    pub leases: Arc<dyn Leases>,
    /// The bus, where one is configured.
    pub bus: Option<nats::Nats>,
    /// What queries read.
    pub views: Views,
    /// Bodies and bundles.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// Where agents run.
    pub provider: Arc<dyn Provider>,
    /// This node's name.
    pub node: String,
    /// What proves that the log is what it was.
    pub audit: audit::Tailer,
    /// Erases data subjects.
    pub eraser: Arc<Eraser>,
    /// What signs agents' tokens.
    pub keyring: Arc<Keyring>,
    /// What tenants have stored for their agents.
    pub secrets: Arc<Stored>,
    lifetime: Lifetime,
    actors: actors::Platform,
    gateway: Gateway,
    storage: Storage,
    pulse: tokio::task::JoinHandle<()>,
    renewing: tokio::task::JoinHandle<()>,
}

impl Platform {
    /// Starts the platform over `config.data_dir`: what was unfinished there goes on.
    ///
    /// # Errors
    /// When a part cannot be started; the message says which and why.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        open_files_at_most();
        let data = &config.data_dir;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(file("make", data))?;
        // The log's lock makes this process the directory's only one, so it comes first.
        let storage = Storage::open(config).await?;
        let (store, leases) = (storage.store(), storage.leases());
        let artifacts = storage.artifacts(data).await?;
        let instance = instance(&data.join("instance"))?;
        let Sandboxes { provider, peer_uid, has_network, runner: program } =
            sandboxes::open(config, &instance).await?;
        let run_dir = match &config.run_dir {
            Some(dir) => dir.clone(),
            None => run_dir(&instance),
        };
        let lifetime =
            Lifetime::begin(&*store, config, &node(&instance)).await.map_err(StartError::Record)?;
        let bus = crate::bus::options(config).map_err(StartError::Bus)?.map(|options| {
            nats::Nats::connect(nats::Options { name: format!("hypercode {}", node(&instance)), ..options })
        });
        let (audit, seal) = open_keys(config, &storage, bus.as_ref(), &lifetime).await?;
        let keyring = open_keyring(&store, &*leases, &seal, &node(&instance)).await;
        let keyring = keyring.map_err(StartError::AgentKeys)?;
        let secrets = Stored::open(Arc::clone(&store), seal.keys().clone()).await;
        let views = storage.views(data).await?.opened_by(seal.clone());
        // Who works with personal data sees it clear; the log, the audit and the relay have it sealed.
        let clear: Arc<dyn EventStore> = Arc::new(Sealing::new(Arc::clone(&store), seal.clone()));
        let options = actors::Options {
            node: node(&instance),
            program,
            leasing: storage.leasing(),
            limits: actors::Limits::default(),
            admission: actors::admission::Limits::default(),
        };
        let seams = Seams {
            store: Arc::clone(&clear),
            artifacts: Arc::clone(&artifacts),
            provider: Arc::clone(&provider),
            leases: Arc::clone(&leases),
            registry: Arc::new(Registry {
                views: views.clone(),
                store: Arc::clone(&store),
                seal: seal.clone(),
            }),
            snapshots: Arc::new(views.clone()),
            bus: bus.clone().map(|bus| Arc::new(bus) as Arc<dyn nats::Bus>),
            secrets: Arc::new(Sources::new(config, Arc::clone(&secrets))),
            clock: Clock::System,
        };
        let actors = actors::Platform::new(options, seams);
        let gateway = Gateway::new(
            gateway::Options { peer_uid, bootstrap: has_network, ..gateway::Options::new(run_dir) },
            gateway::Seams {
                store: clear,
                artifacts: Arc::clone(&artifacts),
                keys: Arc::clone(keyring.agent_keys()),
                host: Arc::downgrade(&actors.host()),
            },
        );
        let (handle, verdicts, _thread) =
            watchdog::spawn(watchdog::Options::default()).map_err(StartError::Watchdog)?;
        let beats = handle.clone();
        let pulse = tokio::spawn(async move { beats.pulse(PULSE_MS).await });
        let renewing = tokio::spawn(Arc::clone(&keyring).follow(gateway.clone()));
        actors.start(Arc::new(gateway.clone()), handle, verdicts).await?;
        let commands = actors.commands();
        let eraser = Arc::new(Eraser {
            seal,
            store: Arc::clone(&store),
            artifacts: Arc::clone(&artifacts),
            commands: Arc::clone(&commands),
        });
        eraser.finish().await?;
        Ok(Self {
            commands,
            eraser,
            keyring,
            secrets,
            lifetime,
            store,
            leases,
            bus,
            views,
            artifacts,
            provider,
            node: node(&instance),
            audit,
            actors,
            gateway,
            storage,
            pulse,
            renewing,
        })
    }

    /// A body as it was, whether an event holds it or an artifact.
    ///
    /// # Errors
    /// When the artifact that holds it cannot be read.
    pub async fn body(&self, kept: &serde_json::Value) -> Result<serde_json::Value, Problem> {
        self.actors.body(kept).await
    }

    /// The end of the log of the handler in this sandbox, which is on `node` where that is known; `None` where there is
    /// none (any more).
    ///
    /// # Errors
    /// When the log is there and cannot be read, or its node cannot be reached.
    pub async fn log(
        &self,
        node: Option<&str>,
        sandbox: &events::SandboxId,
        bytes_max: u64,
    ) -> Result<Option<String>, Problem> {
        self.actors.log(node, sandbox, bytes_max).await
    }

    /// What the handler that has the task in hand on this node says of it from now on to live watchers only.
    pub fn deltas(&self, task: &events::TaskId) -> tokio::sync::broadcast::Receiver<Arc<str>> {
        self.actors.deltas(task)
    }

    /// Records that the administrator's token was made.
    ///
    /// # Errors
    /// When the log does not take it.
    pub(crate) async fn made_token(&self, token: &Token) -> Result<(), Problem> {
        self.lifetime.made_key(&*self.store, "admin_token", fingerprint(token.expose().as_bytes())).await
    }

    /// Figures about what is in memory.
    pub fn figures(&self) -> actors::Figures {
        self.actors.figures()
    }

    /// How the pools of this node do.
    pub fn pools(&self) -> Vec<actors::PoolFigures> {
        self.actors.pools()
    }

    /// Stops taking commands and closes the log. Sandboxes go on running, for the next start to adopt them.
    pub async fn shutdown(self) {
        self.actors.shutdown().await;
        self.pulse.abort();
        self.renewing.abort();
        self.gateway.shutdown().await;
        self.lifetime.end(&*self.store).await;
        self.views.close().await;
        self.audit.close().await;
        self.eraser.seal.keys().close().await;
        self.storage.close().await;
    }
}

/// Each agent takes some three descriptors, and the usual soft limit of 1,024 is there for select(2), which nobody here
/// uses. Sandboxes get a limit of their own.
fn open_files_at_most() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::File { action, path, source }
}

fn node(instance: &Instance) -> String {
    format!("node-{}", instance.as_str())
}

/// Where the sockets are: a short path, since a socket's may have 107 bytes at most.
fn run_dir(instance: &Instance) -> PathBuf {
    PathBuf::from(format!("/tmp/hypercode-{}/{}", nix::unistd::getuid(), instance.as_str()))
}

/// Reads a small file of the data directory, or makes it, readable by nobody else.
fn read_or_make(path: &Path, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, StartError> {
    private_file::read_or_make(path, make).map_err(|error| file("use", path)(io::Error::other(error)))
}

/// This installation's id: sandboxes of other installations on the machine are left alone.
fn instance(path: &Path) -> Result<Instance, StartError> {
    let bytes = read_or_make(path, || format!("{:08x}", rand::rng().next_u32()).into_bytes())?;
    Ok(Instance::new(String::from_utf8_lossy(&bytes).trim())?)
}

/// Opens what holds keys, and records those that were made.
async fn open_keys(
    config: &Config,
    storage: &Storage,
    bus: Option<&nats::Nats>,
    lifetime: &Lifetime,
) -> Result<(audit::Tailer, Seal), StartError> {
    let signs_first = !config.data_dir.join(audit::KEY_FILE).exists();
    let wraps_first = !config.master_key_file().exists();
    let store = storage.store();
    let audit = start_audit(config, Arc::clone(&store), bus).await?;
    let seal = Seal::new(storage.keys(config).await?);
    if let Err(error) = seal.keys().check().await {
        tracing::error!(%error, "tasks that name a data subject can be neither taken nor shown");
    }
    let made = async |key, fingerprint| {
        lifetime.made_key(&*store, key, fingerprint).await.map_err(StartError::Record)
    };
    if signs_first {
        made("checkpoint_key", fingerprint(audit.key().to_string().as_bytes())).await?;
    }
    if wraps_first {
        made("master_key", seal.keys().fingerprint()).await?;
    }
    Ok((audit, seal))
}

/// Opens the keys of agents' tokens.
async fn open_keyring(
    store: &Arc<dyn EventStore>,
    leases: &dyn Leases,
    seal: &Seal,
    node: &str,
) -> Result<Arc<Keyring>, Problem> {
    let table = leases.table().await?;
    let shares = table.live().any(|other| *other.id != *node);
    Keyring::open(Arc::clone(store), seal.keys().clone(), shares).await
}

/// Follows the log from where the ledger stands, and signs checkpoints.
pub(crate) async fn start_audit(
    config: &Config,
    store: Arc<dyn EventStore>,
    bus: Option<&nats::Nats>,
) -> Result<audit::Tailer, StartError> {
    let data = &config.data_dir;
    let instance = instance(&data.join("instance"))?;
    let signer =
        audit::Signer::open(&data.join(audit::KEY_FILE), &format!("hypercode/{}", instance.as_str()))?;
    let ledger = audit::Ledger::open(data).await?;
    let sinks = crate::sinks::configured(config, bus, signer.origin(), &ledger)?;
    let options = audit::Options {
        checkpoint_events: config.checkpoint_events,
        checkpoint_ms: config.checkpoint_ms,
        ..audit::Options::default()
    };
    Ok(audit::Tailer::start(store, ledger, signer, sinks, options).await?)
}

/// What had not ended, as the views tell.
struct Registry {
    views: Views,
    store: Arc<dyn EventStore>,
    seal: Seal,
}

impl Registry {
    /// What had not ended as the log itself tells, but for the events that cannot be read: views are made from it in a
    /// directory of their own, and thrown away.
    async fn read_from_log(&self) -> Result<Unfinished, Problem> {
        let scratch = tempfile::tempdir()
            .map_err(|error| Problem::new(ProblemKind::Unavailable, format!("make a directory: {error}")))?;
        let head = self.store.head().await?;
        let log = Arc::new(Until::new(Arc::clone(&self.store), head));
        let options = projection::Options { passes_over: true, ..projection::Options::default() };
        let views = Views::open(scratch.path(), log, options).await?.opened_by(self.seal.clone());
        caught_up(&views, head.position).await;
        let unfinished = views.unfinished().await;
        views.close().await;
        Ok(unfinished?)
    }
}

async fn caught_up(views: &Views, position: Position) {
    while views.wait_for(position, CATCH_UP).await.is_err() {
        tracing::info!(at = %views.position(), wanted = %position, "the views read the log");
    }
}

#[async_trait::async_trait]
impl actors::Registry for Registry {
    async fn unfinished(&self, position: Position) -> Result<Unfinished, Problem> {
        caught_up(&self.views, position).await;
        let status = self.views.status().await?;
        let Some(stopped) = status.iter().find(|status| status.error.is_some()) else {
            return Ok(self.views.unfinished().await?);
        };
        // Work that a stopped projection does not know of would be forgotten (SV-1, TK-1).
        let (projection, reason) = (&stopped.name, stopped.error.as_deref().unwrap_or_default());
        tracing::error!(
            projection,
            reason,
            "a projection has stopped; what was unfinished is read from the log"
        );
        self.read_from_log().await
    }
}
