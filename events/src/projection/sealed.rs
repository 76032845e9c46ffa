//! Opening what answers have of personal data. The tables hold it as the log does.

use std::sync::Arc;

use super::{AttemptView, TaskView, ViewError, Views};
use crate::body;
use crate::domain::message::{Body, Pending, Sent};
use crate::id::{EntityKind, StreamId, TaskId};
use crate::seal::keys_of;

impl Views {
    pub(super) async fn open_task(&self, task: &mut TaskView) -> Result<(), ViewError> {
        let subject = task.state.submitted.as_ref().and_then(|submitted| submitted.subject.as_ref());
        if let (Some(seal), Some(_)) = (&self.seal, subject) {
            let stream = StreamId::new(EntityKind::Task, task.id.as_str());
            task.state = seal.open(&stream, std::mem::take(&mut task.state)).await?;
        }
        Ok(())
    }

    pub(super) async fn open_attempt(
        &self,
        task: &TaskId,
        attempt: &mut AttemptView,
    ) -> Result<(), ViewError> {
        if let (Some(seal), Some(detail)) = (&self.seal, &mut attempt.detail) {
            let stream = StreamId::new(EntityKind::Task, task.as_str());
            *detail = seal.open(&stream, std::mem::take(detail)).await?;
        }
        Ok(())
    }

    pub(super) async fn open_message(&self, sent: &mut Sent) -> Result<(), ViewError> {
        let Some(seal) = &self.seal else { return Ok(()) };
        let party = &sent.from;
        let outbox = StreamId::new(EntityKind::Outbox, format!("{}/{}", party.agent, party.incarnation));
        match &mut sent.body {
            Body::Inline(value) => *value = seal.open(&outbox, value.take()).await?,
            Body::Stored(stored) => {
                if let Some(key) = &mut stored.key {
                    *key = seal.open(&outbox, key.clone()).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn open_pending(&self, pending: &mut Pending) -> Result<(), ViewError> {
        let sealed = match &pending.sent.body {
            Body::Inline(body) => body.as_str(),
            Body::Stored(stored) => stored.key.as_ref().map(body::Key::as_str),
        };
        if sealed.is_some_and(|text| !keys_of(text).is_empty()) {
            self.open_message(Arc::make_mut(&mut pending.sent)).await?;
        }
        Ok(())
    }
}
