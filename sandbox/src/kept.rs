//! Sandboxes of this host, each under a keeper: plain processes, or processes in namespaces of their own.
//!
//! Above each runner sits a *keeper* that nothing below it can leave (see `keeper`); where the kernel gives us control
//! groups, those are a second net; and if the keeper itself was killed, the provider ends what is left from outside,
//! by process tree, control group and the marker in the environment.
//!
//! Without a [`Confinement`] a sandbox is shut off from nothing ([`crate::Level::None`]): that is for trusted handlers and for
//! machines where nothing else is allowed.

mod birth;
mod cgroup;
mod isolation;
mod keeper;
mod place;
mod start;
mod sweep;
mod watch;

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::libc;
use tokio::sync::broadcast;
use tokio::task::{JoinError, spawn_blocking};

use self::cgroup::Groups;
use self::place::{Birth, Ending, Look, Place, Record, Root};
use self::watch::Watches;
use crate::gates::Gates;
use crate::native;
use crate::proc::{self, Handle, Stat, Table};
use crate::tail;
use crate::{
    Confinement, Error, Exit, Found, Id, Instance, Isolation, Kind, Labels, Peer, Provider, Running, Signal,
    Spec, State, Target,
};

pub(crate) use self::birth::{Keeper, limit};
pub use self::keeper::keeper_main;

/// The search path where the platform has none.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// The control groups that sandboxes with limits get here, in words: where each is, and what it is good for. None where
/// the kernel lets us make none.
pub fn control_groups() -> Vec<String> {
    Groups::bases(&format!("hypercode-look-{}", std::process::id()), true).in_words()
}

/// How a [`Kept`] provider is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of all its sandboxes: made where missing, and of one instance only at a time.
    pub root: PathBuf,
    /// The platform instance that the sandboxes belong to.
    pub instance: Instance,
    /// The program that calls [`keeper_main`] when its name is [`Options::KEEPER`].
    pub keeper: PathBuf,
    /// `PATH` of the runner, and so of handlers, as far as they see it.
    pub path: OsString,
    /// What sandboxes are confined to; `None` leaves them everything that the platform's user may.
    pub confinement: Option<Confinement>,
    /// Whether each sandbox gets control groups where the kernel lets us make some. It ends as completely without,
    /// only by more work, but what it uses as a whole is not held then.
    pub control_groups: bool,
    /// Bounds.
    pub limits: Limits,
}

impl Options {
    /// The file name in `argv[0]` by which the `hypercode` binary knows that it is to be a keeper.
    pub const KEEPER: &'static str = "hypercode-keeper";

    /// The running program is the keeper too, and `PATH` is its own.
    #[must_use]
    pub fn new(root: PathBuf, instance: Instance) -> Self {
        Self {
            root,
            instance,
            // The very file that runs, even if another was put in its place since.
            keeper: PathBuf::from("/proc/self/exe"),
            path: env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into()),
            confinement: None,
            control_groups: true,
            limits: Limits::default(),
        }
    }
}

/// Bounds of a [`Kept`] provider.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a keeper may take to execute the runner's program, in milliseconds.
    pub start_ms: u64,
    /// How long a keeper may take to end everything before the provider does it from outside, in milliseconds.
    pub keeper_end_ms: u64,
    /// How long the provider tries from outside before it says what is left, in milliseconds.
    pub sweep_ms: u64,
    /// How many exits wait for the slowest of those who listen.
    pub exits: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { start_ms: 10_000, keeper_end_ms: 5_000, sweep_ms: 5_000, exits: 1024 }
    }
}

/// Sandboxes of this host.
///
/// Dropping it leaves them running; the next one over the same root adopts them, whatever they are confined to.
#[derive(Clone, Debug)]
pub struct Kept {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    root: Root,
    /// The control groups below which each sandbox gets its own, and the start of their names.
    groups: (Groups, String),
    gates: Gates,
    watches: Watches,
}

