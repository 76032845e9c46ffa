//! Progress notes: at most one event per task and second, the latest wins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::TaskId;
use events::domain::task::Command;
use gateway::Peer;

use crate::core::Core;

/// At most one event per task in this time.
const WINDOW: Duration = Duration::from_secs(1);
/// Tasks whose progress waits at the same time; of more, nothing is noted until some have been.
const WAITING_MAX: usize = 10_000;

/// Holds back progress until its task's window is over.
#[derive(Default)]
pub(super) struct Coalescer {
    waiting: Mutex<HashMap<TaskId, Option<link::Progress>>>,
}

/// A task's window, which is closed however its end comes about.
struct Window {
    coalescer: Arc<Coalescer>,
    task: TaskId,
    is_open: bool,
}

impl Window {
    /// The last note of the window; without one the window is closed.
    fn turn(&mut self) -> Option<link::Progress> {
        let mut waiting = self.coalescer.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let held = waiting.get_mut(&self.task).and_then(Option::take);
        if held.is_none() {
            waiting.remove(&self.task);
            self.is_open = false;
        }
        held
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if self.is_open {
            self.coalescer.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.task);
        }
    }
}

impl Coalescer {
    /// Takes a note; the first of a window is written at once, the last of it at its end.
    pub(super) async fn take(self: &Arc<Self>, core: &Arc<Core>, peer: &Peer, progress: link::Progress) {
        let said = progress.message.is_some() || progress.progress.is_some();
        let Ok(task) = progress.task_id.as_str().parse::<TaskId>() else { return };
        if !said {
            return;
        }
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(held) = waiting.get_mut(&task) {
                *held = Some(progress);
                return;
            }
            if waiting.len() >= WAITING_MAX {
                return;
            }
            waiting.insert(task.clone(), None);
        }
        let mut window = Window { coalescer: Arc::clone(self), task: task.clone(), is_open: true };
        write(core, peer, &task, progress).await;
        let (worker, peer) = (Arc::clone(core), peer.clone());
        core.spawn_for(&peer.crew.clone(), async move {
            loop {
                tokio::time::sleep(WINDOW).await;
                let Some(held) = window.turn() else { return };
                write(&worker, &peer, &task, held).await;
            }
        });
    }
}

async fn write(core: &Arc<Core>, peer: &Peer, task: &TaskId, progress: link::Progress) {
    let state = core.look(&core.tasks, task.as_str()).await;
    let Some(attempt) = state
        .attempt
        .as_ref()
        .filter(|live| live.placement.agent == peer.agent && live.placement.incarnation == peer.incarnation)
    else {
        return;
    };
    let command = Command::Progress {
        fence: attempt.fence,
        message: progress.message.map(|text| text.chars().take(crate::contents::MESSAGE_CHARS_MAX).collect()),
        progress: progress.progress,
        total: progress.total,
    };
    let meta = core.agent_meta(peer);
    let command_id = core.clock.fresh_command();
    core.command(&core.tasks, task.as_str(), command, command_id, meta).await.ok();
}
