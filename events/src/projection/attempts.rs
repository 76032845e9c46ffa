//! Every attempt at every task: who had it, from when to when, and how it ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::database::{Writer, twins};
use super::entities::poison;
use super::{Fault, Projection};
use crate::domain::DomainEvent;
use crate::domain::task::{AttemptStarted, Event};
use crate::event::Recorded;
use crate::id::{EntityKind, Timestamp};

pub(super) struct Attempts;

/// What an event means for the task's live attempt: its outcome and what was seen.
fn outcome(event: &Event) -> Option<(&'static str, Option<&str>)> {
    match event {
        Event::AttemptEnded(ended) => Some((ended.ended.as_str(), Some(&ended.detail))),
        Event::InputRequested(requested) if requested.parks => Some(("parked", None)),
        Event::Completed(_) => Some(("completed", None)),
        Event::Failed(failed) => Some(("failed", Some(&failed.message))),
        Event::Canceled(canceled) => Some(("canceled", Some(&canceled.reason))),
        Event::Rejected(rejected) => Some(("rejected", Some(&rejected.message))),
        Event::DeadLettered(dead) => Some((dead.ended.as_str(), Some(&dead.message))),
        _ => None,
    }
}

#[async_trait]
impl Projection for Attempts {
    fn name(&self) -> &'static str {
        "attempts"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["attempts"]
    }

    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<(), Fault> {
        let mut batch = Batch::default();
        for event in events.iter().filter(|event| event.stream.kind == EntityKind::Task) {
            match Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(Event::AttemptStarted(started)) => batch.start(event, started),
                Ok(decoded) => {
                    if let Some((outcome, detail)) = outcome(&decoded) {
                        batch.end(
                            event,
                            End { outcome, detail: detail.map(str::to_owned), at: event.recorded_at },
                        );
                    }
                }
                Err(error) => return Err(poison(event, &error)),
            }
        }
        batch.store(db).await?;
        Ok(())
    }
}

struct End {
    outcome: &'static str,
    detail: Option<String>,
    at: Timestamp,
}

struct Attempt {
    task: Arc<str>,
    started: AttemptStarted,
    started_at: Timestamp,
    end: Option<End>,
}

/// What a batch of events does. A task has at most one live attempt.
#[derive(Default)]
struct Batch {
    /// Ends of attempts that started in earlier batches, by task.
    ended: BTreeMap<Arc<str>, End>,
    started: Vec<Attempt>,
    /// Where among the started a task's live attempt is.
    live: HashMap<Arc<str>, usize>,
}

impl Batch {
    fn start(&mut self, event: &Recorded, started: AttemptStarted) {
        let task = Arc::clone(&event.stream.id);
        self.live.insert(Arc::clone(&task), self.started.len());
        self.started.push(Attempt { task, started, started_at: event.recorded_at, end: None });
    }

    fn end(&mut self, event: &Recorded, end: End) {
        match self.live.remove(&event.stream.id) {
            Some(index) => self.started[index].end = Some(end),
            None => {
                self.ended.entry(Arc::clone(&event.stream.id)).or_insert(end);
            }
        }
    }

    /// Ends what was live before, then adds what is new.
    async fn store(self, db: &mut Writer) -> Result<(), sqlx::Error> {
        if !self.ended.is_empty() {
            let row = |(task, end): (&Arc<str>, &End)| json!([**task, end.outcome, end.detail, end.at]);
            let rows = Value::from_iter(self.ended.iter().map(row));
            db.execute(twins!("end_attempts.sql"), [rows.into()]).await?;
        }
        if !self.started.is_empty() {
            let row = |Attempt { task, started, started_at, end }: &Attempt| {
                let end = end.as_ref();
                let (ended_at, outcome) = (end.map(|end| end.at), end.map(|end| end.outcome));
                let detail = end.and_then(|end| end.detail.as_deref());
                let AttemptStarted { fence, attempt, agent, incarnation, .. } = started;
                json!([**task, fence, attempt, agent, incarnation, started_at, ended_at, outcome, detail])
            };
            let rows = Value::from_iter(self.started.iter().map(row));
            db.execute(twins!("store_attempts.sql"), [rows.into()]).await?;
        }
        Ok(())
    }
}