impl Kept {
    /// Opens the root, adopts what runs in it and ends what lost its keeper.
    ///
    /// # Errors
    /// [`Error::Io`] where the root cannot be made or read.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let inner = blocking(move || Inner::open(options)).await?;
        let kept = Self { inner: Arc::new(inner) };
        let inner = Arc::clone(&kept.inner);
        blocking(move || inner.adopt()).await?;
        Ok(kept)
    }

    /// Runs `work` off the async threads, alone among all that concern `id`. It runs to its end even if the
    /// caller loses interest, so nothing is left half done.
    async fn alone<T: Send + 'static>(
        &self,
        id: &Id,
        work: impl FnOnce(&Arc<Inner>, &Id) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let gate = self.inner.gates.enter(id).await;
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        blocking(move || {
            let _gate = gate;
            work(&inner, &id)
        })
        .await
    }
}

#[async_trait]
impl Provider for Kept {
    fn kind(&self) -> Kind {
        match self.inner.options.confinement {
            None => Kind::Process,
            Some(_) => Kind::Native,
        }
    }

    fn isolation(&self) -> Isolation {
        match self.inner.options.confinement {
            None => isolation::of_processes(),
            Some(_) => isolation::of_namespaces(self.inner.groups.0.held()),
        }
    }

    async fn create(&self, spec: &Spec) -> Result<Running, Error> {
        spec.check()?;
        let spec = spec.clone();
        self.alone(&spec.id.clone(), move |inner, _| start::create(inner, &spec)).await
    }

    async fn destroy(&self, id: &Id) -> Result<(), Error> {
        self.alone(id, |inner, id| inner.destroy(id)).await
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let ids = inner.root.ids()?;
            ids.iter().filter_map(|id| inner.find(id).transpose()).collect()
        })
        .await
    }

    async fn find(&self, id: &Id) -> Result<Option<Found>, Error> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        blocking(move || inner.find(&id)).await
    }

    async fn log(&self, id: &Id, bytes_max: u64) -> Result<Option<String>, Error> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        blocking(move || inner.log(&id, bytes_max)).await
    }

    async fn signal(&self, id: &Id, which: Target, signal: Signal) -> Result<(), Error> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        blocking(move || inner.signal(&id, which, signal)).await
    }

    async fn pause(&self, id: &Id) -> Result<(), Error> {
        self.alone(id, |inner, id| inner.freeze(id, true)).await
    }

    async fn unpause(&self, id: &Id) -> Result<(), Error> {
        self.alone(id, |inner, id| inner.freeze(id, false)).await
    }

    async fn owns(&self, id: &Id, peer: Peer) -> Result<bool, Error> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        blocking(move || inner.owns(&id, peer)).await
    }

    fn exits(&self) -> broadcast::Receiver<Exit> {
        self.inner.watches.subscribe()
    }
}

/// The work directory as it is seen from here. A confined sandbox has it in its own memory: it is reached through its
/// runner, and gone with it.
fn work(place: &Place, is_confined: bool, birth: &Birth) -> PathBuf {
    match is_confined {
        true => native::work_of(birth.runner),
        false => place.work(),
    }
}

impl Inner {
    fn open(options: Options) -> Result<Self, Error> {
        let root = Root::open(&options.root)?;
        let inode = root.path().metadata().map_err(Error::io("inspect", root.path()))?.ino();
        // Unique on this host: another root, even of the same instance, never meets our groups.
        let prefix = format!("hypercode-{}-{inode:x}-", options.instance);
        let bases = match options.control_groups {
            true => {
                Groups::bases(&format!("{prefix}probe-{}", std::process::id()), options.confinement.is_some())
            }
            false => Groups::default(),
        };
        let groups = (bases, prefix);
        let watches = Watches::new(options.limits.exits);
        Ok(Self { options, root, groups, gates: Gates::default(), watches })
    }

