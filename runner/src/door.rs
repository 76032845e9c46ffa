//! The runner's way to the artifact door: ordinary HTTP/1.1 to the gateway, beside the link.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue},
};
use link::{ArtifactStored, ArtifactUrl, Error, ErrorType, Secret, limits::DOOR_CONNECTIONS_MAX};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::io::ReaderStream;

use crate::gateway::{Gateway, Stream};

/// How long a door call waits for a gateway that is not there, as after its restart.
const CONNECT_MS_MAX: u64 = 30_000;
const CONNECT_RETRY_MS: u64 = 100;
/// How long a door call whose token is refused waits for another: one is on its way where the keys have changed.
const TOKEN_WAIT_MS_MAX: u64 = 2_000;
/// Longest answer of the door that is not an artifact.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const OCTETS: &str = "application/octet-stream";

/// What goes out through the door; it can be sent again.
enum Payload<'a> {
    Nothing,
    Bytes { bytes: Bytes, kind: &'a str },
    File { path: &'a Path, size: u64, kind: &'a str },
}

impl Payload<'_> {
    /// Its media type and size.
    fn about(&self) -> Option<(&str, u64)> {
        match self {
            Self::Nothing => None,
            Self::Bytes { bytes, kind } => Some((kind, bytes.len() as u64)),
            Self::File { size, kind, .. } => Some((kind, *size)),
        }
    }

    async fn body(&self) -> Result<UnsyncBoxBody<Bytes, io::Error>, Error> {
        let whole = |bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        Ok(match self {
            Self::Nothing => whole(Bytes::new()),
            Self::Bytes { bytes, .. } => whole(bytes.clone()),
            Self::File { path, size, .. } => {
                let file = File::open(path).await.map_err(|error| internal("read the file", error))?;
                let chunks = ReaderStream::new(file.take(*size)).map_ok(Frame::data);
                BodyExt::boxed_unsync(StreamBody::new(chunks))
            }
        })
    }
}

/// The artifact door. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    gateway: Gateway,
    token: watch::Receiver<Option<Secret>>,
    connections: Arc<Semaphore>,
    bytes_max: u64,
}

fn internal(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorType::Internal, format_args!("{what}: {error}"))
}

fn unavailable(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorType::Unavailable, format_args!("{what}: {error}"))
}

impl Door {
    pub(crate) fn new(gateway: Gateway, token: watch::Receiver<Option<Secret>>, bytes_max: u64) -> Self {
        Self { gateway, token, connections: Arc::new(Semaphore::new(DOOR_CONNECTIONS_MAX)), bytes_max }
    }

    /// The same door with another limit.
    pub(crate) fn with_limit(&self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self.clone() }
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Fetches an artifact into a file, which is there whole and right or not at all. Answers size and media type.
    pub(crate) async fn fetch(&self, url: &ArtifactUrl, to: &Path) -> Result<(u64, Option<String>), Error> {
        let (response, _permit) = self.open(url).await?;
        let media_type =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let part = to.with_extension("part");
        let written = self.write(response.into_body(), &part, url).await;
        let kept = match written {
            Ok(size) => tokio::fs::rename(&part, to)
                .await
                .map(|()| size)
                .map_err(|error| internal("keep the file", error)),
            Err(error) => Err(error),
        };
        if kept.is_err() {
            let _ = tokio::fs::remove_file(&part).await;
        }
        Ok((kept?, media_type))
    }

