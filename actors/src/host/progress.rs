//! Progress notes: the latest wins.

use std::sync::Arc;

use events::TaskId;
use events::domain::task::Command;
use gateway::Peer;

use super::Host;
use super::coalesce::Noted;
use crate::core::Core;

impl Noted for link::Progress {
    fn and(self, later: Self) -> Self {
        later
    }

    async fn write(self, core: &Arc<Core>, peer: &Peer, task: &TaskId) {
        let state = core.look(&core.tasks, task.as_str()).await;
        let Some(attempt) = state.attempt.as_ref().filter(|live| {
            live.placement.agent == peer.agent && live.placement.incarnation == peer.incarnation
        }) else {
            return;
        };
        let message =
            self.message.map(|text| text.chars().take(crate::contents::MESSAGE_CHARS_MAX).collect());
        let command =
            Command::Progress { fence: attempt.fence, message, progress: self.progress, total: self.total };
        let meta = core.agent_meta(peer);
        let command_id = core.clock.fresh_command();
        core.instruct(&core.tasks, task.as_str(), command, command_id, meta).await;
    }
}

impl Host {
    /// Has a handler's progress recorded, if it says any; what it says to watchers only, they are told.
    pub(super) async fn take_progress(&self, peer: &Peer, note: link::Progress) {
        let Ok(task) = note.task_id.as_str().parse::<TaskId>() else { return };
        if let Some(delta) = &note.delta {
            self.core.live.tell(&task, delta);
        }
        if note.message.is_some() || note.progress.is_some() {
            self.progress.take(&self.core, peer, &task, note).await;
        }
    }
}
