//! An HTTP server, driven by the contract of Amazon Bedrock AgentCore Runtime: `GET /ping`, `POST /invocations`.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER},
};
use link::{
    Content, Error, ErrorType, HandlerInfo, Id, Messages, Stage, StdoutForm,
    handler::{Cancel, Deliver, Execute, Executed, Shutdown},
    limits::{DEPTH_MAX, LINE_BYTES_MAX},
};
use nix::sys::signal::Signal;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Carrier, Failure, Launch, Started, TERM_MS_MAX, ended_early, ms_since, not_spawned, sse, too_slow, utf8,
};
use crate::{
    child::Child,
    event::{Alive, Event, Platform},
    log::Words,
};

/// How often a server that is not up yet is asked.
const START_PING_MS: u64 = 20;
/// How often a server that is up is asked.
const PING_MS: u64 = 5_000;
/// How long `HealthyBusy` counts.
const BUSY_LEASE_MS: u64 = 15_000;

/// A handler that is an HTTP server.
#[derive(Debug)]
pub(crate) struct Http {
    child: Child,
    server: Server,
    answers_results: bool,
    platform: Platform,
    told: CancellationToken,
    /// Whether the server has ever said when it last made progress; else its silence means nothing.
    tells_progress: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
struct Server {
    port: u16,
}

/// Starts the process and waits for the first 200 of `GET /ping`.
pub(super) async fn start(mut launch: Launch, deadline: Instant) -> Result<Started, Failure> {
    let port = match launch.spec.port {
        Some(port) => port,
        None => free_port().map_err(|error| Failure::new(Stage::Spawn, format!("no free port: {error}")))?,
    };
    launch.program.env.insert("PORT".to_owned(), port.to_string());
    let begun = Instant::now();
    let (child, pipes) = Child::spawn(&launch.program, &launch.log, &launch.family)
        .map_err(|error| not_spawned(&launch.program, &error))?;
    let spawn_ms = ms_since(begun);
    drop(pipes.stdin);
    let log = launch.log.clone();
    tokio::spawn(async move { log.copy(pipes.stdout, Words::default()).await });
    let server = Server { port };
    let spawned = Instant::now();
    tokio::select! {
        up = timeout_at(deadline, server.is_up()) => if up.is_err() {
            child.signal(Signal::SIGKILL);
            return Err(too_slow(&launch.spec, "answer `GET /ping` with 200", &launch.log));
        },
        exit = child.ended() => return Err(ended_early(exit, &launch.log)),
    }
    let info = HandlerInfo {
        concurrency: launch.spec.concurrency(),
        messages: Messages::None,
        ..HandlerInfo::default()
    };
    let http = Http {
        child,
        server,
        answers_results: launch.spec.stdout == StdoutForm::Result,
        platform: launch.platform,
        told: CancellationToken::new(),
        tells_progress: Arc::default(),
    };
    tokio::spawn(watch(
        http.child.clone(),
        server,
        http.platform.clone(),
        http.told.clone(),
        http.tells_progress.clone(),
    ));
    let initialize_ms = ms_since(spawned);
    Ok(Started { carrier: Arc::new(http), info, spawn_ms, initialize_ms })
}

/// A port that was free a moment ago; should another take it first, the handler fails to start and is started again.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Asks for the server's health until it ends, and tells the core of its end unless it was told to.
async fn watch(
    child: Child,
    server: Server,
    platform: Platform,
    told: CancellationToken,
    tells_progress: Arc<AtomicBool>,
) {
    let mut last_update = None;
    let exit = loop {
        tokio::select! {
            exit = child.ended() => break exit,
            () = sleep(Duration::from_millis(PING_MS)) => {}
        }
        let health = match timeout(Duration::from_millis(PING_MS), server.ping()).await {
            Ok(Ok((StatusCode::OK, health))) => health,
            _ => continue,
        };
        let update = health.get("time_of_last_update").and_then(Value::as_f64);
        if update.is_some() {
            tells_progress.store(true, Ordering::Relaxed);
            if update > last_update {
                platform.tell(Event::Alive(Alive::Progress)).await;
            }
            last_update = update;
        }
        if health.get("status").and_then(Value::as_str) == Some("HealthyBusy") {
            platform.tell(Event::Alive(Alive::BusyMs(BUSY_LEASE_MS))).await;
        }
    };
    if !told.is_cancelled() {
        platform.tell(Event::Exited(exit)).await;
    }
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorType::HandlerFailed, format_args!("{what}: {error}"))
}

impl Server {
    async fn is_up(self) {
        while !matches!(self.ping().await, Ok((StatusCode::OK, _))) {
            sleep(Duration::from_millis(START_PING_MS)).await;
        }
    }

