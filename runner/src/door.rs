//! The runner's way to the artifact door: ordinary HTTP/1.1 to the gateway, beside the link.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Method, Request, Response,
    body::{Body, Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST},
};
use link::{ArtifactStored, ArtifactUrl, Error, ErrorType, Secret, limits::DOOR_CONNECTIONS_MAX};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep},
};
use tokio_util::io::ReaderStream;

use crate::gateway::{Gateway, Stream};

/// How long a door call waits for a gateway that is not there, as after its restart.
const CONNECT_MS_MAX: u64 = 30_000;
const CONNECT_RETRY_MS: u64 = 100;
/// Longest answer of the door that is not an artifact.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const OCTETS: &str = "application/octet-stream";

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
        self.send(Method::GET, &path, None, Full::default()).await
    }

    /// Stores a file, which must not change meanwhile.
    pub(crate) async fn store_file(
        &self,
        path: &Path,
        media_type: Option<&str>,
    ) -> Result<ArtifactStored, Error> {
        let failed = |error| internal("read the file", error);
        let (size, hex) = self.digest(path).await?;
        let file = File::open(path).await.map_err(failed)?;
        let stream = ReaderStream::new(file.take(size)).map_ok(Frame::data);
        let kind = media_type.unwrap_or(OCTETS);
        let (response, _permit) =
            self.send(Method::POST, "/door/artifact", Some((kind, size)), StreamBody::new(stream)).await?;
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
        let about = (media_type.unwrap_or(OCTETS), bytes.len() as u64);
        let (response, _permit) =
            self.send(Method::POST, "/door/artifact", Some(about), Full::new(bytes)).await?;
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

    async fn send<B>(
        &self,
        method: Method,
        path: &str,
        about: Option<(&str, u64)>,
        body: B,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let permit = self
            .connections
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| internal("enter the door", error))?;
        let mut request = Request::builder().method(method).uri(path).header(HOST, "gateway");
        if let Some((kind, size)) = about {
            request = request.header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, size);
        }
        let token = self.token.borrow().clone();
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let body = body.map_err(|error| io::Error::other(error.into()));
        let request = request.body(BodyExt::boxed_unsync(body)).map_err(|error| {
            Error::new(ErrorType::InvalidParams, format_args!("make the request: {error}"))
        })?;
        let io = hyper_util::rt::TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|error| unavailable("open the door", error))?;
        tokio::spawn(connection);
        let response =
            sender.send_request(request).await.map_err(|error| unavailable("pass the door", error))?;
        if response.status().is_success() {
            return Ok((response, permit));
        }
        let status = response.status().as_u16();
        let body = collect(response.into_body()).await?;
        Err(Error::from_problem(status, serde_json::from_slice(&body).unwrap_or_default()))
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
