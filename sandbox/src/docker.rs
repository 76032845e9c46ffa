//! Sandboxes made of Docker containers.
//!
//! A container has no network, or one of its own with a relay to the platform on it, and no privileges; it sees nothing of the host but the directory of its socket and the
//! runner's file, and is held to its limits by the kernel (see `profile`). What the daemon made is looked at before
//! anybody may speak from it (see [`assert_hardened`]): whatever is less shut off than it must be is killed.
//!
//! The daemon keeps all there is to know of a sandbox, in the container's name and labels; only that an id was used
//! is written down beside it. So a platform that was killed finds everything again, and a daemon that was restarted
//! is asked anew.

mod around;
mod daemon;
mod filter;
mod hardened;
pub mod image;
mod labels;
mod life;
mod network;
mod peer;
mod profile;
mod relay;
mod resolve;
mod subnet;
mod view;
mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::{ContainerInspectResponse, ContainerUpdateBody};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, broadcast};

use self::daemon::{Daemon, Done};
use self::watch::Watch;
use crate::gates::Gates;
use crate::proc::{self, Handle, Stat, Table};
use crate::used::Used;
use crate::{
    Breach, Container, Error, Exit, Found, Id, Instance, Isolation, Kind, Level, Peer, Provider, Resources,
    Running, Signal, Spec, State, Target,
};

pub use self::hardened::{Candidate, Drift, assert_hardened};

pub use self::profile::UID;
pub use self::relay::{RELAY, relay_main};
pub use self::subnet::Subnets;

/// What a specification's runtime is called.
const RUNTIME_CLASS: &str = "runtimeClass";

/// The daemon's usual socket.
pub const SOCKET: &str = "/var/run/docker.sock";

/// How a [`Docker`] provider is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon's Unix socket. The daemon must run on this host: it is given paths, and tells process ids.
    pub socket: PathBuf,
    /// A directory for what the daemon does not keep; made where missing.
    pub root: PathBuf,
    /// The platform instance that the containers belong to.
    pub instance: Instance,
    /// The image of sandboxes whose specification names none.
    pub image: String,
    /// The runtime of sandboxes whose specification names none, as the daemon lists them, such as `runsc`; `None` is its
    /// default.
    pub runtime: Option<String>,
    /// How runners come to the platform.
    pub link: Link,
    /// Bounds.
    pub limits: Limits,
}

impl Options {
    /// The image that `hypercode image build` makes.
    pub const IMAGE: &'static str = "hypercode/base:latest";

    /// The daemon at its usual socket, with its default runtime.
    #[must_use]
    pub fn new(root: PathBuf, instance: Instance) -> Self {
        Self {
            socket: PathBuf::from(SOCKET),
            root,
            instance,
            image: Self::IMAGE.to_owned(),
            runtime: None,
            link: Link::Socket,
            limits: Limits::default(),
        }
    }
}

/// How a runner comes to the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// The platform's socket is mounted into its container, which has no network at all.
    Socket,
    /// Over TCP, for runtimes into which no socket can be mounted: each sandbox has a network of its own, and on it a relay
    /// that has the socket.
    Tcp {
        /// Where the networks' addresses are taken from.
        subnets: Subnets,
        /// The program that is the relay: it calls [`relay_main`] when its name is [`RELAY`].
        relay: PathBuf,
    },
}

/// Bounds of a [`Docker`] provider.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long the daemon may take to answer, in milliseconds …
    pub call_ms: u64,
    /// … and to create or to start a container.
    pub start_ms: u64,
    /// How long a sandbox that is to be created waits for a daemon that is being restarted, in milliseconds.
    pub daemon_ms: u64,
    /// How long a killed container may take to be gone, in milliseconds.
    pub gone_ms: u64,
    /// Containers that are created at once: the daemon does not get faster by more.
    pub creates_at_once: usize,
    /// Containers that are inspected at once.
    pub inspects_at_once: usize,
    /// Largest image, in bytes.
    pub image_bytes_max: u64,
    /// Lines of a container's log from whose end an exit is told.
    pub log_lines: u32,
    /// How many exits wait for the slowest of those who listen.
    pub exits: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_ms: 10_000,
            start_ms: 60_000,
            daemon_ms: 30_000,
            gone_ms: 10_000,
            creates_at_once: 4,
            inspects_at_once: 8,
            image_bytes_max: 4 << 30,
            log_lines: 50,
            exits: 1024,
        }
    }
}

