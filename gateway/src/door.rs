//! The artifact door: bytes in and out beside the link, by their SHA-256.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use events::artifact::ARTIFACT_BYTES_MAX;
use events::domain::artifact::Reason;
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use identity::Verb;
use link::{ArtifactStored, ArtifactUrl, ErrorType};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::StreamReader;

use crate::auth;
use crate::body::refusal;
use crate::core::Core;
use crate::denial;
use crate::grant::unknown;
use crate::host::{Activity, Peer};
use crate::sandbox::Sandbox;
use crate::server::{Body, bearer, full, problem};

/// Where the door is.
pub(crate) const PATH: &str = "/door/artifact";

/// Bytes of an artifact that are sent at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How soon a request that was one too many may come again.
const TOO_MANY_RETRY_MS: u64 = 100;
/// Longest media type that is recorded, in characters.
const MEDIA_TYPE_CHARS_MAX: usize = 100;

/// Serves a request to the door; `path` is what follows [`PATH`].
pub(crate) async fn serve(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    path: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let ahead = path.strip_prefix('/').and_then(|name| ahead(sandbox, name, &request));
    let served = match judged(core, sandbox, &request) {
        Ok(peer) => pass(core, sandbox, &peer, path, request).await,
        Err(fault) => match ahead {
            Some(url) => get_ahead(core, sandbox, &url).await,
            None => {
                denial::foreign_token(core, sandbox, fault).await;
                Err(stranger())
            }
        },
    };
    served.unwrap_or_else(|error| problem(&error))
}

