//! JSON-RPC 2.0 on the handler's stdin and stdout.

mod pending;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use link::{
    Call, Error, ErrorType, HandlerInfo, Id, Note,
    handler::{Cancel, Deliver, Execute, Executed, Initialize, PROTOCOL_VERSION, Shutdown, method},
    limits::{CALLS_IN_FLIGHT_MAX, CONCURRENCY_MAX, LINE_BYTES_MAX},
    rpc::{self, Parsed, RequestId},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    process::{ChildStdin, ChildStdout},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::pending::{Answered, Pending};
use super::{
    Carrier, Failure, LAST_WORDS_MS_MAX, Launch, Started, TERM_MS_MAX, ended_early, ms_since, not_spawned,
    too_slow,
};
use crate::{
    child::{Child, Exit},
    event::{Event, Platform, answered},
    lines::{Line, Lines},
    log::Log,
};

/// Lines that may wait for a handler that does not read; then those who write them wait.
const LINES_WAITING_MAX: usize = 16;
/// How much of an odd line is recorded.
const ODD_CHARS_MAX: usize = 200;

/// A handler that speaks JSON-RPC on stdio.
#[derive(Debug)]
pub(crate) struct Stdio {
    child: Child,
    mouth: Mouth,
    pending: Arc<Pending>,
    /// Set once the handler is told to end: its end is then expected.
    told: CancellationToken,
}

/// The way to the handler's stdin. Cheap to clone.
#[derive(Debug, Clone)]
struct Mouth {
    lines: mpsc::Sender<String>,
    closed: CancellationToken,
}

impl Mouth {
    fn new(stdin: ChildStdin) -> Self {
        let (lines, waiting) = mpsc::channel(LINES_WAITING_MAX);
        let closed = CancellationToken::new();
        tokio::spawn(write_lines(stdin, waiting, closed.clone()));
        Self { lines, closed }
    }

    /// Writes a line; one that is too long is an error and is not written.
    async fn say(&self, line: &rpc::Line) -> Result<(), Error> {
        let text = line.to_json().to_string();
        if text.len() > LINE_BYTES_MAX {
            let message = format!("a line of {} bytes is too long: at most {LINE_BYTES_MAX} fit", text.len());
            return Err(Error::new(ErrorType::TooLarge, message));
        }
        // A handler that does not read any more is about to end, and its end is an event of its own.
        let _ = self.lines.send(text).await;
        Ok(())
    }

    async fn answer(&self, id: RequestId, outcome: Result<Value, Error>) {
        let line = rpc::Line::Response { id: Some(id.clone()), outcome };
        if let Err(error) = self.say(&line).await {
            // An error is short and fits.
            let _ = self.say(&rpc::Line::Response { id: Some(id), outcome: Err(error) }).await;
        }
    }
}

async fn write_lines(mut stdin: ChildStdin, mut lines: mpsc::Receiver<String>, closed: CancellationToken) {
    let write = async {
        while let Some(mut line) = lines.recv().await {
            line.push('\n');
            if stdin.write_all(line.as_bytes()).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = write => {}, () = closed.cancelled() => {} }
    drop(stdin);
    // Later lines go nowhere, and nobody waits for room.
    lines.close();
}

/// A handler that has answered `initialize`.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) stdio: Stdio,
    pub(crate) info: HandlerInfo,
    spawn_ms: u64,
    initialize_ms: u64,
}

impl Ready {
    pub(super) fn into_started(self) -> Started {
        let Self { stdio, info, spawn_ms, initialize_ms } = self;
        Started { carrier: Arc::new(stdio), info, spawn_ms, initialize_ms }
    }
}

/// A process that is up and waits for `initialize`.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(super) stdio: Stdio,
    pub(super) launch: Launch,
    reading: JoinHandle<()>,
    spawn_ms: u64,
}

/// Starts the process.
pub(crate) fn spawn(launch: Launch) -> Result<Spawned, Failure> {
    let begun = Instant::now();
    let (child, pipes) = Child::spawn(&launch.program, &launch.log, &launch.family)
        .map_err(|error| not_spawned(&launch.program, &error))?;
    let spawn_ms = ms_since(begun);
    let stdio = Stdio {
        child,
        mouth: Mouth::new(pipes.stdin),
        pending: Arc::default(),
        told: CancellationToken::new(),
    };
    let reader = Reader {
        platform: launch.platform.clone(),
        log: launch.log.clone(),
        mouth: stdio.mouth.clone(),
        pending: stdio.pending.clone(),
        in_flight: Arc::new(Semaphore::new(CALLS_IN_FLIGHT_MAX)),
        was_noisy: false,
    };
    let reading = tokio::spawn(reader.run(pipes.stdout));
    Ok(Spawned { stdio, launch, reading, spawn_ms })
}