/// Sandboxes made of Docker containers.
///
/// Dropping it leaves them running; the next one of the same instance adopts them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Docker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    daemon: Daemon,
    used: Used,
    gates: Gates,
    watch: Watch,
    creates: Semaphore,
}

impl Docker {
    /// Connects to the daemon and adopts what runs there.
    ///
    /// # Errors
    /// [`Error::Daemon`] where the daemon cannot be reached, [`Error::Invalid`] where it does not list the runtime,
    /// [`Error::Io`] where the root cannot be made.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let daemon = Daemon::connect(&options.socket, options.limits).await?;
        if let Some(runtime) = &options.runtime {
            is_listed(&daemon, "docker_runtime", runtime).await?;
        }
        let used = Used::open(&options.root)?;
        let watch = Watch::new(options.limits.exits);
        let creates = Semaphore::new(options.limits.creates_at_once);
        let inner = Arc::new(Inner { options, daemon, used, gates: Gates::default(), watch, creates });
        let since = watch::now();
        for id in inner.ids().await?.into_keys() {
            inner.adopt(&id).await;
        }
        watch::start(&inner, since);
        Ok(Self { inner })
    }

    /// The daemon's version and that of its API, for people.
    ///
    /// # Errors
    /// [`Error::Daemon`].
    pub async fn version(&self) -> Result<String, Error> {
        let version = self.inner.daemon.version().await?;
        Ok(format!(
            "Docker {}, API {}",
            version.version.as_deref().unwrap_or("?"),
            version.api_version.as_deref().unwrap_or("?")
        ))
    }

    /// Gives the daemon an image of these files under this name, in place of the one that had it; answers with its id.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be read, [`Error::Daemon`].
    pub async fn import(&self, name: &str, files: image::Files, settings: &[&str]) -> Result<String, Error> {
        let packed = tokio::task::spawn_blocking(move || files.pack()).await;
        let packed =
            packed.map_err(std::io::Error::other).flatten().map_err(Error::io("pack", Path::new(name)))?;
        self.inner.daemon.import(name, packed, settings).await
    }

    /// The id and the size in bytes of the image that has this name.
    ///
    /// # Errors
    /// [`Error::Daemon`].
    pub async fn image(&self, name: &str) -> Result<Option<(String, u64)>, Error> {
        let found = self.inner.daemon.image(name).await?;
        Ok(found.and_then(|image| Some((image.id?, u64::try_from(image.size?).ok()?))))
    }

    /// Runs `work` to its end, even if the caller loses interest, so that nothing is left half done.
    async fn whole<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match tokio::spawn(work).await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(value) => value,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is ending and takes the caller with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Provider for Docker {
    fn kind(&self) -> Kind {
        Kind::Docker
    }

    fn isolation(&self) -> Isolation {
        let network = match self.inner.options.link {
            Link::Socket => "network: none at all; the one way out is the socket of its own",
            Link::Tcp { .. } => {
                "network: one of its own, on which are no host and no other agent; the one way out is a relay"
            }
        };
        Isolation {
            level: Level::Namespaces,
            held: vec![
                network,
                "files: a read-only image, and tmpfs of bounded size; nothing of the host but socket and runner",
                "processes: namespaces of its own, a user of its own, no capabilities and no way to gain any",
                "kernel: system calls from a short list",
                "processor time, memory without swap, number of processes, open files, size of work directory and log",
                "ends completely: every process it ever started is killed with it",
            ],
            not_held: vec!["the kernel is the host's: a fault in it is a way out"],
        }
    }

    async fn create(&self, spec: &Spec) -> Result<Running, Error> {
        spec.check()?;
        let (inner, spec) = (Arc::clone(&self.inner), spec.clone());
        let create = async move {
            let _gate = inner.gates.enter(&spec.id).await;
            inner.create(&spec).await
        };
        self.whole(create).await
    }

    async fn destroy(&self, id: &Id) -> Result<(), Error> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        let destroy = async move {
            let _gate = inner.gates.enter(&id).await;
            inner.destroy(&id).await
        };
        self.whole(destroy).await
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        let inner = &self.inner;
        let found = futures_util::stream::iter(inner.ids().await?)
            .map(|(id, map)| async move {
                let damage = match inner.examine(&id).await {
                    // What is being made or removed is not left behind.
                    Ok(None) if labels::sandbox(&map).is_some() || inner.gates.is_changing(&id) => {
                        return None;
                    }
                    Ok(None) => "only what was beside it is left".to_owned(),
                    Ok(found) => return found,
                    Err(error) => format!("it cannot be looked at: failed to {error}"),
                };
                let (labels, socket) = (labels::read(&map), labels::socket(&map));
                Some(Found { id, labels, socket, state: State::Damaged(damage) })
            })
            .buffer_unordered(inner.options.limits.inspects_at_once);
        Ok(found.collect::<Vec<_>>().await.into_iter().flatten().collect())
    }

    async fn find(&self, id: &Id) -> Result<Option<Found>, Error> {
        self.inner.examine(id).await
    }

    async fn pin(&self, image: &str) -> Result<Option<String>, Error> {
        let bytes_max = self.inner.options.limits.image_bytes_max;
        Ok(Some(resolve::resolve(&self.inner.daemon, image, bytes_max).await?.id))
    }

    async fn check_runtime(&self, runtime: &str) -> Result<(), Error> {
        is_listed(&self.inner.daemon, RUNTIME_CLASS, runtime).await
    }

    fn container(&self, id: &Id) -> Option<Container> {
        self.inner.watch.get(id).map(|known| known.container)
    }

    async fn log(&self, id: &Id, bytes_max: u64) -> Result<Option<String>, Error> {
        let Mine::Yes(container) = self.inner.mine(id).await? else { return Ok(None) };
        self.inner.handler_log(&container, bytes_max).await
    }

    async fn signal(&self, id: &Id, which: Target, signal: Signal) -> Result<(), Error> {
        let gone = || Error::NotRunning { id: id.clone() };
        let Mine::Yes(container) = self.inner.mine(id).await? else { return Err(gone()) };
        let sent = match which {
            Target::Runner => {
                self.inner.daemon.kill(view::container_id(&container), name(signal)).await? == Done::Now
            }
            Target::Handler => signal_handlers(&container, signal)?,
        };
        if sent { Ok(()) } else { Err(gone()) }
    }

    async fn owns(&self, id: &Id, peer: Peer) -> Result<bool, Error> {
        // Whoever speaks before the container was looked at waits until it was.
        let _gate = self.inner.gates.enter_to_look(id).await;
        let Some(known) = self.inner.watch.get(id) else { return Ok(false) };
        Ok(!known.is_spoilt && peer::is_in(peer.pid, &known.speaker))
    }

    async fn update(&self, id: &Id, resources: &Resources) -> Result<(), Error> {
        let memory = i64::try_from(resources.memory_bytes).unwrap_or(i64::MAX);
        let limits = ContainerUpdateBody {
            memory: Some(memory),
            memory_swap: Some(memory),
            nano_cpus: Some(i64::from(resources.cpu_millis) * 1_000_000),
            pids_limit: Some(resources.pids.into()),
            ..ContainerUpdateBody::default()
        };
        let container = self.inner.running(id)?;
        self.inner.expect_done(id, self.inner.daemon.update(&container, limits).await?)
    }

    async fn pause(&self, id: &Id) -> Result<(), Error> {
        let _gate = self.inner.gates.enter(id).await;
        let container = self.inner.running(id)?;
        self.inner.daemon.pause(&container).await?;
        self.inner.watch.change(id, |known| known.is_still = true);
        Ok(())
    }

    async fn unpause(&self, id: &Id) -> Result<(), Error> {
        let _gate = self.inner.gates.enter(id).await;
        let container = self.inner.running(id)?;
        self.inner.watch.change(id, |known| known.is_still = false);
        self.inner.daemon.unpause(&container).await?;
        Ok(())
    }

    fn breaches(&self) -> broadcast::Receiver<Breach> {
        self.inner.watch.breaches()
    }

    fn exits(&self) -> broadcast::Receiver<Exit> {
        self.inner.watch.subscribe()
    }
}

