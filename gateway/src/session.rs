//! One link: from `hello` to its end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use identity::Verb;
use link::{CloseCode, ErrorType, Hello, ToGateway, ToRunner, Welcome};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use crate::auth;
use crate::bootstrap;
use crate::core::Core;
use crate::denial;
use crate::grant::bundle;
use crate::sandbox::{Link, Sandbox};

mod incoming;
mod outgoing;

pub(crate) use incoming::command;
pub(crate) use outgoing::text;

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Writer = SplitSink<Socket, Message>;
type Reader = SplitStream<Socket>;

/// The link's version.
const VERSION: u32 = 1;
/// How long a peer may take to answer a close.
const CLOSE: Duration = Duration::from_secs(1);
/// "Try again later", of the IANA registry of close codes.
const TRY_AGAIN: u16 = 1013;

/// Why a link ends before it began.
struct Refused {
    code: u16,
    reason: String,
}

impl Refused {
    fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code: code.code(), reason: reason.into() }
    }
}

/// Serves a link until it ends, then tells the platform.
pub(crate) async fn run(core: Arc<Core>, sandbox: Arc<Sandbox>, socket: Socket, token: Option<String>) {
    let (mut writer, mut reader) = socket.split();
    let link = Arc::new(Link::new(format!("ln_{}", uuid::Uuid::new_v4().simple())));
    match open(&core, &sandbox, &link, &mut writer, &mut reader, token.as_deref()).await {
        Ok(()) => {
            let (notes, queue) = mpsc::channel(core.options.limits.notes_queued_max);
            tokio::join!(
                incoming::read(&core, &sandbox, &link, &mut reader, notes),
                outgoing::pump(&core, &sandbox, &link, &mut writer),
                auth::renew(&core, &sandbox, &link),
                incoming::deliver_notes(&core, &sandbox, queue),
            );
            end(&core, &sandbox, &link);
            if let (Some(code), reason) = link.reason() {
                close(&mut writer, code.code(), reason).await;
                drain(&mut reader).await;
            }
        }
        Err(refused) => {
            sandbox.release(&link);
            tracing::info!(sandbox = %sandbox.id, code = refused.code, reason = refused.reason, "refused a link");
            close(&mut writer, refused.code, &refused.reason).await;
            drain(&mut reader).await;
        }
    }
}

/// Everything up to and including `welcome`.
async fn open(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    link: &Arc<Link>,
    writer: &mut Writer,
    reader: &mut Reader,
    token: Option<&str>,
) -> Result<(), Refused> {
    let late = Duration::from_millis(link::limits::HELLO_MS_MAX);
    let hello = timeout(late, first(reader))
        .await
        .map_err(|_| Refused::new(CloseCode::HelloLate, "no hello within 5 s"))??;
    if !hello.v.contains(&VERSION) {
        return Err(Refused::new(CloseCode::Version, "this gateway speaks version 1"));
    }
    let assigned = authenticate(core, sandbox, token).await?;
    if sandbox.claim(link, &core.options.limits).await.is_none() {
        denial::second_link(core, sandbox).await;
        return Err(Refused::new(CloseCode::SecondLink, "the sandbox has a link already"));
    }
    let host = core.host().map_err(|error| Refused { code: TRY_AGAIN, reason: error.message })?;
    let mut linked = match host.linked(&sandbox.id, &hello, assigned).await {
        Ok(linked) => linked,
        Err(error) if error.kind == Some(ErrorType::Unavailable) => {
            return Err(Refused { code: TRY_AGAIN, reason: error.message });
        }
        Err(error) => return Err(Refused::new(CloseCode::IncarnationEnded, error.message)),
    };
    if let (Some(assign), Some(peer)) = (&mut linked.assign, sandbox.peer()) {
        let given = core.give_source(sandbox, assign).await;
        given.map_err(|error| Refused { code: TRY_AGAIN, reason: error.message })?;
        let issued = auth::issue(core, sandbox, peer);
        (assign.token, _) = issued.map_err(|error| Refused { code: TRY_AGAIN, reason: error.to_string() })?;
    }
    link.beats_every(linked.heartbeat_ms);
    let welcome = Welcome {
        v: VERSION,
        link_id: link.id.as_str().try_into().expect("35 visible characters are an id"),
        heartbeat_ms: linked.heartbeat_ms,
        frame_bytes: link::limits::FRAME_BYTES_MAX,
        standby: !assigned,
        drop: linked.drop,
        prestart: linked.prestart,
    };
    {
        let mut state = sandbox.state();
        state.token_held |= assigned;
        state.assigned = assigned;
        state.ahead = welcome.prestart.as_ref().and_then(|prestart| bundle(&prestart.source));
        state.hand.adopt(linked.held);
        if let Some(assign) = linked.assign {
            state.outlet.assign(text(&ToRunner::Assign(assign)));
        }
    }
    let lost = |_| Refused::new(CloseCode::Normal, "the link was lost before the welcome");
    writer.send(Message::text(&*text(&ToRunner::Welcome(welcome)))).await.map_err(lost)?;
    core.set_linked(sandbox, true);
    Ok(())
}