async fn pass(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Peer,
    path: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, link::Error> {
    let permit = open(core, sandbox)?;
    match (request.method(), path.strip_prefix('/')) {
        (&Method::POST, None) => put(core, sandbox, peer, request).await,
        (&Method::GET, Some(digest)) => get(core, sandbox, peer, digest, permit).await,
        _ => Err(link::Error::new(ErrorType::NotOffered, "POST an artifact here, or GET one by its digest")),
    }
}

/// Whether the request shows a token of the sandbox's agent that lets it do what is asked; else what is wrong.
fn judged<B>(core: &Core, sandbox: &Sandbox, request: &Request<B>) -> Result<Arc<Peer>, String> {
    let verb = if request.method() == Method::POST { Verb::PutArtifact } else { Verb::GetArtifact };
    let token = bearer(request).ok_or_else(|| "none was shown".to_owned())?;
    auth::check(core, sandbox, token, verb).map_err(|fault| fault.to_string())?;
    Ok(sandbox.peer().cloned().expect("a token was checked against its peer"))
}

fn stranger() -> link::Error {
    link::Error {
        code: i32::from(StatusCode::UNAUTHORIZED.as_u16()),
        kind: None,
        message: "show a token of the sandbox's agent".to_owned(),
        data: serde_json::Map::new(),
    }
}

/// Counts a request as open.
fn open(core: &Core, sandbox: &Sandbox) -> Result<OwnedSemaphorePermit, link::Error> {
    sandbox.door.clone().try_acquire_owned().map_err(|_| {
        let max = core.options.limits.door_requests_max;
        link::Error::new(ErrorType::RateLimited, format_args!("{max} requests to the door are open already"))
            .with("retryAfterMs", TOO_MANY_RETRY_MS)
    })
}

/// The bundle of the handler that is started ahead of its agent, if that is what a sandbox asks for that is nobody's.
fn ahead<B>(sandbox: &Sandbox, name: &str, request: &Request<B>) -> Option<ArtifactUrl> {
    let url = ArtifactUrl::of_digest(name).ok()?;
    let bundle = sandbox.state().ahead.filter(|_| sandbox.peer().is_none())?;
    (request.method() == Method::GET && crate::grant::digest(&url) == Ok(bundle)).then_some(url)
}

async fn get_ahead(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    url: &ArtifactUrl,
) -> Result<Response<Body>, link::Error> {
    let permit = open(core, sandbox)?;
    read(core, sandbox, url, permit).await
}

async fn put(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, link::Error> {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if header(CONTENT_LENGTH)
        .and_then(|length| length.parse::<u64>().ok())
        .is_some_and(|n| n > ARTIFACT_BYTES_MAX)
    {
        let message = format_args!("an artifact has at most {ARTIFACT_BYTES_MAX} bytes");
        return Err(link::Error::new(ErrorType::TooLarge, message));
    }
    let media_type = header(CONTENT_TYPE).map(|kind| kind.chars().take(MEDIA_TYPE_CHARS_MAX).collect());
    let upload = Box::pin(upload(core.clone(), sandbox.clone(), request.into_body()));
    let kept =
        core.artifacts.put_from(&mut StreamReader::new(upload)).await.map_err(|error| match error {
            events::artifact::ArtifactError::Interrupted { .. } => {
                link::Error::new(ErrorType::InvalidRequest, "the upload broke off")
            }
            error => refusal(&error),
        })?;
    core.grant(peer, sandbox.origin(peer, None), kept.digest, Reason::Put, media_type).await?;
    let digest = format!("sha256:{}", kept.digest);
    let url = ArtifactUrl::of_digest(&digest).expect("a digest is 64 hex digits");
    let stored = ArtifactStored { url, digest, size: kept.size };
    let mut response = Response::new(full(serde_json::to_vec(&stored).expect("it is plain data")));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The bytes of an upload, as they come; an error where none come for too long.
fn upload(core: Arc<Core>, sandbox: Arc<Sandbox>, body: Incoming) -> impl Stream<Item = io::Result<Bytes>> {
    let patience = Duration::from_millis(core.options.limits.http_head_ms);
    stream::unfold((core, sandbox, body), move |(core, sandbox, mut body)| async move {
        loop {
            let item = match tokio::time::timeout(patience, body.frame()).await {
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
                Ok(None) => return None,
                Ok(Some(Err(error))) => Err(io::Error::other(error)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => Ok(bytes),
                    Err(_trailers) => continue,
                },
            };
            if let Ok(bytes) = &item {
                moved(&core, &sandbox, bytes.len());
            }
            return Some((item, (core, sandbox, body)));
        }
    })
}

async fn get(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Peer,
    digest: &str,
    permit: OwnedSemaphorePermit,
) -> Result<Response<Body>, link::Error> {
    let url = ArtifactUrl::of_digest(digest).map_err(|_| {
        link::Error::new(ErrorType::UnknownArtifact, "an artifact is named `sha256:<64 hex digits>`")
    })?;
    if !core.may_read(&peer.crew, crate::grant::digest(&url)?).await? {
        return Err(unknown(&url));
    }
    read(core, sandbox, &url, permit).await
}

/// The bytes of an artifact, as they are taken.
async fn read(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    url: &ArtifactUrl,
    permit: OwnedSemaphorePermit,
) -> Result<Response<Body>, link::Error> {
    let bytes = core.artifacts.get(crate::grant::digest(url)?).await.map_err(|error| refusal(&error))?;
    let bytes = bytes.ok_or_else(|| unknown(url))?;
    let size = bytes.len();
    let (core, sandbox) = (core.clone(), sandbox.clone());
    // The request counts as open until its last byte is taken.
    let chunks = stream::unfold((bytes, permit), move |(mut rest, permit)| {
        let (core, sandbox) = (core.clone(), sandbox.clone());
        async move {
            if rest.is_empty() {
                return None;
            }
            let chunk = rest.split_to(CHUNK_BYTES.min(rest.len()));
            moved(&core, &sandbox, chunk.len());
            Some((Ok(Frame::data(chunk)), (rest, permit)))
        }
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(chunks)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

fn moved(core: &Core, sandbox: &Sandbox, bytes: usize) {
    if let Ok(host) = core.host() {
        host.activity(&sandbox.id, Activity::Bytes(bytes as u64));
    }
}
