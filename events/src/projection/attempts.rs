//! Every attempt at every task: who had it, from when to when, and how it ended.

use async_trait::async_trait;

use super::database::{Statement, Writer};
use super::entities::poison;
use super::{Fault, Projection};
use crate::domain::task::{AttemptStarted, Event};
use crate::domain::{DecodeError, DomainEvent};
use crate::event::Recorded;
use crate::id::EntityKind;

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

    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<u64, Fault> {
        let mut skipped = 0;
        for event in events.iter().filter(|event| event.stream.kind == EntityKind::Task) {
            match Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(Event::AttemptStarted(started)) => start(db, event, &started).await?,
                Ok(decoded) => {
                    if let Some((outcome, detail)) = outcome(&decoded) {
                        end(db, event, outcome, detail).await?;
                    }
                }
                Err(DecodeError::UnknownKind { .. }) => skipped += 1,
                Err(error) => return Err(poison(event, &error)),
            }
        }
        Ok(skipped)
    }
}

async fn start(db: &mut Writer, event: &Recorded, started: &AttemptStarted) -> Result<(), sqlx::Error> {
    const START: Statement = Statement::common(include_str!("sql/start_attempt.sql"));
    let values = [
        (*event.stream.id).into(),
        started.fence.into(),
        i64::from(started.attempt).into(),
        started.agent.as_str().into(),
        started.incarnation.0.into(),
        event.recorded_at.0.into(),
    ];
    db.execute(START, values).await
}

async fn end(
    db: &mut Writer,
    event: &Recorded,
    outcome: &'static str,
    detail: Option<&str>,
) -> Result<(), sqlx::Error> {
    const END: Statement = Statement::common(include_str!("sql/end_attempt.sql"));
    let detail = detail.map(str::to_owned);
    db.execute(END, [(*event.stream.id).into(), outcome.into(), detail.into(), event.recorded_at.0.into()])
        .await
}