    async fn write(&self, mut body: Incoming, to: &Path, url: &ArtifactUrl) -> Result<u64, Error> {
        let mut file = File::create(to).await.map_err(|error| internal("create the file", error))?;
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unavailable("the artifact broke off", error))?;
            let Some(data) = frame.data_ref() else { continue };
            size += data.len() as u64;
            if size > self.bytes_max {
                return Err(self.too_large());
            }
            hash.update(data);
            file.write_all(data).await.map_err(|error| internal("write the file", error))?;
        }
        file.flush().await.map_err(|error| internal("write the file", error))?;
        let found = hex::encode(hash.finalize());
        if found != url.hex() {
            return Err(unavailable("the artifact's bytes do not fit its digest", found));
        }
        Ok(size)
    }

    /// Opens an artifact for reading. The permit counts the connection.
    pub(crate) async fn open(
        &self,
        url: &ArtifactUrl,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), Error> {
        let path = format!("/door/artifact/{}", url.digest());
        self.send(Method::GET, &path, Payload::Nothing).await
    }

    /// Stores a file, which must not change meanwhile.
    pub(crate) async fn store_file(
        &self,
        path: &Path,
        media_type: Option<&str>,
    ) -> Result<ArtifactStored, Error> {
        let (size, hex) = self.digest(path).await?;
        let payload = Payload::File { path, size, kind: media_type.unwrap_or(OCTETS) };
        let (response, _permit) = self.send(Method::POST, "/door/artifact", payload).await?;
        self.stored(response, &hex).await
    }

    /// Stores bytes.
    pub(crate) async fn store(
        &self,
        bytes: Bytes,
        media_type: Option<&str>,
    ) -> Result<ArtifactStored, Error> {
        if bytes.len() as u64 > self.bytes_max {
            return Err(self.too_large());
        }
        let hex = hex::encode(Sha256::digest(&bytes));
        let payload = Payload::Bytes { bytes, kind: media_type.unwrap_or(OCTETS) };
        let (response, _permit) = self.send(Method::POST, "/door/artifact", payload).await?;
        self.stored(response, &hex).await
    }

    async fn digest(&self, path: &Path) -> Result<(u64, String), Error> {
        let failed = |error| internal("read the file", error);
        let mut file = File::open(path).await.map_err(failed)?;
        let (mut hash, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 64 * 1024]);
        loop {
            let count = file.read(&mut buffer).await.map_err(failed)?;
            if count == 0 {
                return Ok((size, hex::encode(hash.finalize())));
            }
            size += count as u64;
            if size > self.bytes_max {
                return Err(self.too_large());
            }
            hash.update(&buffer[..count]);
        }
    }

    async fn stored(&self, response: Response<Incoming>, hex: &str) -> Result<ArtifactStored, Error> {
        let body = collect(response.into_body()).await?;
        let stored: ArtifactStored = serde_json::from_slice(&body)
            .map_err(|error| unavailable("the door's answer does not fit", error))?;
        if stored.url.hex() != hex {
            return Err(unavailable("the door stored other bytes than it was given", stored.url));
        }
        Ok(stored)
    }

    fn too_large(&self) -> Error {
        Error::new(ErrorType::TooLarge, format_args!("an artifact has at most {} bytes", self.bytes_max))
    }

    /// Sends a request: once more where the token that it showed is refused and another takes its place.
    async fn send(
        &self,
        method: Method,
        path: &str,
        payload: Payload<'_>,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), Error> {
        let permit = self
            .connections
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| internal("enter the door", error))?;
        let shown = self.token.borrow().clone();
        let mut response = self.pass(method.clone(), path, &payload, shown.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(other) = self.token_after(shown).await
        {
            response = self.pass(method, path, &payload, Some(&other)).await?;
        }
        if response.status().is_success() {
            return Ok((response, permit));
        }
        let status = response.status().as_u16();
        let body = collect(response.into_body()).await?;
        Err(Error::from_problem(status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// The token that takes the place of this one, if that happens soon.
    async fn token_after(&self, shown: Option<Secret>) -> Option<Secret> {
        let mut token = self.token.clone();
        let changed = token.wait_for(|token| *token != shown);
        let changed = timeout(Duration::from_millis(TOKEN_WAIT_MS_MAX), changed).await.ok()?.ok()?;
        changed.clone()
    }

    async fn pass(
        &self,
        method: Method,
        path: &str,
        payload: &Payload<'_>,
        token: Option<&Secret>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "gateway");
        if let Some((kind, size)) = payload.about() {
            request = request.header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, size);
        }
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|error| internal("show the token", error))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(payload.body().await?).map_err(|error| {
            Error::new(ErrorType::InvalidParams, format_args!("make the request: {error}"))
        })?;
        let io = hyper_util::rt::TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|error| unavailable("open the door", error))?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| unavailable("pass the door", error))
    }

    async fn connect(&self) -> Result<Stream, Error> {
        let give_up = Instant::now() + Duration::from_millis(CONNECT_MS_MAX);
        loop {
            match self.gateway.connect().await {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() >= give_up => {
                    return Err(unavailable("reach the gateway", error));
                }
                Err(_) => sleep(Duration::from_millis(CONNECT_RETRY_MS)).await,
            }
        }
    }
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    let limited = http_body_util::Limited::new(body, ANSWER_BYTES_MAX);
    Ok(limited.collect().await.map_err(|error| unavailable("read the door's answer", error))?.to_bytes())
}
