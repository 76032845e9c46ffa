//! What crews use up of their budgets: messages, and what handlers report of their models. Nobody owns it: it is
//! summed up from the events of tasks and outboxes.

use serde::{Deserialize, Serialize};

use super::{DecodeError, DomainEvent, message, task};
use crate::event::Recorded;
use crate::id::{CrewId, EntityKind};

/// The most that a sum of anything used counts up to.
pub const COUNT_MAX: u64 = 1 << 60;

/// What was used of models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Cost in millionths of the currency unit.
    pub cost_micros: u64,
}

impl Usage {
    /// Tokens, read and written.
    pub fn tokens(&self) -> u64 {
        sum(self.input_tokens, self.output_tokens)
    }

    /// Whether nothing was used.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// This and more.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self {
            input_tokens: sum(self.input_tokens, more.input_tokens),
            output_tokens: sum(self.output_tokens, more.output_tokens),
            cost_micros: sum(self.cost_micros, more.cost_micros),
        }
    }
}

/// What a crew has used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Messages that its agents sent; one to several agents is one.
    pub messages: u64,
    /// What its tasks used of models.
    pub usage: Usage,
}

impl Spent {
    /// This and more.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self { messages: sum(self.messages, more.messages), usage: self.usage.and(more.usage) }
    }
}

fn sum(some: u64, more: u64) -> u64 {
    some.saturating_add(more).min(COUNT_MAX)
}

/// What was used up with this event, and by whom.
///
/// # Errors
/// When the payload of an event that tells so does not have the form of its kind.
pub fn of(event: &Recorded) -> Result<Option<(CrewId, Spent)>, DecodeError> {
    match (event.stream.kind, &*event.kind) {
        (EntityKind::Task, "usage_reported") => {
            match task::Event::decode(&event.kind, event.schema, &event.payload)? {
                task::Event::UsageReported(reported) => {
                    let usage = reported.total();
                    Ok(Some((reported.crew, Spent { usage, ..Spent::default() })))
                }
                _ => Ok(None),
            }
        }
        (EntityKind::Outbox, "message_sent") => {
            match message::Event::decode(&event.kind, event.schema, &event.payload)? {
                message::Event::Sent(sent) => {
                    Ok(Some((sent.crew, Spent { messages: 1, ..Spent::default() })))
                }
                _ => Ok(None),
            }
        }
        // What is not known may be a use as well.
        (EntityKind::Task, kind) => known::<task::Event>(kind),
        (EntityKind::Outbox, kind) => known::<message::Event>(kind),
        _ => Ok(None),
    }
}

fn known<E: DomainEvent>(kind: &str) -> Result<Option<(CrewId, Spent)>, DecodeError> {
    match E::KINDS.iter().any(|(known, _)| *known == kind) {
        true => Ok(None),
        false => Err(DecodeError::UnknownKind { kind: kind.to_owned() }),
    }
}
