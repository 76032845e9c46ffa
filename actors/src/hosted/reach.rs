//! Tasks for agents that a crew no longer has.

use std::sync::Arc;

use events::CrewId;
use events::domain::crew;
use events::domain::task::{Command, Status, Submitted};

use crate::core::Core;
use crate::entity::Cause;

/// Who says so.
const PART: &str = "supervisor";

/// Why nobody will ever take a task that asks for one replica: the crew has no such agent any more. Another that is given
/// the number later is somebody else.
pub(super) fn unreachable(crew: &crew::State, submitted: &Submitted) -> Option<String> {
    let replica = submitted.replica?;
    let is_meant = |seat: &crew::Seat| seat.member == submitted.member && seat.replica == replica;
    let gone = !crew.kept().any(|held| is_meant(&held.seat));
    gone.then(|| format!("the crew has no agent `{}[{replica}]` any more", submitted.member))
}

/// Calls off what waits for agents that the crew no longer has.
pub(super) async fn end_unreachable(core: &Arc<Core>, cause: &Cause, id: &CrewId) {
    let crew = core.look(&core.crews, id.as_str()).await;
    for task in core.tallies.of(id) {
        let state = core.look(&core.tasks, task.as_str()).await;
        let waits = state.status == Status::Submitted && state.attempt.is_none();
        let reason = state.submitted.as_ref().filter(|_| waits).and_then(|it| unreachable(&crew, it));
        if let Some(reason) = reason {
            let command = Command::Cancel { reason, by_parent: false };
            core.follow(&core.tasks, task.as_str(), command, cause, PART, 6).await;
        }
    }
}
