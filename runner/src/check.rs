//! `hypercode handler check -- CMD`: drives a stdio handler through the protocol and says what it does wrong.
//!
//! The platform's part is played from the recorded transcripts of the protocol, so that a handler is held to the same
//! conversations as the runner itself; then come the things that go wrong in real life.

mod desk;
mod report;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use link::{
    Content, Error, ErrorType, HandlerInfo, HandlerSpec,
    handler::{Executed, Initialize, method},
    limits::PING_MS_MAX,
    rpc::{self, Parsed},
    transcript::{self, Direction, Entry},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use self::desk::Desk;
pub use self::report::{Finding, Severity};
use crate::{
    api::{self, Api},
    carrier::{Launch, stdio},
    child::Program,
    door::Door,
    event::{EVENTS_MAX, Platform},
    gateway::Gateway,
    log::Log,
    mask::Mask,
    process::Family,
    source,
};

/// How a check is made.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckOptions {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where the handler runs.
    pub cwd: PathBuf,
    /// Where the check may write; best a new temporary directory.
    pub work: PathBuf,
    /// Variables beside those that every handler gets.
    pub env: BTreeMap<String, String>,
    /// What comes out of every task that the handler delegates.
    pub child: Content,
    /// How long each step may take.
    pub step_ms_max: u64,
    /// How long the handler has after a cancellation and at its end.
    pub grace_ms: u64,
}

/// Checks a handler. Findings come in the order in which they were made; one that is an
/// [`Severity::Error`] means that the handler would not do on the platform.
pub async fn check(options: &CheckOptions) -> Vec<Finding> {
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let platform = Platform::new(events);
    let log = Log::open(&options.work, Mask::default());
    let (launch, initialize) = match prepare(options, &platform, &log).await {
        Ok(prepared) => prepared,
        Err(message) => {
            return vec![Finding::error("start", message, "the command is found and can be started")];
        }
    };
    let desk = Desk::open(inbox, options.work.clone(), options.child.clone());
    let deadline = Instant::now() + Duration::from_millis(options.step_ms_max);
    let mut findings = Vec::new();
    let ready = match stdio::spawn(launch) {
        Ok(spawned) => spawned.initialize(&initialize, deadline).await,
        Err(failure) => Err(failure),
    };
    match ready {
        Err(failure) => {
            findings.push(Finding::error(
                "initialize",
                with_log(failure.message, &failure.log_tail),
                "`initialize` is answered, if only with -32601",
            ));
        }
        Ok(ready) => {
            let mut checker =
                Checker { options, stdio: ready.stdio, info: ready.info, desk: &desk, findings };
            checker.run().await;
            findings = std::mem::take(&mut checker.findings);
        }
    }
    findings.extend(desk.findings());
    findings
}

async fn prepare(
    options: &CheckOptions,
    platform: &Platform,
    log: &Log,
) -> Result<(Launch, Initialize), String> {
    let (name, args) = options.command.split_first().ok_or("no command was given")?;
    let initialize: Initialize = first_params(transcript::STDIO, method::INITIALIZE)?;
    let (_, token) = tokio::sync::watch::channel(None);
    // There is no door here: what goes to `/file` is answered as by a platform that cannot be reached.
    let door =
        Door::new(Gateway::Socket(options.work.join("no-gateway")), token, initialize.limits.artifact_bytes);
    let info = serde_json::to_value(&initialize).map_err(|error| error.to_string())?;
    let api = Api {
        platform: platform.clone(),
        door,
        info: tokio::sync::watch::channel(Some(info)).1,
        uploads: options.work.join("uploads"),
    };
    let base =
        api::serve(api).await.map_err(|error| format!("the handler API could not be served: {error}"))?;
    let search = std::env::var("PATH").unwrap_or_default();
    let path = source::find_program(name, &options.cwd, &search).ok_or_else(|| {
        format!("the command `{name}` is neither a program in {} nor in PATH", options.cwd.display())
    })?;
    let work = options.work.to_string_lossy().into_owned();
    let mut env = options.env.clone();
    let ours = [("PATH", search), ("HOME", work.clone()), ("HYPERCODE_WORK", work), ("HYPERCODE_API", base)];
    env.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    env.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
    let program = Program { path, name: None, args: args.to_vec(), cwd: options.cwd.clone(), env };
    let spec = HandlerSpec { start_timeout_ms: options.step_ms_max, ..HandlerSpec::default() };
    let (log, platform) = (log.clone(), platform.clone());
    Ok((Launch { spec, program, log, family: Family::of_guest(), platform }, initialize))
}

