//! `message/send`: allowed, durable, then posted. The messages of one sandbox are appended and posted in the order in
//! which they were sent.

use std::sync::Arc;

use events::domain::DomainEvent;
use events::domain::message::{Body, Denial, Event, MessageId, Recipient, Sent};
use events::{AppendError, AppendRequest, Appended, CommandId, EventStore, Position};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use link::{ErrorType, MessageSend};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::board::NoRoom;
use crate::bucket::Bucket;
use crate::channel::{self, Admitted, Attempt, Refusal};
use crate::core::Core;
use crate::crew::Crew;
use crate::denial::{outbox, party};
use crate::host::{Origin, Peer};
use crate::policy::Kind;
use crate::request::{finish, in_hand};
use crate::sandbox::Sandbox;
use crate::session::command;
use crate::{body, journal, trace};

/// How soon a message may come again for which there was no room.
const NO_ROOM_RETRY_MS: u64 = 500;

/// Largest message, in bytes of JSON.
const PARTS_BYTES_MAX: usize = link::limits::LINE_BYTES_MAX - 4 * 1024;

/// A `message/send` and the id of its call.
pub(crate) type Send = (u64, MessageSend);

/// Starts what sends the messages of one sandbox.
pub(crate) fn start(core: &Arc<Core>, sandbox: &Arc<Sandbox>, peer: &Arc<Peer>) -> mpsc::Sender<Send> {
    let (queue, sends) = mpsc::channel(core.options.limits.calls_in_flight_max);
    let limits = &core.options.limits;
    let rate = Bucket::new(limits.sends_per_second_max.into(), limits.sends_burst.into(), Instant::now());
    let sender = Sender { core: core.clone(), sandbox: sandbox.clone(), peer: peer.clone(), rate };
    sandbox.tracker.spawn(sender.run(sends));
    queue
}

struct Sender {
    core: Arc<Core>,
    sandbox: Arc<Sandbox>,
    peer: Arc<Peer>,
    rate: Bucket,
}

/// A message that may cross, with a place kept at its receivers.
struct Prepared {
    id: u64,
    crew: Arc<Crew>,
    sent: Arc<Sent>,
    recipients: Vec<Recipient>,
    request: AppendRequest,
}

/// Why a message does not go out.
enum Refused {
    /// Said to the sender.
    Error(link::Error),
    /// Recorded first.
    Denied(Refusal, u32),
}

impl From<link::Error> for Refused {
    fn from(error: link::Error) -> Self {
        Self::Error(error)
    }
}

