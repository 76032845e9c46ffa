//! From the board to a runner, and what becomes of it: acknowledged, given up, recorded.

use std::sync::Arc;
use std::time::Duration;

use events::domain::DomainEvent;
use events::domain::message::{Acked as AckedEvent, DeadLettered, Event, GivenUp, MessageId, Recipient};
use events::{AgentId, AppendError, AppendRequest, EntityKind, Incarnation, Principal, StreamId};
use link::handler::{Deliver, Sender};
use link::{Content, ErrorType, Id, MessageAck, MessageFrame, ToRunner};
use serde_json::json;
use tokio::time::Instant;

use crate::board::{Ack, Acked, Dead, Delivery, Next, Unrecorded};
use crate::body::{self, Lost};
use crate::core::Core;
use crate::crew::Crew;
use crate::denial::party;
use crate::host::Peer;
use crate::journal;
use crate::policy::Kind;
use crate::session::text;

/// Most acknowledgements in one event: an event's payload is bounded.
const ACKS_IN_EVENT_MAX: usize = 1_000;
/// How long after a body could not be read it is tried again.
const BODY_RETRY: Duration = Duration::from_secs(1);

/// What a link has to do about messages.
pub(crate) enum Step {
    /// Send this.
    Send(Arc<str>),
    /// Wait until then, or for something to happen.
    Wait(Option<Instant>),
}

impl Core {
    /// The next message for the peer's runner; `welcome` says whether it takes any.
    pub(crate) async fn next_message(self: &Arc<Self>, peer: &Arc<Peer>, welcome: bool) -> Step {
        let Some(crew) = self.crew(&peer.crew) else { return Step::Wait(None) };
        loop {
            let (next, dead, policy) = {
                let mut state = crew.state();
                if state.life(&peer.agent).is_none_or(|life| life.incarnation != peer.incarnation) {
                    return Step::Wait(None);
                }
                let (next, dead) = state.board.next(&peer.agent, welcome, Instant::now());
                (next, dead, state.policy())
            };
            self.bury(&crew, dead);
            let delivery = match next {
                Next::Deliver(delivery) => delivery,
                Next::Wait(until) => return Step::Wait(until),
            };
            let sent = &delivery.sent;
            // What it was let in by may be gone by now: it may have waited since before a restart.
            if policy.channel(&sent.from.member, &peer.member, Kind::Message).is_none() {
                let refused = crew.state().board.give_up(&peer.agent, &sent.message, GivenUp::NoChannel);
                self.bury(&crew, refused);
                continue;
            }
            match self.frame(&delivery).await {
                Ok(frame) => return Step::Send(frame),
                Err(Lost::ForNow) => {
                    // It counts as delivered and refused: it comes again, and its sender's later ones wait for it.
                    let now = Instant::now();
                    let acked =
                        crew.state().board.acked(&party(peer), &delivery.sent.message, Ack::Failed, now);
                    if let Acked::Dead(dead) = acked {
                        self.bury(&crew, vec![dead]);
                    }
                    return Step::Wait(Some(now + BODY_RETRY));
                }
                Err(Lost::ForGood) => {
                    let message = &delivery.sent.message;
                    let dead = crew.state().board.give_up(&peer.agent, message, GivenUp::BodyLost);
                    self.bury(&crew, dead);
                }
            }
        }
    }

    async fn frame(&self, delivery: &Delivery) -> Result<Arc<str>, Lost> {
        let sent = &delivery.sent;
        let parts = body::load(&self.artifacts, &sent.body).await?;
        let content: Content = serde_json::from_value(json!({"parts": parts})).map_err(|_| Lost::ForGood)?;
        let id = |text: &str| Id::try_from(text).map_err(|_| Lost::ForGood);
        let optional = |text: &Option<String>| text.as_deref().map(id).transpose();
        let message_id = id(sent.message.as_str())?;
        let params = Deliver {
            message_id: message_id.clone(),
            from: Sender { member: sent.from.member.to_string(), agent: Some(id(sent.from.agent.as_str())?) },
            text: content.joined_text(),
            parts: content.parts,
            context_id: optional(&sent.context)?,
            task_id: optional(&sent.task)?,
            reply_to: optional(&sent.reply_to)?,
            delivery: delivery.delivery,
        };
        let frame_id = id(&format!("{}.{}", sent.message, delivery.delivery))?;
        let frame = MessageFrame { id: frame_id, message_id, delivery: delivery.delivery, params };
        let mut frame = ToRunner::Message(Box::new(frame));
        let mut encoded = text(&frame);
        if let (true, ToRunner::Message(long)) = (encoded.len() > link::limits::FRAME_BYTES_MAX, &mut frame) {
            // The parts say it all; the joined text beside them is a convenience that did not fit.
            long.params.text.clear();
            encoded = text(&frame);
        }
        // What its sender nested just deep enough for a call may be too deep for a delivery.
        link::check_frame(&encoded).map_err(|_| Lost::ForGood)?;
        Ok(encoded)
    }

