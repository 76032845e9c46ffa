//! Messages: delivered one after the other, in order, when the handler takes them.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use link::{
    Error, ErrorType, Id, MessageAck, MessageFrame, Messages, ToGateway, limits::DELIVERY_ACK_MS_MAX,
};
use tokio::time::timeout;

use super::{Core, OnLoss, Phase};
use crate::event::Event;

/// Messages that the gateway may send ahead.
const WINDOW: u32 = 32;
/// Messages whose delivery is remembered, so that one that is sent again is acknowledged but not delivered again.
const REMEMBERED_MAX: usize = 1_024;

/// Messages on their way to the handler.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    held: VecDeque<MessageFrame>,
    delivering: Option<MessageFrame>,
    taken: HashSet<Id>,
    taken_in_order: VecDeque<Id>,
}

impl Inbox {
    /// How many more are welcome.
    pub(super) fn room(&self) -> u32 {
        let held = self.held.len() + usize::from(self.delivering.is_some());
        WINDOW.saturating_sub(u32::try_from(held).unwrap_or(WINDOW))
    }

    /// Whether the gateway should hear of the room: not after every single message.
    pub(super) fn is_worth_telling(believed: u32, room: u32) -> bool {
        room > believed && believed <= WINDOW / 2
    }

    fn remember(&mut self, id: Id) {
        if self.taken.insert(id.clone()) {
            self.taken_in_order.push_back(id);
        }
        if self.taken_in_order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.taken_in_order.pop_front()
        {
            self.taken.remove(&oldest);
        }
    }

    fn holds(&self, id: &Id) -> bool {
        self.held.iter().chain(&self.delivering).any(|message| message.message_id == *id)
    }
}

impl Core {
    pub(super) fn on_message(&mut self, message: MessageFrame) {
        self.link.believed.messages = self.link.believed.messages.saturating_sub(1);
        if self.inbox.taken.contains(&message.message_id) {
            return self.acknowledge(message.id, message.message_id, None);
        }
        // One that is on its way already, or beyond the credit, is not taken: it will be delivered again.
        if !self.inbox.holds(&message.message_id) && self.inbox.room() > 0 {
            self.inbox.held.push_back(message);
            self.deliver();
        }
    }

    /// Delivers the next message, if the handler takes it now.
    pub(super) fn deliver(&mut self) {
        let Some(agent) = &self.agent else { return };
        let takes = match agent.info.messages {
            Messages::Idle => self.attempts.is_empty() && self.waiting.is_empty(),
            Messages::Always | Messages::None => true,
        };
        if self.inbox.delivering.is_some() || !takes || !matches!(self.phase, Phase::Running) {
            return;
        }
        let (Some(carrier), Some(message)) = (agent.carrier.clone(), self.inbox.held.pop_front()) else {
            return;
        };
        let takes_none = agent.info.messages == Messages::None;
        let (params, platform) = (message.params.clone(), self.platform.clone());
        self.inbox.delivering = Some(message);
        tokio::spawn(async move {
            let outcome = if takes_none {
                Err(Error::new(ErrorType::MethodNotFound, "the handler takes no messages"))
            } else {
                let silence = Duration::from_millis(DELIVERY_ACK_MS_MAX);
                timeout(silence, carrier.deliver(&params)).await.unwrap_or_else(|_| {
                    Err(Error::new(
                        ErrorType::Deadline,
                        "the handler did not acknowledge the message in time",
                    ))
                })
            };
            platform.tell(Event::Delivered(params.message_id, outcome)).await;
        });
    }

    pub(super) fn on_delivered(&mut self, id: &Id, outcome: Result<(), Error>) {
        let Some(message) = self.inbox.delivering.take_if(|message| message.message_id == *id) else {
            return;
        };
        let error = outcome.err();
        if error.is_none() {
            self.inbox.remember(id.clone());
        }
        self.acknowledge(message.id, message.message_id, error);
        self.deliver();
    }

    fn acknowledge(&mut self, re: Id, message_id: Id, error: Option<Error>) {
        self.send(&ToGateway::MessageAck(MessageAck { re, message_id, error }), OnLoss::Keep);
    }
}
