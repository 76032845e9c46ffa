//! The handler of the benches: it does what a task says, at once, and speaks JSON-RPC on stdio.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::samples::Samples;

/// Tasks at once; as many as a profile may allow.
const CONCURRENCY: u32 = 64;

/// Messages that are being sent for a task.
struct Sending {
    request: Value,
    to: Value,
    left: u64,
    unanswered: u64,
}

/// What the handler has in hand.
#[derive(Default)]
struct Worker {
    sending: Option<Sending>,
    /// The task that is to be told of the messages, and how many it waits for.
    telling: Option<(Value, u64)>,
    calls: u64,
    delays: Samples,
    first_us: u64,
    last_us: u64,
}

/// Serves until standard input is closed.
pub(crate) fn serve() -> ExitCode {
    let mut worker = Worker::default();
    for line in io::stdin().lock().lines() {
        let message = line.ok().and_then(|line| serde_json::from_str::<HashMap<String, Value>>(&line).ok());
        let Some(message) = message else { return ExitCode::FAILURE };
        worker.take(&message);
    }
    ExitCode::SUCCESS
}

impl Worker {
    fn take(&mut self, message: &HashMap<String, Value>) {
        let field = |name: &str| message.get(name).cloned().unwrap_or_default();
        let (id, params) = (field("id"), field("params"));
        match field("method").as_str() {
            Some("initialize") => reply(&id, &json!({"concurrency": CONCURRENCY, "messages": "always"})),
            Some("task/execute") => self.execute(id, &params["input"]["parts"][0]["data"]),
            Some("message/deliver") => {
                self.deliver(&params["parts"][0]["data"]);
                reply(&id, &json!({}));
            }
            Some("task/cancel") => {}
            Some("shutdown") => reply(&id, &json!({})),
            Some(method) => {
                let error = json!({"code": -32601, "message": format!("no method `{method}`")});
                write(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
            }
            None => self.sent(),
        }
    }

    fn execute(&mut self, id: Value, work: &Value) {
        match work["do"].as_str() {
            Some("sleep") => {
                let pause = Duration::from_millis(work["ms"].as_u64().unwrap_or_default());
                thread::spawn(move || {
                    thread::sleep(pause);
                    complete(&id, &json!({}));
                });
            }
            Some("send") => {
                let left = work["count"].as_u64().unwrap_or_default();
                let window = work["window"].as_u64().unwrap_or(1).min(left);
                self.sending = Some(Sending { request: id, to: work["to"].clone(), left, unanswered: 0 });
                for _ in 0..window {
                    self.send();
                }
            }
            Some("tell_received") => {
                self.telling = Some((id, work["count"].as_u64().unwrap_or_default()));
                self.tell();
            }
            _ => complete(&id, &json!({})),
        }
    }

    /// Sends the next message of the task in hand.
    fn send(&mut self) {
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.left > 0) else { return };
        sending.left -= 1;
        sending.unanswered += 1;
        self.calls += 1;
        let params = json!({"to": sending.to, "data": {"sentUs": now_us()}});
        write(
            &json!({"jsonrpc": "2.0", "id": format!("c{}", self.calls), "method": "message/send", "params": params}),
        );
    }

    /// A message is durable: the next may go.
    fn sent(&mut self) {
        self.send();
        let Some(sending) = &mut self.sending else { return };
        sending.unanswered -= 1;
        if sending.unanswered == 0 {
            complete(&sending.request, &json!({}));
            self.sending = None;
        }
    }

    fn deliver(&mut self, data: &Value) {
        let (sent, now) = (data["sentUs"].as_u64().unwrap_or_default(), now_us());
        self.delays.push(Duration::from_micros(now.saturating_sub(sent)));
        self.first_us = if self.first_us == 0 { sent } else { self.first_us.min(sent) };
        self.last_us = now;
        self.tell();
    }

    /// Tells of the messages, once all have come that are waited for.
    fn tell(&mut self) {
        let come = self.delays.count() as u64;
        if let Some((request, _)) = self.telling.take_if(|(_, count)| *count <= come) {
            complete(&request, &self.received());
        }
    }

    fn received(&mut self) -> Value {
        let delays = std::mem::take(&mut self.delays);
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let received = json!({
            "count": delays.count(), "p50Us": us(delays.p50()), "p99Us": us(delays.p99()),
            "firstUs": self.first_us, "lastUs": self.last_us,
        });
        (self.first_us, self.last_us) = (0, 0);
        received
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn complete(request: &Value, data: &Value) {
    reply(request, &json!({"output": {"parts": [{"data": data}]}}));
}

fn reply(request: &Value, result: &Value) {
    write(&json!({"jsonrpc": "2.0", "id": request, "result": result}));
}

fn write(line: &Value) {
    let mut out = io::stdout().lock();
    // Without a reader the runner is gone, and this process will be too.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
