//! `hypercode handler check`: one handler through all methods of the protocol.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use events::api::{Problem, ProblemKind};
use link::handler::{Executed, HandlerInfo, Messages, method};
use link::{Content, Error, ErrorType};
use manifest::Millis;
use serde_json::{Value, json};

use super::driver::{Driver, Silence};
use crate::output::{Column, Output, table};

/// The code of JSON-RPC 2.0 for a method that is not served.
const METHOD_NOT_FOUND: i32 = -32601;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// What the task asks for: JSON, else taken as text.
    #[arg(long, default_value = "hello")]
    input: String,
    /// How long each answer may take.
    #[arg(long, default_value = "30s", value_name = "TIME")]
    timeout: Millis,
    /// The handler and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

struct Step {
    step: &'static str,
    verdict: &'static str,
    message: String,
}

/// The steps so far, and the handler as long as it is worth going on with.
struct Run<'a> {
    check: &'a Check,
    driver: Driver,
    directory: &'a Path,
    steps: Vec<Step>,
}

impl Check {
    /// Whether the handler keeps the protocol.
    pub(crate) async fn run(self, output: Output) -> Result<bool, Problem> {
        let directory = Directory::new()?;
        let driver = Driver::start(&self.command).map_err(|error| {
            Problem::new(ProblemKind::Failed, format!("start `{}`: {error}", self.command[0]))
        })?;
        let mut run = Run { check: &self, driver, directory: &directory.0, steps: Vec::new() };
        let is_alive = run.drive().await;
        let steps = run.finish(is_alive).await;
        let is_right = steps.iter().all(|step| step.verdict != "error");
        let rows: Vec<Value> = steps
            .iter()
            .map(|step| json!({"step": step.step, "verdict": step.verdict, "message": step.message}))
            .collect();
        output.value(&json!({"ok": is_right, "steps": rows}), |_| {
            const COLUMNS: [Column; 2] = [Column::new("STEP", "/step"), Column::new("VERDICT", "/verdict")];
            let mut text = table(&rows, &COLUMNS, output.is_coloured);
            for step in steps.iter().filter(|step| !step.message.is_empty()) {
                text += &format!("{}: {}\n", step.step, crate::output::harmless(&step.message));
            }
            text
        });
        Ok(is_right)
    }

    fn limit(&self) -> Duration {
        self.timeout.as_duration()
    }
}

