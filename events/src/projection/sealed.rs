//! Opening what answers have of personal data. The tables hold it as the log does.

use std::sync::Arc;

use super::{AttemptView, TaskView, ViewError, Views};
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
        if let (Some(seal), Body::Inline(value)) = (&self.seal, &mut sent.body) {
            let party = &sent.from;
            let outbox = format!("{}/{}", party.agent, party.incarnation);
            *value = seal.open(&StreamId::new(EntityKind::Outbox, outbox), value.take()).await?;
        }
        Ok(())
    }

    pub(super) async fn open_pending(&self, pending: &mut Pending) -> Result<(), ViewError> {
        let is_sealed = |sent: &Sent| matches!(&sent.body, Body::Inline(body) if body.as_str().is_some_and(|text| !keys_of(text).is_empty()));
        if is_sealed(&pending.sent) {
            self.open_message(Arc::make_mut(&mut pending.sent)).await?;
        }
        Ok(())
    }
}