    /// Watches over what an earlier provider started.
    fn adopt(self: &Arc<Self>) -> Result<(), Error> {
        for id in self.root.ids()? {
            match self.look(&id)? {
                Look::Kept(_, Some(birth)) => watch::watch(self, &id, &birth),
                Look::Kept(_, None) => {
                    // Its platform ended in the very moment of starting it.
                    if let Some(birth) = start::await_birth(self, &id)? {
                        watch::watch(self, &id, &birth);
                    }
                }
                Look::Lost(record, birth) => {
                    watch::settle_lost(self, &id, &record, &birth);
                }
                Look::Damaged(reason) => tracing::warn!(sandbox = %id, reason, "found a damaged sandbox"),
                Look::Absent | Look::Foreign | Look::Unborn(_) | Look::Ended(..) => {}
            }
        }
        Ok(())
    }

    fn place(&self, id: &Id) -> Place {
        self.root.place(id)
    }

    fn look(&self, id: &Id) -> Result<Look, Error> {
        self.place(id).look(&self.options.instance)
    }

    fn find(&self, id: &Id) -> Result<Option<Found>, Error> {
        let place = self.place(id);
        let ended = |ending| State::Ended(place.exit(id, ending));
        let (record, state) = match self.look(id)? {
            Look::Absent | Look::Foreign => return Ok(None),
            Look::Damaged(reason) => (None, State::Damaged(reason)),
            Look::Unborn(record) if self.gates.is_changing(id) => (record, State::Running(None)),
            Look::Unborn(record) => (record, State::Damaged("its start was interrupted".to_owned())),
            Look::Kept(record, birth) => (Some(record), State::Running(birth.map(|birth| birth.runner))),
            // Until it is settled something of it may run.
            Look::Lost(record, birth) if self.watches.has(id) => {
                (Some(record), State::Running(Some(birth.runner)))
            }
            Look::Lost(record, _) => (Some(record), ended(Ending::default())),
            Look::Ended(record, _, ending) => (Some(record), ended(ending)),
        };
        let (labels, socket) = match record {
            Some(record) => (record.spec.labels, Some(record.spec.socket)),
            None => (Labels::default(), None),
        };
        Ok(Some(Found { id: id.clone(), labels, socket, state }))
    }

    fn freeze(&self, id: &Id, still: bool) -> Result<(), Error> {
        let Look::Kept(record, Some(_)) = self.look(id)? else {
            return Err(Error::NotRunning { id: id.clone() });
        };
        let groups = record.groups.existing();
        if !groups.can_freeze() {
            let kind = if record.confinement.is_some() { Kind::Native } else { Kind::Process };
            return Err(Error::Unsupported {
                kind,
                what: "have a sandbox stand still without control groups",
            });
        }
        groups.freeze(still).map_err(Error::io("freeze", self.place(id).dir()))
    }

    /// Plain processes of one user are all alike. Confined ones are below their runner: its orphans fall to it.
    fn owns(&self, id: &Id, peer: Peer) -> Result<bool, Error> {
        let Look::Kept(record, Some(birth)) = self.look(id)? else { return Ok(false) };
        Ok(match &record.confinement {
            Some(confinement) => peer.uid == confinement.uid() && proc::is_within(peer.pid, birth.runner),
            None => peer.uid == nix::unistd::geteuid().as_raw(),
        })
    }

    fn log(&self, id: &Id, bytes_max: u64) -> Result<Option<String>, Error> {
        let place = self.place(id);
        let (record, birth) = match self.look(id)? {
            Look::Kept(record, Some(birth))
            | Look::Lost(record, birth)
            | Look::Ended(record, Some(birth), _) => (record, birth),
            _ => return Ok(None),
        };
        let is_confined = record.confinement.is_some();
        let end = tail::of(&work(&place, is_confined, &birth).join(link::limits::HANDLER_LOG), bytes_max)?;
        // Another process may have got its number, and so be whose file it is.
        let is_its_own = !is_confined || proc::lives(birth.runner);
        Ok(end.filter(|_| is_its_own))
    }

