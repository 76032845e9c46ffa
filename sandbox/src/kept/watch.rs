//! Seeing sandboxes end.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle as Runtime;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::place::{Birth, Ending, Look, Record};
use super::{Inner, blocking};
use crate::proc::{self, Handle};
use crate::{Error, Exit, Id, Pid};

/// How long until a sandbox is watched again after the system had no descriptor left for it.
const RETRY: Duration = Duration::from_secs(1);

/// Whose end is waited for, and who wants to know.
#[derive(Debug)]
pub(super) struct Watches {
    tasks: Mutex<HashMap<Id, AbortHandle>>,
    exits: broadcast::Sender<Exit>,
}

impl Watches {
    pub(super) fn new(exits_max: usize) -> Self {
        Self { tasks: Mutex::default(), exits: broadcast::Sender::new(exits_max) }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Exit> {
        self.exits.subscribe()
    }

    pub(super) fn has(&self, id: &Id) -> bool {
        self.tasks().contains_key(id)
    }

    /// Ends the watch. Whoever gets `true` is the one to announce the exit, so it is announced once.
    pub(super) fn take(&self, id: &Id) -> bool {
        let task = self.tasks().remove(id);
        task.inspect(AbortHandle::abort).is_some()
    }

    pub(super) fn announce(&self, exit: Exit) {
        tracing::info!(sandbox = %exit.id, code = exit.code, signal = exit.signal, "sandbox ended");
        // Nobody listening is fine: the exit is also in the list.
        let _ = self.exits.send(exit);
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<Id, AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.tasks().values().for_each(AbortHandle::abort);
    }
}

/// Watches the keeper: it ends last, so its end is the sandbox's.
pub(super) fn watch(inner: &Arc<Inner>, id: &Id, birth: &Birth) {
    let keeper = (birth.boot == proc::boot()).then_some(birth.keeper);
    let (weak, watched) = (Arc::downgrade(inner), id.clone());
    let mut tasks = inner.watches.tasks();
    let task = Runtime::current().spawn(async move {
        if let Some(keeper) = keeper {
            while let Err(error) = ended(keeper).await {
                tracing::error!(sandbox = %watched, %error, "a sandbox cannot be watched; trying again");
                sleep(RETRY).await;
            }
        }
        settle(&weak, &watched).await;
    });
    tasks.insert(id.clone(), task.abort_handle());
}

/// Returns when exactly this process has ended.
async fn ended(process: Pid) -> io::Result<()> {
    if let Some(handle) = Handle::open(process)? {
        let fd = register(handle.into_fd())?;
        fd.readable().await?.retain_ready();
        proc::reap(fd.get_ref());
    }
    Ok(())
}

#[allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same descriptor, and keeps it open until the `AsyncFd` drops it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

async fn settle(weak: &Weak<Inner>, id: &Id) {
    let Some(inner) = weak.upgrade() else { return };
    let gate = inner.gates.enter(id).await;
    let id = id.clone();
    let settled = blocking(move || {
        let _gate = gate;
        // The task must not abort itself half way through, so it only leaves the list when it is done.
        if !inner.watches.has(&id) {
            return Ok(());
        }
        let ending = match inner.look(&id)? {
            Look::Ended(_, _, ending) => ending,
            Look::Lost(record, birth) | Look::Kept(record, Some(birth)) => {
                settle_lost(&inner, &id, &record, &birth)
            }
            look => {
                tracing::error!(sandbox = %id, ?look, "a sandbox ended and left no word of how");
                Ending::default()
            }
        };
        inner.watches.take(&id);
        inner.watches.announce(inner.place(&id).exit(&id, ending));
        Ok::<(), Error>(())
    });
    if let Err(error) = settled.await {
        tracing::error!(%error, "the end of a sandbox cannot be read");
    }
}

/// Ends what a killed keeper left, and records that it is over.
pub(super) fn settle_lost(inner: &Inner, id: &Id, record: &Record, birth: &Birth) -> Ending {
    let ending = inner.end_from_outside(id, Some(record), Some(birth)).unwrap_or_else(|error| {
        tracing::error!(sandbox = %id, %error, "a sandbox whose keeper was killed does not end");
        Ending::default()
    });
    if let Err(error) = inner.place(id).write_ending(&ending) {
        tracing::error!(sandbox = %id, %error, "the end of a sandbox cannot be recorded");
    }
    ending
}