    /// A receiver answered a delivery. False: that was no delivery of ours.
    pub(crate) fn message_acked(self: &Arc<Self>, peer: &Arc<Peer>, ack: &MessageAck) -> bool {
        let Some(crew) = self.crew(&peer.crew) else { return false };
        let answer = match &ack.error {
            None => Ack::Taken,
            Some(error) if error.kind == Some(ErrorType::MethodNotFound) => Ack::Unhandled,
            Some(_) => Ack::Failed,
        };
        let message = MessageId::from(ack.message_id.as_str());
        let acked = {
            let mut state = crew.state();
            let acked = state.board.acked(&party(peer), &message, answer, Instant::now());
            state.wake(&peer.agent);
            acked
        };
        match acked {
            Acked::Settled { first: true } => {
                let (core, peer) = (self.clone(), peer.clone());
                self.tracker.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(core.options.limits.acks_window_ms)).await;
                    core.record_acks(&crew, &peer).await;
                });
            }
            Acked::Dead(dead) => self.bury(&crew, vec![dead]),
            Acked::Settled { first: false } | Acked::Again => {}
            Acked::Unknown => return false,
        }
        true
    }

    /// Records what a receiver has settled since the last time.
    async fn record_acks(&self, crew: &Crew, peer: &Arc<Peer>) {
        let Unrecorded { taken, unhandled, latest } = crew.state().board.take_settled(&peer.agent);
        let count = taken.len() + unhandled.len();
        if count == 0 {
            return;
        }
        let by = party(peer);
        let event = |taken: &[MessageId], unhandled: &[MessageId]| {
            let (crew, by) = (peer.crew.clone(), by.clone());
            Event::from(AckedEvent { crew, by, taken: taken.to_vec(), unhandled: unhandled.to_vec() })
                .encode()
        };
        let events = if count <= ACKS_IN_EVENT_MAX {
            vec![event(&taken, &unhandled)]
        } else {
            let taken = taken.chunks(ACKS_IN_EVENT_MAX).map(|taken| event(taken, &[]));
            let unhandled = unhandled.chunks(ACKS_IN_EVENT_MAX).map(|unhandled| event(&[], unhandled));
            taken.chain(unhandled).collect()
        };
        let origin = latest.unwrap_or_else(|| peer.origin.clone());
        let stream = inbox(&peer.agent, peer.incarnation);
        self.append_surely(journal::by_agent(peer, origin, crew.policy().epoch, stream, events)).await;
        let mut state = crew.state();
        state.board.recorded(&peer.agent, count);
        state.wake(&peer.agent);
    }

    /// Records messages that nobody will get.
    pub(crate) fn bury(self: &Arc<Self>, crew: &Crew, dead: impl IntoIterator<Item = Dead>) {
        let (policy, id) = (crew.policy(), crew.id.clone());
        for Dead { sent, origin, recipient, deliveries, reason } in dead {
            tracing::warn!(message = %sent.message, ?recipient, deliveries, ?reason, "gave up a message");
            let incarnation = match &recipient {
                Recipient::Agent(agent) => crew.state().life(agent).map(|peer| peer.incarnation),
                Recipient::Member(_) => None,
            };
            let stream = match &recipient {
                Recipient::Agent(agent) => inbox(agent, incarnation.unwrap_or_default()),
                Recipient::Member(member) => StreamId::new(EntityKind::Inbox, format!("{id}/{member}")),
            };
            let event = DeadLettered {
                crew: id.clone(),
                message: sent.message.clone(),
                recipient,
                deliveries,
                reason,
            };
            let events = vec![Event::from(event).encode()];
            let request =
                journal::request(&policy.tenant, Principal::system("gateway"), policy.epoch, stream, events);
            let request = journal::following(request, origin);
            let core = self.clone();
            self.tracker.spawn(async move { core.append_surely(request).await });
        }
    }

    /// Appends for as long as it takes: nobody else would.
    async fn append_surely(&self, request: AppendRequest) {
        while let Err(error) = self.journal.append(&request).await {
            tracing::error!(stream = %request.stream, %error, "cannot record what became of messages");
            let lasting = matches!(error, AppendError::Full | AppendError::Unavailable { .. });
            if !lasting {
                return;
            }
        }
    }
}

/// The stream of what an agent received in one of its lives.
fn inbox(agent: &AgentId, incarnation: Incarnation) -> StreamId {
    StreamId::new(EntityKind::Inbox, format!("{agent}/{incarnation}"))
}
