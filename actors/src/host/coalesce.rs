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
pub(super) struct Coalescer<T>(Mutex<HashMap<TaskId, Option<T>>>);

impl<T> Default for Coalescer<T> {
    fn default() -> Self {
        Self(Mutex::default())
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
        let mut waiting = self.coalescer.waiting();
        let held = waiting.get_mut(&self.task).and_then(Option::take);
        if held.is_none() {
            waiting.remove(&self.task);
            self.is_open = false;
        }
        held
    }
}

impl<T: Noted> Drop for Window<T> {
    fn drop(&mut self) {
        if self.is_open {
            self.coalescer.waiting().remove(&self.task);
        }
    }
}

impl<T> Coalescer<T> {
    fn waiting(&self) -> MutexGuard<'_, HashMap<TaskId, Option<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Noted> Coalescer<T> {
    /// Takes a note; the first of a window is written at once, what follows at its end.
    pub(super) async fn take(self: &Arc<Self>, core: &Arc<Core>, peer: &Peer, task: &TaskId, note: T) {
        let opens = {
            let mut waiting = self.waiting();
            if let Some(held) = waiting.get_mut(task) {
                *held = Some(match held.take() {
                    Some(earlier) => earlier.and(note),
                    None => note,
                });
                return;
            }
            let opens = waiting.len() < WINDOWS_MAX;
            if opens {
                waiting.insert(task.clone(), None);
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
        let held = self.waiting().get_mut(task).and_then(Option::take);
        if let Some(held) = held {
            held.write(core, peer, task).await;
        }
    }
}