/// The container of a sandbox.
enum Mine {
    /// It is there, and ours.
    Yes(Box<ContainerInspectResponse>),
    /// It is another instance's.
    No,
    /// There is none.
    Absent,
}

impl Inner {
    /// The container of this sandbox, if it is this instance's.
    async fn mine(&self, id: &Id) -> Result<Mine, Error> {
        let named = self.daemon.inspect(id.as_str()).await?.filter(|container| is_named(container, id));
        let found = match named {
            // What ran under this id may have been given another name since.
            None if self.used.has(id) => self.renamed(id).await?,
            named => named,
        };
        let Some(container) = found else { return Ok(Mine::Absent) };
        let is_ours = labels::is_of(&view::labels(&container), &self.options.instance);
        Ok(if is_ours { Mine::Yes(Box::new(container)) } else { Mine::No })
    }

    /// The container that says of itself that it is this sandbox's, whatever it is called.
    async fn renamed(&self, id: &Id) -> Result<Option<ContainerInspectResponse>, Error> {
        let own = format!("{}={id}", labels::SANDBOX);
        let ours = format!("{}={}", labels::INSTANCE, self.options.instance);
        match self.daemon.seek(vec![&own, &ours]).await? {
            Some(container) => self.daemon.inspect(&container).await,
            None => Ok(None),
        }
    }

