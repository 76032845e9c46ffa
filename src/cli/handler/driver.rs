//! The other end of a handler's standard input and output.

use std::process::Stdio;
use std::time::Duration;

use link::rpc::{self, Line, Parsed, RequestId};
use link::{Error, ErrorType, Note};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};

use super::answers::Answers;

/// Longest line that is read, in bytes; the protocol allows 240 KiB.
const LINE_BYTES_MAX: usize = link::limits::LINE_BYTES_MAX;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// None came in time.
    TimedOut(Duration),
    /// The handler closed its standard output, or ended.
    Ended,
    /// A line is longer than the protocol allows.
    TooLong,
}

/// A running handler.
pub(super) struct Driver {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What was read of the line that is not whole yet.
    partial: Vec<u8>,
    next_id: i64,
    answers: Answers,
    /// What the handler did wrong, beside its answers.
    pub(super) faults: Vec<String>,
    /// Lines that are no protocol.
    pub(super) noise: usize,
    /// Calls and notes that fitted.
    pub(super) calls: Vec<String>,
}

impl Driver {
    /// Starts the command in a process group of its own.
    pub(super) fn start(command: &[String]) -> std::io::Result<Self> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = BufReader::new(stdout.expect("standard output is piped"));
        Ok(Self {
            child,
            stdin,
            stdout,
            partial: Vec::new(),
            next_id: 1,
            answers: Answers::default(),
            faults: Vec::new(),
            noise: 0,
            calls: Vec::new(),
        })
    }

    /// Sends a request and gives its id.
    pub(super) async fn request(&mut self, method: &str, params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.write(&Line::Request { id: RequestId::Number(id), method: method.to_owned(), params }).await;
        id
    }

    /// Sends a notification.
    pub(super) async fn notify(&mut self, method: &str, params: Value) {
        self.write(&Line::Notification { method: method.to_owned(), params }).await;
    }

    /// A handler that reads no more shows so by its silence.
    async fn write(&mut self, line: &Line) {
        if let Some(stdin) = &mut self.stdin {
            let text = line.to_json().to_string() + "\n";
            let _ = tokio::time::timeout(Duration::from_secs(10), stdin.write_all(text.as_bytes())).await;
        }
    }

    /// Waits for the answer to `id`, and serves the handler meanwhile.
    pub(super) async fn answer(&mut self, id: i64, limit: Duration) -> Result<Result<Value, Error>, Silence> {
        let until = Instant::now() + limit;
        loop {
            let line = timeout_at(until, self.line()).await.map_err(|_| Silence::TimedOut(limit))??;
            match rpc::parse(&line) {
                Parsed::Noise => self.noise += 1,
                Parsed::Invalid(id, error) => {
                    self.faults.push(format!("wrote a broken line: {}", error.message));
                    self.write(&Line::Response { id, outcome: Err(error) }).await;
                }
                Parsed::Line(Line::Response { id: Some(RequestId::Number(found)), outcome })
                    if found == id =>
                {
                    return Ok(outcome);
                }
                Parsed::Line(Line::Response { id, .. }) => {
                    let id = id.map_or_else(|| "no id".to_owned(), |id| Value::from(id).to_string());
                    self.faults
                        .push(format!("answered {id}, which nobody waits for; is something answered twice?"));
                }
                Parsed::Line(Line::Request { id, method, params }) => self.serve(id, &method, params).await,
                Parsed::Line(Line::Notification { method, params }) => self.note(&method, params),
            }
        }
    }

    async fn serve(&mut self, id: RequestId, method: &str, params: Value) {
        let outcome = self.answers.answer(method, params);
        match &outcome {
            Err(error) if is_fault(error) => {
                self.faults.push(format!("called `{method}` wrongly: {}", error.message))
            }
            _ => self.calls.push(method.to_owned()),
        }
        self.write(&Line::Response { id: Some(id), outcome }).await;
    }

    fn note(&mut self, method: &str, params: Value) {
        match Note::parse(method, params) {
            Ok(_) => self.calls.push(method.to_owned()),
            Err(error) => {
                self.faults.push(format!("sent the notification `{method}` wrongly: {}", error.message))
            }
        }
    }

    /// The next line without its end. What was read so far is kept when the future is dropped.
    async fn line(&mut self) -> Result<Vec<u8>, Silence> {
        let room = (LINE_BYTES_MAX + 1).saturating_sub(self.partial.len()) as u64;
        let mut source = (&mut self.stdout).take(room);
        match source.read_until(b'\n', &mut self.partial).await {
            Ok(_) if self.partial.ends_with(b"\n") => {
                self.partial.pop();
                Ok(std::mem::take(&mut self.partial))
            }
            Ok(_) if self.partial.len() > LINE_BYTES_MAX => Err(Silence::TooLong),
            Ok(_) | Err(_) => Err(Silence::Ended),
        }
    }

    /// Closes standard input, waits, and kills what is left. Says how the handler ended, or `None` if it was killed.
    pub(super) async fn end(mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        drop(self.stdin.take());
        let ended = tokio::time::timeout(limit, self.child.wait()).await.ok().and_then(Result::ok);
        if ended.is_none() {
            if let Some(group) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
                let group = nix::unistd::Pid::from_raw(group);
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = self.child.wait().await;
        }
        ended
    }
}

/// Whether the refusal is the handler's own fault, rather than something that a platform may answer.
fn is_fault(error: &Error) -> bool {
    matches!(
        error.kind,
        Some(
            ErrorType::InvalidParams
                | ErrorType::MethodNotFound
                | ErrorType::TooLarge
                | ErrorType::InvalidRequest
        )
    )
}
