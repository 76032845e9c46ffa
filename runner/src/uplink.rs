//! The runner's end of the link: a WebSocket to the gateway, made again whenever it is lost.

use std::{path::PathBuf, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _, stream::SplitSink};
use link::{
    CloseCode, Error, Secret, ToRunner,
    limits::{FRAME_BYTES_MAX, RECONNECT_MS_MAX, RECONNECT_MS_MIN},
    parse_to_runner,
};
use rand::Rng as _;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        http::{HeaderValue, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode as WsCode},
    },
};

use crate::{
    event::{Event, Platform},
    gateway::{Gateway, Stream},
};

/// Frames that may wait for the socket; the core keeps the rest, where it can still drop and replace them.
const FRAMES_WAITING_MAX: usize = 16;
/// How long the peer may take to answer the closing of a link.
const GOODBYE_MS_MAX: u64 = 500;
const SUBPROTOCOL: &str = "hypercode.link.v1";

/// What happens on the link.
#[derive(Debug)]
pub(crate) enum Uplink {
    /// There is a link; what is sent here goes over it. Dropping the sender closes it.
    Up(mpsc::Sender<Outgoing>),
    /// A frame came, or something that is none.
    Frame(Result<ToRunner, Error>),
    /// The link is lost, or was closed for this reason.
    Down(Option<u16>),
    /// There is no gateway, and the sandbox's files are gone: nobody will ever come back for it.
    Abandoned,
}

/// What the core sends.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A frame.
    Text(String),
    /// The end: done.
    Close,
}

/// Keeps a link up for ever, or until it is dropped.
pub(crate) async fn run(
    gateway: Gateway,
    work: PathBuf,
    token: watch::Receiver<Option<Secret>>,
    platform: Platform,
) {
    let (mut pause_ms, mut used) = (RECONNECT_MS_MIN, None);
    loop {
        let assigned = token.borrow().clone();
        match connect(&gateway, assigned.as_ref(), &mut used).await {
            Ok(stream) => {
                if serve(stream, &platform).await {
                    pause_ms = RECONNECT_MS_MIN;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the gateway cannot be reached");
                if matches!(work.try_exists(), Ok(false)) {
                    platform.tell(Event::Uplink(Uplink::Abandoned)).await;
                }
            }
        }
        // Half of the pause is random, so that all runners of a node do not come back at the same moment.
        let jittered = rand::rng().random_range(pause_ms / 2..=pause_ms);
        sleep(Duration::from_millis(jittered)).await;
        pause_ms = (pause_ms * 2).min(RECONNECT_MS_MAX);
    }
}

type Socket = WebSocketStream<Stream>;

/// Makes a link with the token of the assignment; before there is one with another for each link, of which the last is
/// `used`.
async fn connect(
    gateway: &Gateway,
    assigned: Option<&Secret>,
    used: &mut Option<Secret>,
) -> Result<Socket, tungstenite::Error> {
    let first = match assigned {
        Some(_) => None,
        None => gateway.bootstrap(used.as_ref()).map_err(tungstenite::Error::Io)?,
    };
    let mut request = "ws://gateway/link/v1".into_client_request()?;
    let headers = request.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Some(token) = assigned.or(first.as_ref()) {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    let stream = gateway.connect().await.map_err(tungstenite::Error::Io)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    if first.is_some() {
        *used = first;
    }
    Ok(socket)
}

/// Passes frames until the link ends. Whether it got as far as `welcome`.
async fn serve(stream: Socket, platform: &Platform) -> bool {
    let (sink, mut incoming) = stream.split();
    let (sender, outgoing) = mpsc::channel(FRAMES_WAITING_MAX);
    platform.tell(Event::Uplink(Uplink::Up(sender))).await;
    let mut writing = tokio::spawn(write(sink, outgoing));
    let (mut welcomed, mut code, mut written) = (false, None, false);
    loop {
        let message = tokio::select! {
            message = incoming.next() => message,
            // The core gave the link up; the peer's goodbye is still to come.
            _ = &mut writing, if !written => {
                written = true;
                continue;
            }
            () = sleep(Duration::from_millis(GOODBYE_MS_MAX)), if written => break,
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                let frame = parse_to_runner(&text);
                welcomed |= matches!(frame, Ok(ToRunner::Welcome(_)));
                platform.tell(Event::Uplink(Uplink::Frame(frame))).await;
            }
            Some(Ok(Message::Close(reason))) => code = reason.map(|reason| reason.code.into()),
            Some(Ok(Message::Binary(_))) => {
                code = Some(CloseCode::NotText.code());
                break;
            }
            // Pings are answered by the library.
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    writing.abort();
    platform.tell(Event::Uplink(Uplink::Down(code))).await;
    welcomed
}

async fn write(mut sink: SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<Outgoing>) {
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        while let Some(frame) = next {
            let fed = match frame {
                Outgoing::Text(text) => sink.feed(Message::text(text)).await,
                Outgoing::Close => {
                    let close = CloseFrame { code: WsCode::Normal, reason: "".into() };
                    let _ = sink.send(Message::Close(Some(close))).await;
                    return;
                }
            };
            if fed.is_err() {
                return;
            }
            next = outgoing.try_recv().ok();
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}