impl Sender {
    /// Sends until the sandbox is closed. What is on its way to the log then is seen through: once durable, a message
    /// is delivered.
    async fn run(mut self, mut sends: mpsc::Receiver<Send>) {
        let mut appends = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                Some((prepared, appended)) = appends.next() => self.posted(prepared, appended).await,
                () = self.sandbox.closed.cancelled() => break,
                Some((id, call)) = sends.recv() => {
                    if let Some(prepared) = self.prepare(id, call).await {
                        let core = self.core.clone();
                        appends.push_back(async move {
                            let appended = core.journal.append(&prepared.request).await;
                            (prepared, appended)
                        });
                    }
                }
            }
        }
        while let Some((prepared, appended)) = appends.next().await {
            self.posted(prepared, appended).await;
        }
    }

    async fn prepare(&mut self, id: u64, call: MessageSend) -> Option<Prepared> {
        match self.admit(id, &call).await {
            Ok(prepared) => Some(prepared),
            Err(Refused::Error(error)) => {
                finish(&self.core, &self.sandbox, id, Err(error));
                None
            }
            Err(Refused::Denied(refusal, depth)) => {
                // Recorded beside the messages that follow: they need not wait for it.
                let (core, sandbox, peer) = (self.core.clone(), self.sandbox.clone(), self.peer.clone());
                self.sandbox.tracker.spawn(async move {
                    let attempt =
                        Attempt { kind: Kind::Message, to: &call.to, task: call.task_id.as_ref(), depth };
                    let is_spent = refusal.reason == Denial::Budget;
                    let error = channel::deny(&core, &sandbox, &peer, &attempt, refusal).await;
                    if is_spent {
                        report_spent(&core, &peer).await;
                    }
                    finish(&core, &sandbox, id, Err(error));
                });
                None
            }
        }
    }

    async fn admit(&mut self, id: u64, call: &MessageSend) -> Result<Prepared, Refused> {
        let now = Instant::now();
        if let Err(wait) = self.rate.take(now) {
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
            let error =
                link::Error::new(ErrorType::RateLimited, "one agent sends no more messages than that");
            return Err(error.with("retryAfterMs", ms).into());
        }
        if let Some(task) = &call.task_id {
            in_hand(&self.sandbox, task)?;
        }
        self.core.may_refer(&self.peer.crew, &call.content).await?;
        let crew = self.core.known_crew(&self.peer.crew)?;
        let depth = self.depth(&crew, call);
        let attempt = Attempt { kind: Kind::Message, to: &call.to, task: call.task_id.as_ref(), depth };
        let denied = |refusal| Refused::Denied(refusal, depth);
        let admitted = crew.admit(&self.peer, &attempt, now).map_err(denied)?;
        let content = json!(call.content.parts);
        fits(&content)?;
        let limit = self.core.options.limits.inline_bytes_max;
        let body = body::keep(&self.core.artifacts, content, limit).await?;
        let recipients = self.promise(&crew, call, &admitted).map_err(denied)?;
        let recipients = recipients.map_err(|NoRoom { recipient }| no_room(&recipient))?;
        Ok(self.request(id, call, crew, depth, body, recipients))
    }

    /// One deeper than what it is said in: the task named, else the deepest task or message in hand.
    fn depth(&self, crew: &Crew, call: &MessageSend) -> u32 {
        let state = self.sandbox.state();
        let above = match call.task_id.as_deref().and_then(|task| state.hand.get(task)) {
            Some(held) => Some(held.depth),
            None => state.hand.depth().max(crew.state().board.depth(&self.peer.agent)),
        };
        above.map_or(0, |depth| depth.saturating_add(1))
    }

    fn promise(
        &self,
        crew: &Crew,
        call: &MessageSend,
        admitted: &Admitted,
    ) -> Result<Result<Vec<Recipient>, NoRoom>, Refusal> {
        let Admitted { member, agent, fan_out } = admitted;
        let mut state = crew.state();
        state.count()?;
        let promised = state.board.promise(member, agent.as_ref(), &call.to, &self.peer.agent);
        match &promised {
            Ok(recipients) if recipients.len() > *fan_out as usize => {
                state.board.abandon(recipients);
                state.uncount();
                let (from, reached) = (&self.peer.member, recipients.len());
                let rule =
                    format!("the channel {from} -> {member} lets a message reach {fan_out}, not {reached}");
                Err(Refusal::new(Denial::FanOut, rule))
            }
            Ok(_) => Ok(promised),
            Err(_) => {
                state.uncount();
                Ok(promised)
            }
        }
    }

    fn request(
        &self,
        id: u64,
        call: &MessageSend,
        crew: Arc<Crew>,
        depth: u32,
        body: Body,
        recipients: Vec<Recipient>,
    ) -> Prepared {
        let peer = &self.peer;
        let task = call.task_id.as_deref();
        let command_id = match &call.key {
            // The same key means the same message, also from a later life of the agent or a later attempt at the task.
            Some(key) => CommandId::derive(&[
                "message",
                peer.crew.as_str(),
                &peer.member,
                task.unwrap_or(peer.agent.as_str()),
                key,
            ]),
            None => command(&self.sandbox, id),
        };
        let agents = recipients.iter().filter_map(|recipient| match recipient {
            Recipient::Agent(agent) => Some(agent.clone()),
            Recipient::Member(_) => None,
        });
        let waits_for = recipients.iter().find_map(|recipient| match recipient {
            Recipient::Member(member) => Some(member.clone()),
            Recipient::Agent(_) => None,
        });
        let sent = Sent {
            message: MessageId::of(command_id),
            crew: peer.crew.clone(),
            from: party(peer),
            to: call.to.to_string(),
            recipients: agents.collect(),
            waits_for,
            depth,
            body,
            context: call.context_id.as_ref().map(ToString::to_string),
            task: task.map(str::to_owned),
            in_hand: task.map_or_else(|| self.sandbox.state().hand.tasks(), |_| Vec::new()),
            reply_to: call.reply_to.as_ref().map(ToString::to_string),
        };
        let event = Event::from(sent.clone()).encode();
        let origin = self.sandbox.origin(peer, task);
        let mut request = journal::by_agent(peer, origin, crew.policy().epoch, outbox(peer), vec![event]);
        request.command_id = command_id;
        request.command_digest = Some(journal::digest(&(
            &call.to,
            &call.content.parts,
            &call.task_id,
            &call.context_id,
            &call.reply_to,
        )));
        let parent = self.sandbox.state().hand.traceparent(task).map(str::to_owned);
        request.meta.traceparent = Some(trace::span(parent.as_deref()));
        Prepared { id, crew, sent: Arc::new(sent), recipients, request }
    }

    /// The log has answered.
    async fn posted(&self, prepared: Prepared, appended: Result<Appended, AppendError>) {
        let Prepared { id, crew, sent, recipients, request } = prepared;
        let outcome = match appended {
            Ok(Appended { repeated: true, position, .. }) => {
                crew.state().take_back(&recipients);
                first_outcome(&*self.core.journal.store, position).await
            }
            Ok(Appended { position, version, .. }) => {
                let correlation = request.meta.correlation_id;
                let origin = Origin { event: journal::named(&request.stream, version), correlation };
                let dead = {
                    let mut state = crew.state();
                    let (busy, dead) = state.board.post(&sent, position, &origin, &recipients);
                    busy.iter().for_each(|agent| state.wake(agent));
                    dead
                };
                self.core.bury(&crew, dead);
                if let Ok(host) = self.core.host() {
                    host.posted(&crew.id, &recipients);
                }
                Ok(answer(&sent, position))
            }
            Err(error) => {
                crew.state().take_back(&recipients);
                Err(journal::refusal(&error))
            }
        };
        finish(&self.core, &self.sandbox, id, outcome);
    }
}