impl Spawned {
    /// Tells the handler for whom it works.
    pub(crate) async fn initialize(
        self,
        initialize: &Initialize,
        deadline: Instant,
    ) -> Result<Ready, Failure> {
        let Self { stdio, launch, reading, spawn_ms } = self;
        let child = stdio.child.clone();
        let initialized = Instant::now();
        let params = serde_json::to_value(initialize).unwrap_or_default();
        let ready = tokio::select! {
            outcome = timeout_at(deadline, stdio.request(method::INITIALIZE, params)) => match outcome {
                Ok(outcome) => read_info(outcome).map_err(|message| Failure {
                    log_tail: launch.log.tail(),
                    ..Failure::new(link::Stage::Initialize, message)
                }),
                Err(_) => Err(too_slow(&launch.spec, "answer `initialize`", &launch.log)),
            },
            exit = child.ended() => {
                // Its log may still be on the way.
                let _ = timeout(Duration::from_millis(LAST_WORDS_MS_MAX), reading).await;
                return Err(ended_early(exit, &launch.log));
            }
        };
        match ready {
            Ok(info) => {
                let initialize_ms = ms_since(initialized);
                tokio::spawn(report_exit(child, reading, stdio.told.clone(), launch.platform));
                Ok(Ready { stdio, info, spawn_ms, initialize_ms })
            }
            Err(failure) => {
                child.signal(Signal::SIGKILL);
                Err(failure)
            }
        }
    }
}

/// Tells the core of an end that nobody asked for, after everything that the handler said before.
async fn report_exit(child: Child, reading: JoinHandle<()>, told: CancellationToken, platform: Platform) {
    let exit: Exit = child.ended().await;
    let _ = timeout(Duration::from_millis(LAST_WORDS_MS_MAX), reading).await;
    if !told.is_cancelled() {
        platform.tell(Event::Exited(exit)).await;
    }
}

/// What the answer to `initialize` says; a handler that does not know the method has all the defaults.
fn read_info(outcome: Result<Value, Error>) -> Result<HandlerInfo, String> {
    let result = match outcome {
        Ok(result) => result,
        Err(error) if error.code == ErrorType::MethodNotFound.code() => return Ok(HandlerInfo::default()),
        Err(error) => return Err(format!("the handler refused `initialize`: {error}")),
    };
    let mut info = HandlerInfo::parse(result).map_err(|error| error.message)?;
    if info.protocol_version != PROTOCOL_VERSION {
        let version = info.protocol_version;
        return Err(format!(
            "the handler speaks protocol version {version}, the platform {PROTOCOL_VERSION}"
        ));
    }
    info.concurrency = info.concurrency.clamp(1, CONCURRENCY_MAX);
    Ok(info)
}

impl Stdio {
    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    /// From now on the handler's end is expected.
    pub(crate) fn expect_end(&self) {
        self.told.cancel();
    }

    /// Closes the handler's stdin.
    pub(crate) fn close(&self) {
        self.mouth.closed.cancel();
    }

    /// Tells the handler something that wants no answer.
    pub(crate) async fn notify(&self, name: &str, params: Value) -> Result<(), Error> {
        self.mouth.say(&rpc::Line::Notification { method: name.to_owned(), params }).await
    }

