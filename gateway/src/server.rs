//! The HTTP/1.1 server on one sandbox's socket: the link and the artifact door, nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use link::ErrorType;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::core::Core;
use crate::denial;
use crate::door;
use crate::host::Process;
use crate::sandbox::Sandbox;
use crate::session;

/// The link's subprotocol.
pub(crate) const SUBPROTOCOL: &str = "hypercode.link.v1";

/// Most header lines of a request.
const HEADERS_MAX: usize = 64;
/// Buffers of one WebSocket, in bytes: small, for there is one for every agent.
const SOCKET_BUFFER_BYTES: usize = 8 * 1024;

/// The body of an answer.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// Serves the socket until the sandbox is closed or the platform shuts down.
pub(crate) async fn serve(core: Arc<Core>, sandbox: Arc<Sandbox>, listener: UnixListener) {
    let connections = Arc::new(Semaphore::new(core.options.limits.connections_max));
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (permit.expect("nobody closes it"), listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = sandbox.closed.cancelled() => break,
            () = core.stopped.cancelled() => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(sandbox = %sandbox.id, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (core, served) = (core.clone(), sandbox.clone());
        sandbox.tracker.spawn(async move {
            if is_admitted(&core, &served, &stream).await {
                connection(core, served, stream).await;
            }
            drop(permit);
        });
    }
}

/// Whether the peer is the sandbox: known by the socket it came in on, and by the kernel's word.
async fn is_admitted(core: &Arc<Core>, sandbox: &Arc<Sandbox>, stream: &UnixStream) -> bool {
    let peer = stream.peer_cred().ok();
    let process = peer.and_then(|peer| {
        Some(Process { pid: peer.pid().and_then(|pid| u32::try_from(pid).ok())?, uid: peer.uid() })
    });
    let (Some(process), Ok(host)) = (process, core.host()) else { return false };
    let judged = sandbox.closed.run_until_cancelled(host.admits(&sandbox.id, process)).await.flatten();
    if judged == Some(false) {
        tracing::error!(sandbox = %sandbox.id, ?process, "turned away a peer that is not the sandbox");
        denial::foreign_peer(core, sandbox, process).await;
    }
    judged == Some(true)
}

async fn connection(core: Arc<Core>, sandbox: Arc<Sandbox>, stream: UnixStream) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(core.options.limits.http_head_ms))
        .max_headers(HEADERS_MAX);
    let closed = sandbox.closed.clone();
    let service = service_fn(move |request| {
        let (core, sandbox) = (core.clone(), sandbox.clone());
        async move { Ok::<_, Infallible>(answer(core, sandbox, request).await) }
    });
    let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Some(Err(error)) = closed.run_until_cancelled(served).await {
        tracing::debug!(%error, "a connection ended badly");
    }
}

async fn answer(core: Arc<Core>, sandbox: Arc<Sandbox>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/link/v1") => upgrade(core, sandbox, request).unwrap_or_else(|error| problem(&error)),
        (_, path)
            if path.strip_prefix(door::PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) =>
        {
            door::serve(&core, &sandbox, &path[door::PATH.len()..], request).await
        }
        (_, path) => {
            let shown: String = path.chars().take(100).collect();
            problem(&link::Error::new(ErrorType::NotOffered, format_args!("there is no door `{shown}`")))
        }
    }
}

/// The bearer token of a request.
pub(crate) fn bearer<B>(request: &Request<B>) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn upgrade(
    core: Arc<Core>,
    sandbox: Arc<Sandbox>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, link::Error> {
    let invalid = |message: &str| link::Error::new(ErrorType::InvalidRequest, message);
    if request.headers().contains_key(header::ORIGIN) {
        return Err(invalid("the link is not for browsers"));
    }
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if !offered.any(|protocol| protocol.trim() == SUBPROTOCOL) {
        return Err(invalid("the link speaks the subprotocol `hypercode.link.v1`"));
    }
    let mut response = create_response_with_body(&request, || full(Bytes::new()))
        .map_err(|error| invalid(&format!("not a WebSocket handshake: {error}")))?;
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let token = bearer(&request).map(str::to_owned);
    let upgraded = hyper::upgrade::on(&mut request);
    let tracker = sandbox.tracker.clone();
    tracker.spawn(async move {
        let Ok(stream) = upgraded.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(config()));
        session::run(core, sandbox, socket.await, token).await;
    });
    Ok(response)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(SOCKET_BUFFER_BYTES)
        .write_buffer_size(SOCKET_BUFFER_BYTES)
        .max_write_buffer_size(4 * link::limits::FRAME_BYTES_MAX)
        .max_message_size(Some(link::limits::FRAME_BYTES_MAX))
        .max_frame_size(Some(link::limits::FRAME_BYTES_MAX))
}

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// An error as problem details (RFC 9457).
pub(crate) fn problem(error: &link::Error) -> Response<Body> {
    let mut response = Response::new(full(error.to_problem().to_string()));
    *response.status_mut() =
        StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}
