//! The reading half of a link.

use std::sync::Arc;

use events::CommandId;
use futures_util::StreamExt;
use link::{
    CloseCode, Credit, ErrorFrame, ErrorType, Heartbeat, MessageAck, Note, NoteFrame, TaskRef,
    TaskResultFrame, ToGateway, ToRunner,
};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::{Reader, close_code, text};
use crate::bucket::Bucket;
use crate::calls::Begin;
use crate::core::Core;
use crate::denial::{self, What};
use crate::host::{Activity, Host, Peer};
use crate::outlet::Keep;
use crate::request;
use crate::sandbox::{Link, Sandbox};

/// Reads frames until the link ends.
pub(super) async fn read(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    link: &Arc<Link>,
    reader: &mut Reader,
    notes: mpsc::Sender<Note>,
) {
    let limits = &core.options.limits;
    let now = Instant::now();
    let rate = |per_second: u32| Bucket::new(per_second.into(), per_second.into(), now);
    let mut incoming = Incoming {
        core,
        sandbox,
        link,
        notes,
        note_rate: rate(limits.notes_per_second_max),
        idle_rate: rate(limits.idle_frames_per_second_max),
    };
    loop {
        let message = tokio::select! {
            biased;
            () = link.cut.cancelled() => break,
            // Nothing of an incarnation that has ended is heard any more (law ID-1).
            () = sandbox.closed.cancelled() => {
                link.end(Some(CloseCode::IncarnationEnded), "the incarnation has ended");
                break;
            }
            message = reader.next() => message,
        };
        link.heard();
        match message {
            Some(Ok(Message::Text(text))) => incoming.frame(text.as_str()).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => incoming.idle(),
            Some(Ok(Message::Close(_))) => link.end(None, "the runner closed the link"),
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                link.end(Some(CloseCode::NotText), "frames are JSON text");
            }
            Some(Err(error)) => link.end(close_code(&error), error.to_string()),
            None => link.end(None, "the link was lost"),
        }
    }
}

/// Hands notes to the platform, in order, without holding up the link.
pub(super) async fn deliver_notes(core: &Core, sandbox: &Sandbox, mut queue: mpsc::Receiver<Note>) {
    while let Some(note) = queue.recv().await {
        if let (Some(peer), Ok(host)) = (sandbox.peer(), core.host()) {
            host.note(peer, note).await;
        }
    }
}

struct Incoming<'a> {
    core: &'a Arc<Core>,
    sandbox: &'a Arc<Sandbox>,
    link: &'a Arc<Link>,
    notes: mpsc::Sender<Note>,
    note_rate: Bucket,
    /// Frames that are refused, thrown away or change nothing.
    idle_rate: Bucket,
}

/// The part of a frame that tells which it was, whatever else is wrong with it.
#[derive(Deserialize)]
struct Numbered {
    id: Option<u64>,
}

