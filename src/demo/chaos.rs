//! Kills an analyst in the middle of its task.

use std::sync::Arc;
use std::time::Duration;

use events::domain::DomainEvent;
use events::domain::agent::{Event as AgentEvent, Requested};
use events::domain::task::Event as TaskEvent;
use events::{AgentId, EntityKind, Position, SandboxId, TaskId};
use sandbox::{Signal, Target};
use tokio::task::JoinHandle;

use crate::platform::Platform;

/// Kills the first analyst that has written down a checkpoint, with SIGKILL and everything in its sandbox; ends with who
/// it was.
pub(super) fn start(platform: Arc<Platform>) -> JoinHandle<Option<AgentId>> {
    tokio::spawn(async move {
        let mut watch = Watch::default();
        let mut head = platform.store.watch();
        let mut after = Position(0);
        loop {
            let Ok(batch) = platform.store.read(after, super::BATCH_EVENTS).await else { return None };
            for event in batch {
                after = event.position;
                let Some((agent, sandbox)) = watch.victim(&event) else { continue };
                let id = sandbox::Id::new(sandbox.as_str()).ok()?;
                let killed = platform.provider.signal(&id, Target::Runner, Signal::Kill).await;
                let killed = killed.inspect_err(|error| tracing::warn!(%error, "nobody was killed"));
                return killed.is_ok().then_some(agent);
            }
            let _ = tokio::time::timeout(Duration::from_millis(200), head.changed()).await;
        }
    })
}

/// Who has what in hand, as the log tells it.
#[derive(Default)]
struct Watch {
    analysts: Vec<(AgentId, Option<SandboxId>)>,
    held: Vec<(TaskId, AgentId)>,
}

impl Watch {
    fn victim(&mut self, event: &events::Recorded) -> Option<(AgentId, SandboxId)> {
        match event.stream.kind {
            EntityKind::Agent => {
                let agent: AgentId = event.stream.id.parse().ok()?;
                match AgentEvent::decode(&event.kind, event.schema, &event.payload).ok()? {
                    AgentEvent::Requested(Requested { member, .. }) if member == "analyst" => {
                        self.analysts.push((agent, None));
                    }
                    AgentEvent::SandboxClaimed(claimed) => {
                        let analyst = self.analysts.iter_mut().find(|(id, _)| *id == agent)?;
                        analyst.1 = Some(claimed.sandbox);
                    }
                    _ => {}
                }
                None
            }
            EntityKind::Task => {
                let task: TaskId = event.stream.id.parse().ok()?;
                match TaskEvent::decode(&event.kind, event.schema, &event.payload).ok()? {
                    TaskEvent::AttemptStarted(started) => {
                        self.held.push((task, started.agent));
                        None
                    }
                    TaskEvent::Checkpointed(_) => {
                        let (_, agent) = self.held.iter().rev().find(|(id, _)| *id == task)?;
                        let analyst = self.analysts.iter().find(|(id, _)| id == agent)?;
                        Some((analyst.0.clone(), analyst.1.clone()?))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}