    async fn ping(self) -> Result<(StatusCode, Value), Error> {
        let request = Request::builder().method(Method::GET).uri("/ping").header(HOST, "127.0.0.1");
        let request = request.body(Full::default()).map_err(|error| failed("make the request", error))?;
        let response = self.send(request).await?;
        let status = response.status();
        let body = read(response.into_body()).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// One connection a request: closing it is how a request is cancelled.
    async fn send(self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .map_err(|error| failed("the handler's port does not answer", error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
                .await
                .map_err(|error| failed("the handler's server does not answer", error))?;
        tokio::spawn(connection);
        sender
            .send_request(request)
            .await
            .map_err(|error| failed("the handler's server did not answer", error))
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed("the handler's answer broke off", error))?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if bytes.len() > LINE_BYTES_MAX {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

fn too_large() -> Error {
    let message =
        format!("the handler's answer has more than {LINE_BYTES_MAX} bytes: put more into artifacts");
    Error::new(ErrorType::TooLarge, message)
}

fn content(value: Value) -> Result<Executed, Error> {
    Content::from_handler(value)
        .map(Executed::output)
        .map_err(|error| Error::new(ErrorType::InvalidParams, error))
}

/// What the body is said to be, without parameters such as its encoding.
fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

/// The JSON that a text is; `None` where it is none. Errors: it is JSON, but deeper than any frame.
fn json_of(text: &str) -> Result<Option<Value>, Error> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(Some(value)),
        // What is skipped is read to any depth.
        Err(_) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            let message = format!("the handler's answer is nested more than {DEPTH_MAX} deep");
            Err(Error::new(ErrorType::TooLarge, message))
        }
        Err(_) => Ok(None),
    }
}

/// The error that a status other than 2xx stands for.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let problem = serde_json::from_slice(body).unwrap_or_default();
    let mut error = Error::from_problem(status.as_u16(), problem);
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        error = error.with("retry", "transient");
        let after =
            headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        if let Some(seconds) = after {
            error = error.with("retryAfterMs", seconds.saturating_mul(1000));
        }
    }
    error
}

fn invocation(task: &Execute) -> Result<Request<Full<Bytes>>, Error> {
    let body = match task.input.single_data() {
        Some(data @ Value::Object(_)) => data.clone(),
        _ => {
            let input = Content::serialize_with_text(&task.input, serde_json::value::Serializer);
            let input = input.map_err(|error| Error::new(ErrorType::Internal, error))?;
            json!({"prompt": task.input.joined_text(), "input": input})
        }
    };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/invocations")
        .header(HOST, "127.0.0.1")
        .header(CONTENT_TYPE, "application/json")
        .header("X-Amzn-Bedrock-AgentCore-Runtime-Session-Id", task.context_id.as_str())
        .header("Hypercode-Task-Id", task.task_id.as_str())
        .header("Hypercode-Attempt", task.attempt);
    if let Some(deadline) = &task.deadline {
        request = request.header("Hypercode-Deadline", deadline);
    }
    if let Some(traceparent) = &task.traceparent {
        request = request.header("traceparent", traceparent);
    }
    request.body(Full::from(body.to_string())).map_err(|error| failed("make the request", error))
}

impl Http {
    fn output(&self, value: Value) -> Result<Executed, Error> {
        if self.answers_results { Executed::parse(value) } else { content(value) }
    }

    /// Strings are deltas, shown as they come; a final object is the output, else the deltas joined are.
    async fn stream(&self, task: &Id, mut body: Incoming) -> Result<Executed, Error> {
        let (mut events, mut text, mut last) = (sse::Events::default(), String::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| failed("the handler's answer broke off", error))?;
            for data in events.push(frame.data_ref().map_or(&[], |data| data))? {
                match json_of(&data)? {
                    Some(Value::String(delta)) => {
                        text.push_str(&delta);
                        let params = json!({"taskId": task, "delta": delta});
                        self.platform.submit("task/progress".to_owned(), params, None).await;
                    }
                    Some(object @ Value::Object(_)) => last = Some(object),
                    _ => text.push_str(&data),
                }
            }
            if events.held() + text.len() > LINE_BYTES_MAX {
                return Err(too_large());
            }
        }
        last.map_or_else(|| Ok(Executed::output(Content::text(text))), |object| self.output(object))
    }
}

#[async_trait]
impl Carrier for Http {
    async fn execute(&self, task: &Execute) -> Result<Executed, Error> {
        let answer = async {
            let response = self.server.send(invocation(task)?).await?;
            let (head, body) = response.into_parts();
            if !head.status.is_success() {
                return Err(refused(head.status, &head.headers, &read(body).await?));
            }
            let media_type = media_type(&head.headers);
            if media_type == "text/event-stream" {
                return self.stream(&task.task_id, body).await;
            }
            let body = utf8("the handler's answer", read(body).await?)?;
            match json_of(&body)? {
                Some(value) => self.output(value),
                None if self.answers_results || is_json(&media_type) => {
                    let message = format!("the handler's answer of type `{media_type}` is no JSON");
                    Err(Error::new(ErrorType::InvalidParams, message))
                }
                None => Ok(Executed::output(Content::text(body))),
            }
        };
        let outcome = answer.await;
        // A connection that broke because the server ended is a crash, and the exit event says so.
        if outcome.is_err() {
            sleep(Duration::from_millis(START_PING_MS)).await;
            if self.child.has_ended() {
                return std::future::pending().await;
            }
        }
        outcome
    }

    async fn deliver(&self, _message: &Deliver) -> Result<(), Error> {
        Err(Error::new(ErrorType::MethodNotFound, "an http handler takes no messages"))
    }

    /// The waiting future is dropped, and the connection with it.
    async fn cancel(&self, _cancel: &Cancel) {}

    fn cancels_at_once(&self) -> bool {
        true
    }

    async fn shutdown(&self, shutdown: &Shutdown) {
        self.told.cancel();
        self.child.terminate(Duration::from_millis(shutdown.grace_ms.max(TERM_MS_MAX))).await;
    }

    fn kill(&self, _task: &Id) {}

    fn is_killed_whole(&self) -> bool {
        false
    }

    fn pid(&self) -> Option<i32> {
        Some(self.child.pid())
    }

    fn speaks(&self) -> bool {
        self.tells_progress.load(Ordering::Relaxed)
    }
}
