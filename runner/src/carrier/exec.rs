//! A command line tool: one process a task.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use link::{
    Content, Error, ErrorType, HandlerInfo, HandlerSpec, Id, Messages, Stage, StdinForm, StdoutForm,
    handler::{Cancel, Deliver, Execute, Executed, Shutdown, State},
    limits::LINE_BYTES_MAX,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::ChildStdin,
};

use super::{Carrier, Failure, LAST_WORDS_MS_MAX, Launch, Started, utf8};
use crate::{
    child::{Child, Exit, Program},
    log::Log,
    process::Family,
};

/// sysexits(3): try again later.
const EX_TEMPFAIL: i32 = 75;
/// sysexits(3): the input is wrong.
const EX_DATAERR: i32 = 65;

/// A handler that is a command.
#[derive(Debug)]
pub(crate) struct Exec {
    spec: HandlerSpec,
    program: Program,
    log: Log,
    family: Family,
    running: Mutex<HashMap<Id, Child>>,
}

/// There is nothing to start: ready when the command is there.
pub(super) fn start(launch: Launch) -> Result<Started, Failure> {
    let Launch { spec, program, log, family, .. } = launch;
    if !is_executable(&program.path) {
        let message = format!("the command `{}` is not an executable file", program.path.display());
        return Err(Failure::new(Stage::Spawn, message));
    }
    let info =
        HandlerInfo { concurrency: spec.concurrency(), messages: Messages::None, ..HandlerInfo::default() };
    let exec = Exec { spec, program, log, family, running: Mutex::default() };
    Ok(Started { carrier: Arc::new(exec), info, spawn_ms: 0, initialize_ms: 0 })
}

fn is_executable(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

impl Exec {
    fn running(&self) -> MutexGuard<'_, HashMap<Id, Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stdin(&self, task: &Execute) -> Result<String, Error> {
        match self.spec.stdin {
            StdinForm::Text => Ok(task.input.joined_text()),
            StdinForm::Json => {
                serde_json::to_string(task).map_err(|error| Error::new(ErrorType::Internal, error))
            }
        }
    }

    async fn outcome(
        &self,
        child: &Child,
        exit: Exit,
        stdout: Result<Vec<u8>, Error>,
    ) -> Result<Executed, Error> {
        match (exit.code, exit.signal) {
            (Some(0), _) => self.output(stdout?),
            (None, signal) => {
                Err(Error::new(ErrorType::Crash, format_args!("the command {exit}")).with("signal", signal))
            }
            (Some(code), _) => {
                let message = last_words(exit, &child.last_words().await);
                match code {
                    EX_DATAERR => Ok(Executed::ended(State::Rejected, message)),
                    EX_TEMPFAIL => {
                        Err(Error::new(ErrorType::HandlerFailed, message).with("retry", "transient"))
                    }
                    code => Err(Error::new(ErrorType::HandlerFailed, message)
                        .with("retry", "permanent")
                        .with("exitCode", code)),
                }
            }
        }
    }

    fn output(&self, stdout: Vec<u8>) -> Result<Executed, Error> {
        let stdout = utf8("the command's output", stdout)?;
        let invalid =
            |error| Error::new(ErrorType::InvalidParams, format!("the command's output is no JSON: {error}"));
        match self.spec.stdout {
            StdoutForm::Text => {
                Ok(Executed::output(Content::text(stdout.strip_suffix('\n').unwrap_or(&stdout))))
            }
            StdoutForm::Json => {
                let value: Value = serde_json::from_str(&stdout).map_err(invalid)?;
                Content::from_handler(value)
                    .map(Executed::output)
                    .map_err(|error| Error::new(ErrorType::InvalidParams, error))
            }
            StdoutForm::Result => Executed::parse(serde_json::from_str(&stdout).map_err(invalid)?),
        }
    }
}

/// How the command ended, with the last line of what it wrote to stderr, which most often says why. What others wrote,
/// before it or beside it, is theirs: it may be about other people.
fn last_words(exit: Exit, stderr: &str) -> String {
    match stderr.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("the command {exit}: {}", line.trim()),
        None => format!("the command {exit}"),
    }
}

/// Everything up to the limit; what comes after is read and thrown away, so that the command is not stuck.
async fn read_bounded(mut from: impl AsyncRead + Unpin) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let failed =
        |error| Error::new(ErrorType::Internal, format!("the command's output could not be read: {error}"));
    (&mut from).take(LINE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() > LINE_BYTES_MAX {
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await.map_err(failed)?;
        let message =
            format!("the command wrote more than {LINE_BYTES_MAX} bytes: write larger results to `out/`");
        return Err(Error::new(ErrorType::TooLarge, message));
    }
    Ok(bytes)
}

async fn feed(mut stdin: ChildStdin, text: String) {
    // A command need not read its input.
    let _ = stdin.write_all(text.as_bytes()).await;
}

/// Ends the command when the wait for it is given up.
struct Guard<'a> {
    exec: &'a Exec,
    task: &'a Id,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.exec.running().remove(self.task) {
            child.signal(Signal::SIGKILL);
        }
    }
}

#[async_trait]
impl Carrier for Exec {
    async fn execute(&self, task: &Execute) -> Result<Executed, Error> {
        let input = self.stdin(task)?;
        let mut program = self.program.clone();
        program.cwd = PathBuf::from(&task.dir);
        program.env.insert("HYPERCODE_TASK".to_owned(), task.task_id.to_string());
        program.env.insert("HYPERCODE_ATTEMPT".to_owned(), task.attempt.to_string());
        let (child, pipes) = Child::spawn(&program, &self.log, &self.family).map_err(|error| {
            let message = format!("the command `{}` could not be started: {error}", program.path.display());
            Error::new(ErrorType::HandlerFailed, message)
        })?;
        self.running().insert(task.task_id.clone(), child.clone());
        let guard = Guard { exec: self, task: &task.task_id };
        tokio::spawn(feed(pipes.stdin, input));
        let mut reading = tokio::spawn(read_bounded(pipes.stdout));
        let exit = child.ended().await;
        // A descendant may hold the pipe open long after the command has said all.
        let stdout = match tokio::time::timeout(Duration::from_millis(LAST_WORDS_MS_MAX), &mut reading).await
        {
            Ok(Ok(stdout)) => stdout,
            _ => {
                reading.abort();
                Err(Error::new(ErrorType::HandlerFailed, "a descendant of the command keeps its output open"))
            }
        };
        drop(guard);
        self.outcome(&child, exit, stdout).await
    }

    async fn deliver(&self, _message: &Deliver) -> Result<(), Error> {
        Err(Error::new(ErrorType::MethodNotFound, "an exec handler takes no messages"))
    }

    async fn cancel(&self, cancel: &Cancel) {
        if let Some(child) = self.running().get(&cancel.task_id) {
            child.signal(Signal::SIGTERM);
            child.signal(Signal::SIGCONT);
        }
    }

    async fn shutdown(&self, shutdown: &Shutdown) {
        let running: Vec<Child> = self.running().values().cloned().collect();
        for child in &running {
            child.signal(Signal::SIGTERM);
        }
        let grace = Duration::from_millis(shutdown.grace_ms);
        futures_util::future::join_all(running.iter().map(|child| child.terminate(grace))).await;
    }

    fn kill(&self, task: &Id) {
        if let Some(child) = self.running().get(task) {
            child.signal(Signal::SIGKILL);
        }
    }

    fn is_killed_whole(&self) -> bool {
        false
    }

    fn pid(&self) -> Option<i32> {
        self.running().values().next().map(Child::pid)
    }

    fn speaks(&self) -> bool {
        false
    }
}
