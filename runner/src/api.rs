//! The handler API at `$HYPERCODE_API`: the whole method table over plain HTTP on loopback, for handlers of every
//! carrier. The random path is the capability; it is worth nothing outside this sandbox.

mod listener;

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use link::{ArtifactUrl, Error, ErrorType, Id, limits::LINE_BYTES_MAX};
use rand::Rng as _;
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, sync::watch};

use self::listener::Bounded;
use crate::{door::Door, event::Platform};

/// The header by which a call says which task it belongs to.
const TASK_HEADER: &str = "hypercode-task-id";

/// What the API serves.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) platform: Platform,
    pub(crate) door: Door,
    /// What `GET /info` says, once it is known for whom the handler works.
    pub(crate) info: watch::Receiver<Option<Value>>,
    /// Where uploads are kept until they are passed on.
    pub(crate) uploads: PathBuf,
}

/// Starts to serve; answers the base URL.
pub(crate) async fn serve(api: Api) -> std::io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let capability = hex::encode(rand::rng().random::<[u8; 16]>());
    let router = Router::new().fallback(answer).with_state(Arc::new((api, format!("/{capability}/"))));
    tokio::spawn(async move { axum::serve(Bounded::new(listener), router).await });
    Ok(format!("http://{address}/{capability}"))
}

type Shared = Arc<(Api, String)>;

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (api, base) = &*shared;
    let path = request.uri().path().to_owned();
    let Some(path) = path.strip_prefix(base.as_str()) else {
        // Nothing is said to whoever does not know the path.
        return StatusCode::NOT_FOUND.into_response();
    };
    let outcome = match (request.method(), path) {
        (&Method::GET, "info") => api.info().await,
        (&Method::GET, path) if path.starts_with("file/") => api.read_file(&path["file/".len()..]).await,
        (&Method::POST, "file") => api.write_file(request).await.map(|value| json_response(&value)),
        (&Method::POST, method) => api.call(method, request).await.map(|value| json_response(&value)),
        _ => Err(not_found(path)),
    };
    outcome.unwrap_or_else(|error| problem(&error))
}

fn json_response(value: &Value) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], value.to_string()).into_response()
}

fn problem(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(CONTENT_TYPE, kind)], error.to_problem().to_string()).into_response()
}

/// Doors that this sandbox does not have look different from what does not exist at all.
fn not_found(path: &str) -> Error {
    let is_door = ["model/", "tool/", "mcp/"].iter().any(|door| path.starts_with(door));
    if is_door {
        Error::new(ErrorType::NotOffered, format_args!("the door `{path}` is not offered to this agent"))
    } else {
        Error::new(ErrorType::MethodNotFound, format_args!("no method `{path}`"))
    }
}

fn task_of(headers: &HeaderMap) -> Result<Option<Id>, Error> {
    let Some(value) = headers.get(TASK_HEADER) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| Id::try_from(text).ok());
    let unreadable = || Error::new(ErrorType::InvalidParams, "the header `Hypercode-Task-Id` is no id");
    id.map(Some).ok_or_else(unreadable)
}

async fn params(request: Request) -> Result<Value, Error> {
    let too_large =
        |_| Error::new(ErrorType::TooLarge, format_args!("params have at most {LINE_BYTES_MAX} bytes"));
    let body: Bytes = to_bytes(request.into_body(), LINE_BYTES_MAX).await.map_err(too_large)?;
    if body.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(&body)
        .map_err(|error| Error::new(ErrorType::ParseError, format_args!("the body is no JSON: {error}")))
}

impl Api {
    /// A handler that was started ahead waits here until it is known for whom.
    async fn info(&self) -> Result<Response, Error> {
        let mut info = self.info.clone();
        let known = info.wait_for(Option::is_some).await;
        let ending = |_| Error::new(ErrorType::Unavailable, "the runner is ending");
        Ok(json_response(&known.map_err(ending)?.clone().unwrap_or_default()))
    }

    async fn call(&self, method: &str, request: Request) -> Result<Value, Error> {
        let task = task_of(request.headers())?;
        let params = params(request).await?;
        if matches!(method, "next" | "task/result" | "message/ack") {
            let pull = self.platform.pull().ok_or_else(|| {
                Error::new(ErrorType::MethodNotFound, format_args!("`{method}` is for pull handlers only"))
            })?;
            return match method {
                "next" => pull.next(params).await,
                "task/result" => pull.result(params),
                _ => pull.ack(params),
            };
        }
        let outcome = self.platform.call(method.to_owned(), params, task).await;
        outcome.map_err(|error| {
            let is_unknown = error.kind == Some(ErrorType::MethodNotFound);
            if is_unknown { not_found(method) } else { error }
        })
    }

    async fn read_file(&self, digest: &str) -> Result<Response, Error> {
        let unknown = |message| Error::new(ErrorType::InvalidParams, message);
        let url = ArtifactUrl::of_digest(digest).map_err(unknown)?;
        let (response, permit) = self.door.open(&url).await?;
        let kind = response.headers().get(CONTENT_TYPE).cloned();
        // The connection to the door counts until its last byte has passed.
        let stream = response.into_body().into_data_stream().map(move |data| {
            let _counted = &permit;
            data
        });
        let mut answer = Response::new(Body::from_stream(stream));
        if let Some(kind) = kind {
            answer.headers_mut().insert(CONTENT_TYPE, kind);
        }
        Ok(answer)
    }

    /// An upload is kept in a file until it is whole, as it may be large.
    async fn write_file(&self, request: Request) -> Result<Value, Error> {
        let failed =
            |error: std::io::Error| Error::new(ErrorType::Internal, format_args!("keep the upload: {error}"));
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        tokio::fs::create_dir_all(&self.uploads).await.map_err(failed)?;
        let path = self.uploads.join(hex::encode(rand::rng().random::<[u8; 16]>()));
        let kept = async {
            let mut file = tokio::fs::File::create(&path).await.map_err(failed)?;
            let (mut stream, mut size) = (request.into_body().into_data_stream(), 0);
            while let Some(data) = stream.next().await {
                let data = data.map_err(|error| Error::new(ErrorType::InvalidRequest, error))?;
                size += data.len() as u64;
                if size > self.door.bytes_max() {
                    let message = format!("an artifact has at most {} bytes", self.door.bytes_max());
                    return Err(Error::new(ErrorType::TooLarge, message));
                }
                file.write_all(&data).await.map_err(failed)?;
            }
            file.flush().await.map_err(failed)?;
            self.door.store_file(&path, kind.as_deref()).await
        };
        let stored = kept.await;
        // Should it stay, it goes with the sandbox.
        let _ = tokio::fs::remove_file(&path).await;
        serde_json::to_value(stored?).map_err(|error| Error::new(ErrorType::Internal, error))
    }
}