impl Incoming<'_> {
    /// A frame did nothing useful. Too many of them end the link.
    fn idle(&mut self) {
        if !self.idle_rate.admits(Instant::now()) {
            self.link.end(Some(CloseCode::Rate), "too many frames that are refused or mean nothing");
        }
    }

    async fn frame(&mut self, text: &str) {
        let frame = match link::parse_to_gateway(text) {
            Ok(frame) => frame,
            Err(error) if error.kind == Some(ErrorType::ParseError) => {
                return self.link.end(Some(CloseCode::NotText), error.message);
            }
            Err(error) => return self.refuse(text, error),
        };
        let Ok(host) = self.core.host() else {
            return self.link.end(None, "the platform is shutting down");
        };
        if matches!(frame, ToGateway::Hello(_)) {
            return self.link.end(Some(CloseCode::OutOfOrder), "hello comes first and once");
        }
        let peer = match self.sandbox.peer() {
            Some(peer) if self.sandbox.state().assigned => peer.clone(),
            _ if frame.legal_before_assign() => return self.unassigned(frame, &*host).await,
            _ => return self.link.end(Some(CloseCode::OutOfOrder), "the sandbox has no agent yet"),
        };
        self.assigned(frame, &*host, &peer).await;
    }

    /// A frame that needs no agent.
    async fn unassigned(&mut self, frame: ToGateway, host: &dyn Host) {
        let id = &self.sandbox.id;
        match frame {
            ToGateway::Heartbeat(beat) => self.heartbeat(host, &beat),
            ToGateway::Exited(exited) => {
                self.sandbox.state().hand.clear();
                host.exited(id, exited).await;
            }
            ToGateway::Ack { re } => {
                let drained = self.sandbox.state().draining.as_ref() == Some(&re);
                if drained { host.drained(id).await } else { self.idle() }
            }
            ToGateway::Error(error) => {
                self.idle();
                tracing::warn!(sandbox = %id, kind = error.kind.name(), "the runner refused a frame");
                if let Some(re) = error.re.clone() {
                    host.refused(id, re, error.into_error()).await;
                }
            }
            _ => {}
        }
    }

    async fn assigned(&mut self, frame: ToGateway, host: &dyn Host, peer: &Arc<Peer>) {
        let id = &self.sandbox.id;
        match frame {
            ToGateway::Ready(ready) => {
                self.sandbox.state().token_held = true;
                host.ready(id, ready).await;
            }
            ToGateway::Failed(failed) => host.failed(id, failed).await,
            ToGateway::TaskResult(result) => self.result(host, peer, result),
            ToGateway::MessageAck(ack) => self.message_ack(host, peer, &ack),
            ToGateway::Call(call) => {
                host.activity(id, Activity::Frame);
                if !request::begin(self.core, self.sandbox, peer, call) {
                    self.idle();
                }
            }
            ToGateway::Note(note) => self.note(host, note),
            ToGateway::Credit(credit) => self.credit(credit),
            other => self.unassigned(other, host).await,
        }
    }

    fn heartbeat(&mut self, host: &dyn Host, beat: &Heartbeat) {
        self.idle();
        host.heartbeat(&self.sandbox.id, beat);
    }

    fn credit(&mut self, credit: Credit) {
        self.sandbox.state().outlet.set_credit(credit);
        self.sandbox.wake.notify_one();
    }

    fn note(&mut self, host: &dyn Host, frame: NoteFrame) {
        if !self.note_rate.admits(Instant::now()) {
            return self.idle();
        }
        let note = match Note::parse(&frame.method, frame.params) {
            Ok(note) => note,
            Err(error) => {
                self.sandbox.push(text(&ToRunner::Error(ErrorFrame::new(None, error))), Keep::No);
                return self.idle();
            }
        };
        let known = note.task_id().is_none_or(|task| self.sandbox.state().hand.get(task).is_some());
        if !known || self.notes.try_send(note).is_err() {
            return self.idle();
        }
        host.activity(&self.sandbox.id, Activity::Frame);
    }

    fn message_ack(&mut self, host: &dyn Host, peer: &Arc<Peer>, ack: &MessageAck) {
        host.activity(&self.sandbox.id, Activity::Frame);
        if !self.core.message_acked(peer, ack) {
            self.idle();
        }
    }

    /// The end of an attempt: answered once the platform has it, for good.
    fn result(&mut self, host: &dyn Host, peer: &Arc<Peer>, result: TaskResultFrame) {
        host.activity(&self.sandbox.id, Activity::Frame);
        let begun = {
            let mut state = self.sandbox.state();
            let ended = TaskRef { task_id: result.task_id.clone(), attempt: result.attempt };
            state.outlet.end(ended, result.fence);
            state.results.begin(result.id)
        };
        match begun {
            Begin::New => {
                let (core, sandbox, peer) = (self.core.clone(), self.sandbox.clone(), peer.clone());
                self.sandbox.tracker.spawn(async move {
                    let closed = sandbox.closed.clone();
                    closed.run_until_cancelled(request::result(&core, &sandbox, &peer, result)).await;
                });
            }
            Begin::Answered(answer) => self.sandbox.push(answer, Keep::No),
            Begin::Pending | Begin::TooMany => self.idle(),
        }
    }

    /// A frame that was understood well enough to be refused.
    fn refuse(&mut self, frame: &str, error: link::Error) {
        self.idle();
        let re = serde_json::from_str(frame).ok().and_then(|numbered: Numbered| numbered.id);
        let (core, sandbox, peer) = (self.core.clone(), self.sandbox.clone(), self.sandbox.peer().cloned());
        match peer {
            Some(peer) if error.kind == Some(ErrorType::IdentityField) => {
                self.sandbox.tracker.spawn(async move {
                    let error = spoofed(&core, &sandbox, &peer, error).await;
                    sandbox.push(text(&ToRunner::Error(ErrorFrame::new(re, error))), Keep::No);
                });
            }
            _ => self.sandbox.push(text(&ToRunner::Error(ErrorFrame::new(re, error))), Keep::No),
        }
    }
}

/// A frame named its own sender: recorded, for it may be an attack.
async fn spoofed(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Arc<Peer>,
    error: link::Error,
) -> link::Error {
    let field = error.data.get("field").and_then(|field| field.as_str()).unwrap_or_default();
    tracing::warn!(agent = %peer.agent, field, "a frame named its own identity");
    let times = sandbox.state().spoofed(Instant::now());
    if let (true, Ok(host)) = (times == core.options.limits.spoofs_per_minute_max, core.host()) {
        host.spoofed(peer, times).await;
    }
    let event = events::domain::message::FrameRefused {
        crew: peer.crew.clone(),
        from: denial::party(peer),
        sandbox: sandbox.id.clone(),
        field: field.chars().take(link::limits::ID_CHARS_MAX).collect(),
        count: 1,
    };
    let make = move |count| events::domain::message::FrameRefused { count, ..event }.into();
    match denial::record(core, sandbox, peer, None, What::IdentityField, make).await {
        Some(position) => error.with("recordedAt", position.0),
        None => error,
    }
}

/// The id of the command that a numbered frame is: the same frame, sent again, is the same command (law ES-5).
pub(crate) fn command(sandbox: &Sandbox, frame: u64) -> CommandId {
    CommandId::derive(&["link", sandbox.id.as_str(), &frame.to_string()])
}
