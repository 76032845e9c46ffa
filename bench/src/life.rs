//! Tasks as a log has them: each is submitted, started, gets on and is completed.

use std::sync::Arc;

use events::domain::DomainEvent as _;
use events::domain::task::{AttemptStarted, Completed, Event, Progressed, RetryPolicy, Submitted};
use events::{AgentId, AppendRequest, CrewId, Digest, EventStore, Incarnation, NewEvent, TaskId, Tenant};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{Result, append, load};

/// Events of one task.
pub(crate) const EVENTS: u64 = 4;
/// Callers that append at once while a log is made: as many as a commit takes.
const AT_ONCE: u64 = 512;
/// Crews that have tasks.
const CREWS: u64 = 10;

/// The append of `count` events of the task of this number, from version `first` on.
pub(crate) fn request(task: u64, first: u64, count: u64) -> Result<AppendRequest> {
    let stream = load::stream(task);
    let id: TaskId = stream.id.parse()?;
    let crew: CrewId = format!("cr_{:032}", task % CREWS).parse()?;
    let events = (first..first + count).map(|version| event(&id, &crew, version)).collect();
    Ok(AppendRequest { events, ..append::request(&stream, first) })
}

/// The event at `version` in a task's life.
fn event(task: &TaskId, crew: &CrewId, version: u64) -> NewEvent {
    let event = match version {
        1 => Event::from(submitted(task, crew)),
        2 => {
            let (agent, incarnation) = (AgentId::derive(&[crew.as_str()]), Incarnation(1));
            AttemptStarted { attempt: 1, fence: 1, agent, incarnation, at_ms: 1_795_382_626_000 }.into()
        }
        3 => {
            let message = Some("counting what is found in them".to_owned());
            Progressed { message, progress: Some(5.0), total: Some(10.0) }.into()
        }
        _ => {
            let output = json!({"parts": [{"data": {"files": 10, "lines": 12_345}}]});
            Completed { attempt: 1, fence: 1, output, artifacts: json!([]) }.into()
        }
    };
    event.encode()
}

fn submitted(task: &TaskId, crew: &CrewId) -> Submitted {
    Submitted {
        task: task.clone(),
        tenant: Tenant::default(),
        crew: crew.clone(),
        member: "worker".to_owned(),
        replica: None,
        input: json!({"parts": [{"text": "read the files of this part, one after the other, and count their lines"}]}),
        subject: None,
        context: task.to_string(),
        from: "user:bench".to_owned(),
        from_member: None,
        parent: None,
        depth: 0,
        deadline_ms: None,
        attempt_timeout_ms: None,
        retry: RetryPolicy::default(),
        request_digest: Digest::ZERO,
        traceparent: None,
    }
}

/// Makes a log of so many tasks, each in one append, as quickly as the store takes them.
pub(crate) async fn fill(store: &Arc<dyn EventStore>, tasks: u64) -> Result<()> {
    let mut running = JoinSet::new();
    for caller in 0..AT_ONCE {
        let store = Arc::clone(store);
        running.spawn(async move {
            let mut task = caller;
            while task < tasks {
                store.append(request(task, 1, EVENTS)?).await?;
                task += AT_ONCE;
            }
            Result::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}
