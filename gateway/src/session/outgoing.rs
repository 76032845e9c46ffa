//! The writing half of a link.

use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use link::{CloseCode, ToRunner};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::Writer;
use crate::core::Core;
use crate::delivery::Step;
use crate::outlet::Out;
use crate::sandbox::{Link, Sandbox};

/// A frame as text.
pub(crate) fn text(frame: &ToRunner) -> Arc<str> {
    serde_json::to_string(frame).expect("frames are plain data with string keys").into()
}

/// What to do next.
enum Next {
    Send(Arc<str>),
    Wait(Option<Instant>),
}

/// Sends what waits, in order, until the link ends.
pub(super) async fn pump(core: &Arc<Core>, sandbox: &Arc<Sandbox>, link: &Link, writer: &mut Writer) {
    let patience = Duration::from_millis(core.options.limits.write_ms);
    let writing = async {
        loop {
            let sent = match next(core, sandbox).await {
                Next::Send(frame) => timeout(patience, writer.feed(Message::text(&*frame))).await,
                Next::Wait(until) => {
                    let flushed = timeout(patience, writer.flush()).await;
                    if matches!(flushed, Ok(Ok(()))) {
                        wait(sandbox, until).await;
                    }
                    flushed
                }
            };
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return link.end(None, "the runner is gone"),
                Err(_) => return link.end(None, "the runner does not read"),
            }
        }
    };
    tokio::select! {
        biased;
        () = link.cut.cancelled() => {}
        () = sandbox.closed.cancelled() => link.end(Some(CloseCode::IncarnationEnded), "the incarnation has ended"),
        () = writing => {}
    }
}

/// Frames first, then tasks, then messages.
async fn next(core: &Arc<Core>, sandbox: &Sandbox) -> Next {
    let welcome = {
        let mut state = sandbox.state();
        match state.outlet.next() {
            Some(Out::Assign(frame)) => {
                state.assigned = true;
                return Next::Send(frame);
            }
            Some(Out::Frame(frame)) => return Next::Send(frame),
            Some(Out::Task(task, frame)) => {
                state.hand.take(task);
                return Next::Send(frame);
            }
            None => state.outlet.takes_message(),
        }
    };
    let Some(peer) = sandbox.peer() else { return Next::Wait(None) };
    match core.next_message(peer, welcome).await {
        Step::Send(frame) => {
            sandbox.state().outlet.message_sent();
            Next::Send(frame)
        }
        Step::Wait(until) => Next::Wait(until),
    }
}

/// Waits until something may have happened.
async fn wait(sandbox: &Sandbox, until: Option<Instant>) {
    let woken = sandbox.wake.notified();
    match until {
        Some(until) => {
            let _ = tokio::time::timeout_at(until, woken).await;
        }
        None => woken.await,
    }
}
