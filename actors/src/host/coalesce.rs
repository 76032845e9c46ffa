//! Notes of handlers that become events: at most one per task and second, whatever was noted in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::TaskId;
use gateway::Peer;

use crate::core::Core;

/// At most one event per task in this time.
const WINDOW: Duration = Duration::from_secs(1);
/// Tasks that have a window at the same time; a note of a further one is written at once.
const WINDOWS_MAX: usize = 10_000;

/// What a handler notes again and again.
pub(super) trait Noted: Sized + Send + 'static {
    /// One note for the two.
    fn and(self, later: Self) -> Self;
    /// Has it recorded.
    fn write(self, core: &Arc<Core>, peer: &Peer, task: &TaskId) -> impl Future<Output = ()> + Send;
}

/// Holds notes back until their tasks' windows are over.
pub(super) struct Coalescer<T>(Mutex<Windows<T>>);

struct Windows<T> {
    /// What was noted in each, and by whom; nothing yet, or nothing any more, where that is absent.
    open: HashMap<TaskId, Option<(Peer, T)>>,
    /// No further window is opened.
    is_closed: bool,
}

impl<T> Default for Coalescer<T> {
    fn default() -> Self {
        Self(Mutex::new(Windows { open: HashMap::new(), is_closed: false }))
    }
}

/// A task's window, which is closed however its end comes about.
struct Window<T: Noted> {
    coalescer: Arc<Coalescer<T>>,
    task: TaskId,
    is_open: bool,
}

impl<T: Noted> Window<T> {
    /// What was noted in the window; without a note the window is closed.
    fn turn(&mut self) -> Option<T> {
        let mut windows = self.coalescer.windows();
        let held = windows.open.get_mut(&self.task).and_then(Option::take);
        if held.is_none() {
            windows.open.remove(&self.task);
            self.is_open = false;
        }
        held.map(|(_, note)| note)
    }
}

impl<T: Noted> Drop for Window<T> {
    fn drop(&mut self) {
        if self.is_open {
            self.coalescer.windows().open.remove(&self.task);
        }
    }
}

impl<T> Coalescer<T> {
    fn windows(&self) -> MutexGuard<'_, Windows<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Noted> Coalescer<T> {
    /// Takes a note; the first of a window is written at once, what follows at its end.
    pub(super) async fn take(self: &Arc<Self>, core: &Arc<Core>, peer: &Peer, task: &TaskId, note: T) {
        let opens = {
            let mut windows = self.windows();
            if let Some(held) = windows.open.get_mut(task) {
                let note = match held.take() {
                    Some((_, earlier)) => earlier.and(note),
                    None => note,
                };
                *held = Some((peer.clone(), note));
                return;
            }
            let opens = windows.open.len() < WINDOWS_MAX && !windows.is_closed;
            if opens {
                windows.open.insert(task.clone(), None);
            }
            opens
        };
        let window = opens.then(|| Window { coalescer: Arc::clone(self), task: task.clone(), is_open: true });
        note.write(core, peer, task).await;
        let Some(mut window) = window else { return };
        let (worker, peer) = (Arc::clone(core), peer.clone());
        core.spawn_for(&peer.crew.clone(), async move {
            loop {
                tokio::time::sleep(WINDOW).await;
                let Some(held) = window.turn() else { return };
                held.write(&worker, &peer, &window.task).await;
            }
        });
    }

    /// Writes what is held of a task now.
    pub(super) async fn flush(&self, core: &Arc<Core>, peer: &Peer, task: &TaskId) {
        let held = self.windows().open.get_mut(task).and_then(Option::take);
        if let Some((_, held)) = held {
            held.write(core, peer, task).await;
        }
    }

    /// Writes all that is held; what is noted from now on is written at once.
    pub(super) async fn close(&self, core: &Arc<Core>) {
        let open = {
            let mut windows = self.windows();
            windows.is_closed = true;
            std::mem::take(&mut windows.open)
        };
        for (task, held) in open {
            if let Some((peer, note)) = held {
                note.write(core, &peer, &task).await;
            }
        }
    }
}