/// What was found, and the end of the handler's log where there is any.
fn with_log(found: String, log_tail: &str) -> String {
    match log_tail.trim_end() {
        "" => found,
        log_tail => format!("{found}; the end of its log: {log_tail}"),
    }
}

/// The params of the first request of this method in a transcript.
fn first_params<T: serde::de::DeserializeOwned>(
    transcripts: &[(&str, &str)],
    name: &str,
) -> Result<T, String> {
    for (_, text) in transcripts {
        for Entry { frame, .. } in transcript::entries(text)? {
            if frame["method"] == name {
                return serde_json::from_value(frame["params"].clone()).map_err(|error| error.to_string());
            }
        }
    }
    Err(format!("no transcript has `{name}`"))
}

/// What a step came to.
enum Outcome {
    /// An answer.
    Answered(Result<Value, Error>),
    /// None in time.
    Silent,
    /// The handler ended instead.
    Ended,
}

struct Checker<'a> {
    options: &'a CheckOptions,
    stdio: stdio::Stdio,
    info: HandlerInfo,
    desk: &'a Desk,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    async fn run(&mut self) {
        let HandlerInfo { concurrency, messages, ping, .. } = &self.info;
        let said =
            format!("ready: concurrency {concurrency}, messages {messages:?}, ping {ping}").to_lowercase();
        self.findings.push(Finding::info("initialize", said));
        let is_alive = self.replay_transcripts().await
            && self.unknown_method().await
            && self.unknown_notification().await
            && self.unicode().await
            && self.cancel().await
            && self.ping().await;
        if is_alive {
            self.end().await;
        }
    }

    /// Waits for an answer; the end of the handler ends everything.
    async fn ask(&self, name: &str, params: Value, ms: u64) -> Outcome {
        tokio::select! {
            outcome = self.stdio.request(name, params) => Outcome::Answered(outcome),
            _ = self.stdio.child().ended() => Outcome::Ended,
            () = tokio::time::sleep(Duration::from_millis(ms)) => Outcome::Silent,
        }
    }

    fn fault(&mut self, step: &'static str, found: impl Into<String>, rule: &'static str) {
        self.findings.push(Finding::error(step, found, rule));
    }

    fn doubt(&mut self, step: &'static str, found: impl Into<String>, rule: &'static str) {
        self.findings.push(Finding::warning(step, found, rule));
    }

    /// Notes the end of the handler with what it wrote last; whether it still lives is the answer.
    async fn ended(&mut self, step: &'static str) -> bool {
        let exit = self.stdio.child().ended().await;
        let last_words = self.stdio.child().last_words().await;
        let found = with_log(format!("the handler ended: it {exit}"), &last_words);
        self.fault(step, found, "a handler serves until it is told to end");
        false
    }

    async fn replay_transcripts(&mut self) -> bool {
        for (_, text) in transcript::STDIO {
            for Entry { dir, frame } in transcript::entries(text).unwrap_or_default() {
                let Parsed::Line(rpc::Line::Request { method: name, params, .. }) =
                    rpc::parse(frame.to_string().as_bytes())
                else {
                    continue;
                };
                let goes_on = match (dir, name.as_str()) {
                    (Direction::Right, method::EXECUTE) => self.execute("task/execute", params).await,
                    (Direction::Right, method::DELIVER) => self.deliver(params).await,
                    _ => true,
                };
                if !goes_on {
                    return false;
                }
            }
        }
        true
    }

    /// Has a task done; whether it is well done is the handler's own affair, but its answer must be one.
    async fn execute(&mut self, step: &'static str, mut params: Value) -> bool {
        if !self.begin(step, &mut params) {
            return false;
        }
        let task = params["taskId"].as_str().unwrap_or_default().to_owned();
        match self.ask(method::EXECUTE, params, self.options.step_ms_max).await {
            Outcome::Answered(outcome) => self.judge_result(step, &task, outcome),
            Outcome::Silent => {
                let found = format!("the task `{task}` got no answer in {} ms", self.options.step_ms_max);
                self.fault(step, found, "every execute is answered, within the attempt's timeout");
            }
            Outcome::Ended => return self.ended(step).await,
        }
        self.desk.end_task(&task);
        true
    }

    /// Makes a task's directory and has it in the handler's hands.
    fn begin(&mut self, step: &'static str, params: &mut Value) -> bool {
        let task = params["taskId"].as_str().unwrap_or_default().to_owned();
        let dir = self.options.work.join(&task);
        if let Err(error) = ["in", "out"].iter().try_for_each(|part| std::fs::create_dir_all(dir.join(part)))
        {
            let found = format!("the directory `{}` could not be made: {error}", dir.display());
            self.fault(step, found, "the work directory of the check can be written");
            return false;
        }
        self.desk.take_task(&task, &dir);
        params["dir"] = dir.to_string_lossy().into();
        true
    }

    fn judge_result(&mut self, step: &'static str, task: &str, outcome: Result<Value, Error>) {
        let outcome = match outcome {
            Ok(result) => Executed::parse(result),
            Err(error) if error.code == ErrorType::MethodNotFound.code() => {
                return self.fault(step, "`task/execute` is not known", "a handler knows `task/execute`");
            }
            Err(error) => {
                let retry = error.retry().map_or_else(
                    || {
                        if matches!(error.code, 429 | 503) { "transient" } else { "as the profile says" }
                            .to_owned()
                    },
                    |retry| format!("{retry:?}").to_lowercase(),
                );
                let found = format!(
                    "the task `{task}` failed with {}: {} (retry: {retry})",
                    error.code, error.message
                );
                return self.findings.push(Finding::info(step, found));
            }
        };
        match outcome {
            Ok(result) => {
                let text = result.output.map(|output| output.joined_text()).unwrap_or_default();
                let found = format!("the task `{task}` ended {:?}: {}", result.state, brief(&text));
                self.findings.push(Finding::info(step, found));
            }
            Err(error) => {
                self.fault(step, error.message, "a result has the fields of `task/execute` and no others")
            }
        }
    }

    async fn deliver(&mut self, params: Value) -> bool {
        let step = "message/deliver";
        match self.ask(method::DELIVER, params, self.options.step_ms_max).await {
            Outcome::Answered(Ok(_)) => self.findings.push(Finding::info(step, "messages are taken")),
            Outcome::Answered(Err(error)) if error.code == ErrorType::MethodNotFound.code() => {
                self.findings
                    .push(Finding::info(step, "messages are not taken (-32601): recorded `unhandled`"));
            }
            Outcome::Answered(Err(error)) => {
                let rule = "an error has the message delivered again, up to 5 times";
                self.doubt(step, format!("the message was refused: {}", error.message), rule);
            }
            Outcome::Silent => {
                self.fault(
                    step,
                    "the message got no answer",
                    "a message is answered with `{}` or an error within 30 s",
                );
            }
            Outcome::Ended => return self.ended(step).await,
        }
        true
    }

    async fn unknown_method(&mut self) -> bool {
        let (step, rule) = ("unknown method", "an unknown request is answered with -32601");
        match self.ask("hypercode/no-such-method", json!({}), self.options.step_ms_max).await {
            Outcome::Answered(Err(error)) if error.code == ErrorType::MethodNotFound.code() => {}
            Outcome::Answered(Err(error)) => {
                self.doubt(step, format!("it was answered with {}", error.code), rule)
            }
            Outcome::Answered(Ok(result)) => {
                self.doubt(step, format!("it was answered with {}", brief(&result.to_string())), rule)
            }
            Outcome::Silent => self.fault(step, "it got no answer", rule),
            Outcome::Ended => return self.ended(step).await,
        }
        true
    }

    async fn unknown_notification(&mut self) -> bool {
        let step = "unknown notification";
        // It is short and fits.
        let _ = self.stdio.notify("hypercode/no-such-note", json!({})).await;
        self.execute(step, task("tk_note", "after an unknown notification")).await
    }

    async fn unicode(&mut self) -> bool {
        self.execute("unicode", task("tk_unicode", "naïve ✓ 数据 \u{1f680} \"quoted\" \\ \n two lines")).await
    }

    /// Cancels a task as soon as it is given; the handler may well be done with it already.
    async fn cancel(&mut self) -> bool {
        let (step, rule) =
            ("task/cancel", "a cancelled task is answered within `graceMs`, or the process is killed");
        let mut params = task("tk_cancel", "take your time");
        if !self.begin(step, &mut params) {
            return false;
        }
        let grace_ms = self.options.grace_ms;
        let cancel = json!({"taskId": "tk_cancel", "reason": "the check asked", "graceMs": grace_ms});
        let both = async {
            let asked = self.ask(method::EXECUTE, params, self.options.step_ms_max.saturating_add(grace_ms));
            let canceled = async {
                // Long enough for the handler to have begun, were it to take its time.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _ = self.stdio.notify(method::CANCEL, cancel).await;
                tokio::time::sleep(Duration::from_millis(grace_ms)).await;
            };
            tokio::pin!(asked);
            tokio::select! {
                outcome = &mut asked => outcome,
                () = canceled => Outcome::Silent,
            }
        };
        match both.await {
            Outcome::Answered(outcome) => {
                self.judge_result(step, "tk_cancel", outcome);
                self.desk.end_task("tk_cancel");
            }
            Outcome::Silent => {
                let found =
                    format!("the cancelled task got no answer in {grace_ms} ms; the process would be killed");
                self.fault(step, found, rule);
                return false;
            }
            Outcome::Ended => return self.ended(step).await,
        }
        true
    }

    async fn ping(&mut self) -> bool {
        let step = "ping";
        if !self.info.ping {
            return true;
        }
        match self.ask(method::PING, json!({}), PING_MS_MAX).await {
            Outcome::Answered(Ok(_)) => {}
            Outcome::Answered(Err(error)) => {
                self.doubt(
                    step,
                    format!("it was answered with {}", error.code),
                    "`ping` is answered with `{}`",
                );
            }
            Outcome::Silent => {
                self.fault(step, "it got no answer", "a handler that said `ping: true` answers within 10 s")
            }
            Outcome::Ended => return self.ended(step).await,
        }
        true
    }

    /// Tells the handler to end, as the runner does: `shutdown`, the end of stdin, SIGTERM, SIGKILL.
    async fn end(&mut self) {
        let step = "shutdown";
        self.stdio.expect_end();
        let grace = Duration::from_millis(self.options.grace_ms);
        let params = json!({"reason": "drain", "graceMs": self.options.grace_ms});
        match self.ask(method::SHUTDOWN, params, self.options.grace_ms).await {
            Outcome::Answered(Err(error)) if error.code == ErrorType::MethodNotFound.code() => {
                self.findings
                    .push(Finding::info(step, "`shutdown` is not known (-32601): stdin is closed instead"));
            }
            Outcome::Answered(_) | Outcome::Ended => {}
            Outcome::Silent => {
                self.doubt(step, "it got no answer", "`shutdown` is answered, or the handler ends")
            }
        }
        self.stdio.close();
        let child = self.stdio.child().clone();
        if timeout(grace, child.ended()).await.is_ok() {
            return;
        }
        self.doubt(
            step,
            "the handler went on after the end of its stdin",
            "a handler ends when its stdin does",
        );
        child.signal(Signal::SIGTERM);
        if timeout(grace, child.ended()).await.is_err() {
            self.doubt(step, "the handler ignored SIGTERM and was killed", "a handler ends at SIGTERM");
        }
    }
}

impl Drop for Checker<'_> {
    fn drop(&mut self) {
        self.stdio.expect_end();
        self.stdio.child().signal(Signal::SIGKILL);
    }
}

fn task(id: &str, text: &str) -> Value {
    json!({"taskId": id, "attempt": 1, "contextId": "cx_check", "input": {"text": text, "parts": [{"text": text}]},
        "from": {"kind": "principal", "name": "user:check"}, "depth": 0, "timeoutMs": 60_000})
}

/// The beginning of a text, on one line.
fn brief(text: &str) -> String {
    let line: String = text.chars().take(80).collect();
    line.replace('\n', " ")
}