/// The crew's messages are used up: whoever owns it decides what follows.
async fn report_spent(core: &Core, peer: &Peer) {
    let (Ok(host), Ok(crew)) = (core.host(), core.known_crew(&peer.crew)) else { return };
    let sent = crew.state().sent();
    host.messages_spent(peer, sent).await;
}

/// Whether the parts fit a delivery, with its envelope, into a frame and a handler's line.
fn fits(parts: &Value) -> Result<(), link::Error> {
    let bytes = parts.to_string().len();
    if bytes <= PARTS_BYTES_MAX {
        return Ok(());
    }
    let message = format_args!(
        "a message of {bytes} bytes is too large: {PARTS_BYTES_MAX} fit, put more into an artifact"
    );
    Err(link::Error::new(ErrorType::TooLarge, message))
}

fn answer(sent: &Sent, position: Position) -> Value {
    let recipients = sent.recipients.len() + usize::from(sent.waits_for.is_some());
    json!({"messageId": sent.message, "position": position, "recipients": recipients})
}

/// What was answered when the message was sent for the first time: its event says so.
async fn first_outcome(store: &dyn EventStore, position: Position) -> Result<Value, link::Error> {
    let unavailable = || link::Error::new(ErrorType::Unavailable, "the log cannot be read now");
    let before = Position(position.0.saturating_sub(1));
    let found = store.read(before, 1).await.map_err(|_| unavailable())?;
    let sent = found.first().map(|event| Event::decode(&event.kind, event.schema, &event.payload));
    match sent {
        Some(Ok(Event::Sent(sent))) => Ok(answer(&sent, position)),
        _ => Err(link::Error::new(ErrorType::KeyConflict, "the key was used for something else before")),
    }
}

fn no_room(recipient: &Recipient) -> link::Error {
    let who = match recipient {
        Recipient::Agent(agent) => agent.as_str(),
        Recipient::Member(member) => member,
    };
    link::Error::new(ErrorType::RateLimited, format_args!("too many messages wait for `{who}` already"))
        .with("retryAfterMs", NO_ROOM_RETRY_MS)
}