    /// All sandboxes of this instance of which anything is at the daemon, with the labels of the container if that is.
    async fn ids(&self) -> Result<HashMap<Id, HashMap<String, String>>, Error> {
        let label = format!("{}={}", labels::INSTANCE, self.options.instance);
        let (containers, networks) =
            tokio::try_join!(self.daemon.list(&label), self.daemon.list_networks(&label))?;
        let mut found = HashMap::new();
        for map in networks.into_iter().chain(containers) {
            match (labels::sandbox(&map), labels::beside(&map)) {
                (Some(id), _) => drop(found.insert(id, map)),
                (None, Some(id)) => drop(found.entry(id).or_insert(map)),
                (None, None) => {}
            }
        }
        Ok(found)
    }

    /// Watches over a container that an earlier platform started, if it is still what it must be.
    async fn adopt(self: &Arc<Self>, id: &Id) {
        let _gate = self.gates.enter_to_look(id).await;
        self.look(id, None).await;
    }

    /// What a sandbox is doing. One that is not what it must be is killed.
    async fn examine(&self, id: &Id) -> Result<Option<Found>, Error> {
        // Whoever changes it looks at it himself.
        let gate = if self.gates.is_changing(id) { None } else { Some(self.gates.enter_to_look(id).await) };
        let Mine::Yes(container) = self.mine(id).await? else { return Ok(None) };
        if gate.is_some() && view::phase(&container) == view::Phase::Runs && !view::has_ended(&container) {
            self.judge(id, &container, None).await;
        }
        drop(gate);
        self.found(*container).await
    }