    /// Asks the handler and waits for its answer: for ever, if its process ends first.
    pub(crate) async fn request(&self, name: &str, params: Value) -> Result<Value, Error> {
        let (id, answer) = self.pending.open(name == method::EXECUTE);
        let line = rpc::Line::Request { id: RequestId::Number(id), method: name.to_owned(), params };
        if let Err(error) = self.mouth.say(&line).await {
            self.pending.forget(id);
            return Err(error);
        }
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Carrier for Stdio {
    async fn execute(&self, task: &Execute) -> Result<Executed, Error> {
        let params = serde_json::to_value(task).map_err(|error| Error::new(ErrorType::Internal, error))?;
        self.request(method::EXECUTE, params).await.and_then(Executed::parse)
    }

    async fn deliver(&self, message: &Deliver) -> Result<(), Error> {
        let params = serde_json::to_value(message).map_err(|error| Error::new(ErrorType::Internal, error))?;
        self.request(method::DELIVER, params).await.map(drop)
    }

    async fn cancel(&self, cancel: &Cancel) {
        // Shorter than any task was, so it fits.
        let _ = self.notify(method::CANCEL, serde_json::to_value(cancel).unwrap_or_default()).await;
    }

    async fn ping(&self) {
        // An error is an answer too.
        let _ = self.request(method::PING, json!({})).await;
    }

    async fn shutdown(&self, shutdown: &Shutdown) {
        self.expect_end();
        let grace = Duration::from_millis(shutdown.grace_ms);
        let over = Instant::now() + grace;
        let params = serde_json::to_value(shutdown).unwrap_or_default();
        tokio::select! {
            _ = timeout_at(over, self.request(method::SHUTDOWN, params)) => {}
            _ = self.child.ended() => {}
        }
        self.close();
        if timeout_at(over, self.child.ended()).await.is_err() {
            self.child.terminate(Duration::from_millis(TERM_MS_MAX).min(grace)).await;
        }
    }

    fn kill(&self, _task: &Id) {
        self.child.signal(Signal::SIGKILL);
    }

    fn pid(&self) -> Option<i32> {
        Some(self.child.pid())
    }
}

/// Reads what the handler says.
struct Reader {
    platform: Platform,
    log: Log,
    mouth: Mouth,
    pending: Arc<Pending>,
    in_flight: Arc<Semaphore>,
    was_noisy: bool,
}

impl Reader {
    async fn run(mut self, stdout: ChildStdout) {
        let mut lines = Lines::new(stdout, LINE_BYTES_MAX);
        while let Ok(Some(line)) = lines.next().await {
            match line {
                Line::Whole(line) => self.line(&line).await,
                Line::Half(line) => {
                    self.log.line(&line);
                    let shown = String::from_utf8_lossy(&line[..line.len().min(ODD_CHARS_MAX)]).into_owned();
                    self.platform.oddity("handler.half_line", shown).await;
                }
                Line::TooLong => {
                    let message = format!("the handler wrote a line longer than {LINE_BYTES_MAX} bytes");
                    self.platform.oddity("handler.line_too_long", message.clone()).await;
                    self.pending.fail_tasks(&Error::new(ErrorType::TooLarge, message));
                }
            }
        }
    }

    async fn line(&mut self, line: &[u8]) {
        match rpc::parse(line) {
            Parsed::Noise => self.noise(line).await,
            Parsed::BadCall(id, error) => {
                self.platform.oddity("handler.invalid_line", error.message.clone()).await;
                let _ = self.mouth.say(&rpc::Line::Response { id, outcome: Err(error) }).await;
            }
            Parsed::BadAnswer(id, error) => self.bad_answer(id, error).await,
            Parsed::Line(rpc::Line::Response { id: None, outcome: Err(error) }) => {
                let message = format!("the handler could not read a line: {}", error.message);
                self.bad_answer(None, Error { message, ..error }).await;
            }
            Parsed::Line(rpc::Line::Request { id, method, params }) => self.request(id, method, params).await,
            Parsed::Line(rpc::Line::Notification { method, params }) => {
                self.notification(method, params).await
            }
            Parsed::Line(rpc::Line::Response { id, outcome }) => self.response(id, outcome).await,
        }
    }

    async fn noise(&mut self, line: &[u8]) {
        self.log.line(line);
        if !self.was_noisy && !line.is_empty() {
            self.was_noisy = true;
            let shown = String::from_utf8_lossy(&line[..line.len().min(ODD_CHARS_MAX)]).into_owned();
            self.platform.oddity("handler.stdout_noise", shown).await;
        }
    }

    /// Hands the call over in the order of the lines; its answer is written whenever it comes.
    async fn request(&self, id: RequestId, method: String, params: Value) {
        let Ok(permit) = self.in_flight.clone().try_acquire_owned() else {
            let message = format!("{CALLS_IN_FLIGHT_MAX} calls are in flight");
            let error = Error::new(ErrorType::RateLimited, message).with("retryAfterMs", 100);
            return self.mouth.answer(id, Err(error)).await;
        };
        let answer = self.platform.submit(method, params, None).await;
        let mouth = self.mouth.clone();
        tokio::spawn(async move {
            mouth.answer(id, answered(answer).await).await;
            drop(permit);
        });
    }

    async fn notification(&self, method: String, params: Value) {
        let answer = self.platform.submit(method.clone(), params, None).await;
        if Note::METHODS.contains(&method.as_str()) || !Call::METHODS.contains(&method.as_str()) {
            // These are answered at once, and nobody but the record would hear of an error.
            if let Err(error) = answered(answer).await {
                self.platform.oddity("handler.invalid_note", error.message).await;
            }
        }
    }

    /// Whoever waits for the answer is told what is wrong with it. An answer to nobody knows what fails what it may have
    /// been about.
    async fn bad_answer(&self, id: Option<RequestId>, error: Error) {
        self.platform.oddity("handler.invalid_line", error.message.clone()).await;
        match id {
            Some(id) => self.response(Some(id), Err(error)).await,
            None => self.pending.fail_tasks(&error),
        }
    }

    async fn response(&self, id: Option<RequestId>, outcome: Result<Value, Error>) {
        match self.pending.answer(id.as_ref(), outcome) {
            Answered::Once => {}
            Answered::Again => {
                self.platform.oddity("handler.double_answer", format!("a second answer to {id:?}")).await;
            }
            Answered::Foreign => {
                self.platform
                    .oddity("handler.unknown_answer", format!("an answer to {id:?}, never asked"))
                    .await;
            }
        }
    }
}