impl Run<'_> {
    fn say(&mut self, step: &'static str, verdict: &'static str, message: impl Into<String>) {
        self.steps.push(Step { step, verdict, message: message.into() });
    }

    fn silent(&mut self, step: &'static str, silence: &Silence) {
        let message = match silence {
            Silence::TimedOut(limit) => format!("no answer within {} ms", limit.as_millis()),
            Silence::Ended => {
                "the handler ended, or closed its standard output; its standard error says why".to_owned()
            }
            Silence::TooLong => format!("wrote a line of more than {} bytes", link::limits::LINE_BYTES_MAX),
        };
        self.say(step, "error", message);
    }

    /// All steps but the last; false once it makes no sense to go on.
    async fn drive(&mut self) -> bool {
        let Some(info) = self.initialize().await else { return false };
        self.execute().await
            && self.cancel().await
            && (info.messages == Messages::None || self.deliver().await)
            && (!info.ping || self.ping().await)
    }

    async fn initialize(&mut self) -> Option<HandlerInfo> {
        let agent =
            json!({"id": "ag_check", "crew": "check", "member": "handler", "replica": 0, "incarnation": 1});
        let params = json!({
            "protocolVersion": 1, "agent": agent, "peers": [], "models": [], "tools": [],
            "limits": {"lineBytes": link::limits::LINE_BYTES_MAX, "artifactBytes": link::limits::ARTIFACT_BYTES_MAX},
        });
        let id = self.driver.request(method::INITIALIZE, params).await;
        match self.driver.answer(id, self.check.limit()).await {
            Ok(Ok(Value::Null)) => self.say("initialize", "ok", ""),
            Ok(Ok(value)) => match serde_json::from_value::<HandlerInfo>(value) {
                Ok(info) => {
                    self.say("initialize", "ok", "");
                    return Some(info);
                }
                Err(error) => self.say("initialize", "error", format!("the result does not fit: {error}")),
            },
            Ok(Err(error)) if is_not_served(&error) => {
                self.say("initialize", "ok", "not served: all defaults hold")
            }
            Ok(Err(error)) => {
                self.say("initialize", "error", format!("refused: {}", error.message));
                return None;
            }
            Err(silence) => {
                self.silent("initialize", &silence);
                return None;
            }
        }
        Some(HandlerInfo::default())
    }

    fn task(&self, id: &str) -> Value {
        let value = serde_json::from_str(&self.check.input)
            .unwrap_or_else(|_| Value::from(self.check.input.as_str()));
        let content = Content::from_handler(value).unwrap_or_default();
        let mut input = json!(content);
        input["text"] = content.joined_text().into();
        json!({
            "taskId": id, "attempt": 1, "contextId": "cx_check", "input": input, "depth": 0,
            "from": {"kind": "principal", "name": "user:check"}, "dir": self.directory,
        })
    }

    async fn execute(&mut self) -> bool {
        let params = self.task("tk_check1");
        let id = self.driver.request(method::EXECUTE, params).await;
        match self.driver.answer(id, self.check.limit()).await {
            Ok(outcome) => {
                self.judge("task/execute", outcome);
                true
            }
            Err(silence) => {
                self.silent("task/execute", &silence);
                matches!(silence, Silence::TimedOut(_))
            }
        }
    }

    fn judge(&mut self, step: &'static str, outcome: Result<Value, Error>) {
        match outcome.map(Executed::parse) {
            Ok(Ok(result)) => {
                let state = serde_json::to_value(result.state).unwrap_or_default();
                let state = state.as_str().unwrap_or_default().to_owned();
                self.say(step, "ok", format!("answered with state {state}"));
            }
            Ok(Err(error)) => self.say(step, "error", error.message),
            Err(error) if is_not_served(&error) => {
                self.say(step, "error", "not served: a handler must do tasks")
            }
            Err(error) => {
                let class = error.retry().map_or("unclassified, so not tried again", |retry| match retry {
                    link::Retry::Transient => "transient",
                    link::Retry::Permanent => "permanent",
                });
                self.say(step, "warning", format!("failed ({class}): {}", error.message));
            }
        }
    }

    async fn cancel(&mut self) -> bool {
        let params = self.task("tk_check2");
        let id = self.driver.request(method::EXECUTE, params).await;
        let cancel = json!({"taskId": "tk_check2", "reason": "the check cancels it", "graceMs": 10_000});
        self.driver.notify(method::CANCEL, cancel).await;
        match self.driver.answer(id, self.check.limit()).await {
            Ok(outcome) => {
                self.judge("task/cancel", outcome);
                true
            }
            Err(Silence::TimedOut(_)) => {
                let message = "a canceled task was not answered: the handler would be killed after its grace";
                self.say("task/cancel", "warning", message);
                false
            }
            Err(silence) => {
                self.silent("task/cancel", &silence);
                false
            }
        }
    }

    async fn deliver(&mut self) -> bool {
        let params = json!({
            "messageId": "ms_check", "from": {"member": "peer", "agent": "ag_peer"},
            "parts": [{"text": "hello"}], "text": "hello", "delivery": 1,
        });
        let id = self.driver.request(method::DELIVER, params).await;
        match self.driver.answer(id, self.check.limit()).await {
            Ok(Ok(_)) => self.say("message/deliver", "ok", ""),
            Ok(Err(error)) if is_not_served(&error) => {
                self.say("message/deliver", "ok", "not served: messages would be recorded as unhandled");
            }
            Ok(Err(error)) => {
                self.say(
                    "message/deliver",
                    "warning",
                    format!("refused, it would come again: {}", error.message),
                );
            }
            Err(silence) => {
                self.silent("message/deliver", &silence);
                return false;
            }
        }
        true
    }

    async fn ping(&mut self) -> bool {
        let id = self.driver.request(method::PING, json!({})).await;
        match self.driver.answer(id, Duration::from_secs(10)).await {
            Ok(Ok(_)) => self.say("ping", "ok", ""),
            Ok(Err(error)) => self.say("ping", "error", format!("promised, but refused: {}", error.message)),
            Err(silence) => {
                self.silent("ping", &silence);
                return false;
            }
        }
        true
    }

    /// The last step, and what was noticed on the way.
    async fn finish(mut self, is_alive: bool) -> Vec<Step> {
        if is_alive {
            let params = json!({"reason": "drain", "graceMs": 10_000});
            let id = self.driver.request(method::SHUTDOWN, params).await;
            // An answer is welcome, but what counts is that it ends.
            let _ = self.driver.answer(id, Duration::from_secs(2)).await;
        }
        for fault in std::mem::take(&mut self.driver.faults) {
            self.say("protocol", "error", fault);
        }
        if self.driver.noise > 0 {
            let message = format!(
                "{} on standard output are no protocol and count as log; write logs to standard error",
                lines(self.driver.noise)
            );
            self.say("protocol", "warning", message);
        }
        if !self.driver.calls.is_empty() {
            let mut calls = std::mem::take(&mut self.driver.calls);
            calls.sort();
            calls.dedup();
            self.say("calls", "ok", format!("called {}", calls.join(", ")));
        }
        let Self { driver, mut steps, .. } = self;
        let ended = driver.end(Duration::from_secs(if is_alive { 10 } else { 1 })).await;
        if is_alive {
            let (verdict, message) = match ended {
                Some(status) if status.success() => ("ok", String::new()),
                Some(status) => ("warning", format!("ended with {status}")),
                None => (
                    "error",
                    "did not end within 10 s after `shutdown` and the end of its standard input".to_owned(),
                ),
            };
            steps.push(Step { step: "shutdown", verdict, message });
        }
        steps
    }
}

fn lines(count: usize) -> String {
    format!("{count} line{}", if count == 1 { "" } else { "s" })
}

fn is_not_served(error: &Error) -> bool {
    error.code == METHOD_NOT_FOUND || error.kind == Some(ErrorType::MethodNotFound)
}

/// The task's directory with `in` and `out`, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Problem> {
        let path = std::env::temp_dir().join(format!("hypercode-check-{}", uuid::Uuid::new_v4().simple()));
        let made = ["in", "out"].iter().try_for_each(|name| std::fs::create_dir_all(path.join(name)));
        let failed = |error| Problem::new(ProblemKind::Failed, format!("make `{}`: {error}", path.display()));
        made.map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