    async fn found(&self, mut container: ContainerInspectResponse) -> Result<Option<Found>, Error> {
        let map = view::labels(&container);
        let Some(id) = labels::sandbox(&map) else { return Ok(None) };
        // The kernel is ahead of the daemon: what has ended is not said to run.
        if view::phase(&container) == view::Phase::Runs && view::has_ended(&container) {
            let name = view::container_id(&container).to_owned();
            let ended = |found: Option<ContainerInspectResponse>| {
                found.is_none_or(|found| view::phase(&found) != view::Phase::Runs)
            };
            self.wait(&id, &name, ended).await?;
            match self.daemon.inspect(&name).await? {
                Some(now) => container = now,
                None => return Ok(None),
            }
        }
        let state = match view::phase(&container) {
            view::Phase::Runs => State::Running(view::pid(&container)),
            view::Phase::Made if self.gates.is_changing(&id) => State::Running(None),
            view::Phase::Made => State::Damaged("its start was interrupted".to_owned()),
            view::Phase::Ended => State::Ended(self.exit(&id, &container).await),
        };
        Ok(Some(Found { id, labels: labels::read(&map), socket: labels::socket(&map), state }))
    }

    /// The handler's log lies in the work directory, which goes with the container; then the runner's last words are
    /// all there is.
    async fn handler_log(
        &self,
        container: &ContainerInspectResponse,
        bytes_max: u64,
    ) -> Result<Option<String>, Error> {
        if let Some(root) = view::root(container) {
            let log = root.join(profile::WORK.trim_start_matches('/')).join(link::limits::HANDLER_LOG);
            if let Ok(Some(text)) = crate::tail::of(&log, bytes_max) {
                return Ok(Some(text));
            }
        }
        let words = self.daemon.log(view::container_id(container), self.options.limits.log_lines).await?;
        Ok((!words.is_empty()).then_some(words))
    }

    /// The container of a sandbox that runs.
    fn running(&self, id: &Id) -> Result<String, Error> {
        self.watch.get(id).map(|known| known.container.id).ok_or_else(|| Error::NotRunning { id: id.clone() })
    }

    fn expect_done(&self, id: &Id, done: Done) -> Result<(), Error> {
        match done {
            Done::Now => Ok(()),
            Done::Before => Err(Error::NotRunning { id: id.clone() }),
        }
    }
}

fn is_named(container: &ContainerInspectResponse, id: &Id) -> bool {
    container.name.as_deref().is_some_and(|name| name.trim_start_matches('/') == id.as_str())
}

/// Makes sure that the daemon can run containers by this runtime.
async fn is_listed(daemon: &Daemon, what: &'static str, runtime: &str) -> Result<(), Error> {
    let listed = daemon.runtimes().await?;
    let right = || format!("one that the Docker daemon lists: {}", listed.join(", "));
    if listed.iter().any(|name| name == runtime) {
        Ok(())
    } else {
        Err(Error::invalid(what, runtime, right()))
    }
}

/// Signals every child of the runner. It is done from outside: nothing is ever executed in a sandbox.
fn signal_handlers(container: &ContainerInspectResponse, signal: Signal) -> Result<bool, Error> {
    let Some(runner) = view::pid(container) else { return Ok(false) };
    let proc = Path::new("/proc").join(runner.pid.to_string());
    let mut sent = false;
    for child in Table::read().children(runner.pid).iter().map(Stat::id) {
        if let Some(handle) = Handle::open(child).map_err(Error::io("signal the children of", &proc))? {
            sent |=
                handle.signal(proc::number(signal)).map_err(Error::io("signal the children of", &proc))?;
        }
    }
    Ok(sent)
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Interrupt => "SIGINT",
        Signal::Terminate => "SIGTERM",
        Signal::Kill => "SIGKILL",
        Signal::Stop => "SIGSTOP",
        Signal::Continue => "SIGCONT",
    }
}