    fn signal(&self, id: &Id, which: Target, signal: Signal) -> Result<(), Error> {
        let place = self.place(id);
        let fail = |error| Error::io("signal", place.dir())(error);
        let gone = || Error::NotRunning { id: id.clone() };
        let Look::Kept(_, Some(birth)) = self.look(id)? else {
            return Err(gone());
        };
        if !proc::lives(birth.runner) {
            return Err(gone());
        }
        let targets = match which {
            Target::Runner => vec![birth.runner],
            Target::Handler => Table::read().children(birth.runner.pid).iter().map(Stat::id).collect(),
        };
        let mut sent = false;
        for target in targets {
            if let Some(handle) = Handle::open(target).map_err(fail)? {
                sent |= handle.signal(proc::number(signal)).map_err(fail)?;
            }
        }
        if sent { Ok(()) } else { Err(gone()) }
    }

    fn destroy(&self, id: &Id) -> Result<(), Error> {
        let place = self.place(id);
        let look = self.look(id)?;
        if matches!(look, Look::Foreign) {
            return Ok(());
        }
        // First of all: a create that comes late must not start what is being removed.
        self.root.used.mark(id)?;
        let (record, birth) = match look {
            Look::Absent | Look::Foreign => return Ok(()),
            Look::Ended(record, birth, _) => (Some(record), birth),
            Look::Kept(record, Some(birth)) | Look::Lost(record, birth) => (Some(record), Some(birth)),
            Look::Kept(record, None) => (Some(record), start::await_birth(self, id)?),
            Look::Unborn(record) => (record, None),
            Look::Damaged(_) => (None, None),
        };
        let ending = match birth.as_ref().and_then(|birth| self.ask_keeper(&place, birth)) {
            Some(ending) => ending,
            None => self.end_from_outside(id, record.as_ref(), birth.as_ref())?,
        };
        if self.watches.take(id) {
            self.watches.announce(place.exit(id, ending));
        }
        place.remove()
    }

    /// Has the keeper end everything; `None` when it does not, and someone else has to.
    fn ask_keeper(&self, place: &Place, birth: &Birth) -> Option<Ending> {
        if let Ok(Some(keeper)) = Handle::open(birth.keeper) {
            // Continued too, should the sandbox have stopped it.
            let asked = keeper.signal(libc::SIGTERM).and_then(|_| keeper.signal(libc::SIGCONT));
            if asked.is_err() || !keeper.wait(Duration::from_millis(self.options.limits.keeper_end_ms)) {
                return None;
            }
            proc::reap(&keeper);
        }
        match place.look(&self.options.instance) {
            Ok(Look::Ended(_, _, ending)) => Some(ending),
            _ => None,
        }
    }

    /// Ends what no keeper ends, and records that it is over.
    fn end_from_outside(
        &self,
        id: &Id,
        record: Option<&Record>,
        birth: Option<&Birth>,
    ) -> Result<Ending, Error> {
        let place = self.place(id);
        let groups = record.map(|record| record.groups.existing()).unwrap_or_default();
        let keeper = birth.and_then(|birth| Handle::open(birth.keeper).ok().flatten());
        let limit = Duration::from_millis(self.options.limits.sweep_ms);
        sweep::end_from_outside(&place, birth, &groups, limit)
            .map_err(|pids| Error::StillRunning { id: id.clone(), pids })?;
        if let Some(keeper) = keeper {
            proc::reap(&keeper);
        }
        let ending = Ending { oom: groups.was_out_of_memory(), ..Ending::default() };
        groups.remove();
        Ok(ending)
    }

    fn groups(&self, id: &Id) -> Groups {
        let (bases, prefix) = &self.groups;
        bases.below(&format!("{prefix}{id}"))
    }
}

/// Files, processes and waiting for them block; the async threads must not.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is ending and takes the caller with it.
        Err(Err(_)) => std::future::pending().await,
    }
}