/// The first frame, which must be `hello`.
async fn first(reader: &mut Reader) -> Result<Hello, Refused> {
    loop {
        let message = match reader.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                let code = close_code(&error).unwrap_or(CloseCode::Normal);
                return Err(Refused::new(code, error.to_string()));
            }
            None => return Err(Refused::new(CloseCode::Normal, "the link was lost before hello")),
        };
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return Err(Refused::new(CloseCode::Normal, "closed before hello")),
            Message::Binary(_) | Message::Frame(_) => {
                return Err(Refused::new(CloseCode::NotText, "frames are JSON text"));
            }
        };
        return match link::parse_to_gateway(text.as_str()) {
            Ok(ToGateway::Hello(hello)) => Ok(hello),
            Ok(_) => Err(Refused::new(CloseCode::OutOfOrder, "the first frame is hello")),
            Err(error) if error.kind == Some(ErrorType::ParseError) => {
                Err(Refused::new(CloseCode::NotText, error.message))
            }
            Err(error) => Err(Refused::new(CloseCode::OutOfOrder, error.message)),
        };
    }
}

/// Whether the runner shows the token of its agent. Before it has one, none is needed of who came by the socket alone; who
/// came over a network shows the one that was left for it. What is wrong with one is for the log, and not for whoever
/// shows it.
async fn authenticate(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    token: Option<&str>,
) -> Result<bool, Refused> {
    let needs_bootstrap = core.options.bootstrap;
    let judged = match token {
        Some(token) => match auth::check(core, sandbox, token, Verb::OpenLink) {
            Ok(()) => Ok(true),
            Err(_) if needs_bootstrap && bootstrap::admits(core, sandbox, token).await => Ok(false),
            Err(fault) => Err(fault.to_string()),
        },
        None if needs_bootstrap || sandbox.state().token_held => Err("none was shown".to_owned()),
        None => Ok(false),
    };
    if sandbox.state().is_spoilt {
        let reason = "a token of the sandbox was shown by somebody else";
        return Err(Refused::new(CloseCode::IncarnationEnded, reason));
    }
    match judged {
        Ok(assigned) => Ok(assigned),
        Err(fault) => {
            denial::foreign_token(core, sandbox, fault).await;
            Err(Refused::new(CloseCode::Token, "the token is not one of the sandbox's agent"))
        }
    }
}

/// The link is over.
fn end(core: &Core, sandbox: &Arc<Sandbox>, link: &Arc<Link>) {
    let (code, reason) = link.reason();
    tracing::info!(sandbox = %sandbox.id, link = link.id, code = code.map(CloseCode::code), reason, "link ended");
    core.set_linked(sandbox, false);
    sandbox.release(link);
    if let Ok(host) = core.host() {
        host.link_lost(&sandbox.id, reason);
    }
}

/// The code with which a socket's fault is answered.
fn close_code(error: &SocketError) -> Option<CloseCode> {
    match error {
        SocketError::Capacity(CapacityError::MessageTooLong { .. }) => Some(CloseCode::TooLarge),
        SocketError::Utf8(_) => Some(CloseCode::NotText),
        _ => None,
    }
}

async fn close(writer: &mut Writer, code: u16, reason: &str) {
    // A close frame's reason has 123 bytes at most (RFC 6455 §5.5).
    let mut short: String = reason.chars().take(60).collect();
    while short.len() > 123 {
        short.pop();
    }
    let frame = CloseFrame { code: code.into(), reason: short.into() };
    let _ = timeout(CLOSE, writer.send(Message::Close(Some(frame)))).await;
}

/// Reads on for a moment: a socket that is dropped unread may take the close frame with it.
async fn drain(reader: &mut Reader) {
    let _ = timeout(CLOSE, async { while let Some(Ok(_)) = reader.next().await {} }).await;
}
