//! The log of one performance, told: who did what, when, and how long it took.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use events::domain::DomainEvent;
use events::domain::agent::Event as AgentEvent;
use events::domain::crew::Event as CrewEvent;
use events::domain::task::Event as TaskEvent;
use events::{AgentId, Digest, EntityKind, Recorded, TaskId, Timestamp};
use serde_json::{Value, json};

/// One thing that happened.
pub(super) struct Line {
    pub(super) at: Timestamp,
    pub(super) who: String,
    pub(super) what: String,
    pub(super) took_ms: Option<u64>,
}

/// Turns events into lines, remembering what it needs for names and durations.
#[derive(Default)]
pub(super) struct Narrator {
    agents: HashMap<AgentId, String>,
    claimed: HashMap<AgentId, Timestamp>,
    labels: HashMap<TaskId, String>,
    tasks: HashMap<TaskId, Told>,
    messages: usize,
    recoveries: Vec<u64>,
    attempts: usize,
    assembly_began: Option<Timestamp>,
}

struct Told {
    label: String,
    worker: String,
    started: Timestamp,
}

impl Narrator {
    fn name(&self, agent: &AgentId) -> String {
        self.agents.get(agent).cloned().unwrap_or_else(|| agent.to_string())
    }

    /// The line that an event is worth, if any.
    pub(super) fn tell(&mut self, event: &Recorded) -> Option<Line> {
        let (who, what, took_ms) = match event.stream.kind {
            EntityKind::Crew => self.crew(event)?,
            EntityKind::Agent => self.agent(event)?,
            EntityKind::Task => self.task(event)?,
            EntityKind::Outbox => self.message(event)?,
            _ => return None,
        };
        Some(Line { at: event.recorded_at, who, what, took_ms })
    }

    fn crew(&mut self, event: &Recorded) -> Option<(String, String, Option<u64>)> {
        let at = event.recorded_at;
        match CrewEvent::decode(&event.kind, event.schema, &event.payload).ok()? {
            CrewEvent::AssemblyStarted(started) => {
                self.assembly_began = Some(at);
                let what = format!("assembling {} agents", started.seats.len());
                Some((started.name, what, None))
            }
            CrewEvent::Assembled(_) => {
                let took = self.assembly_began.map(|began| at.ms_since(began));
                Some(("crew".to_owned(), "assembled: every agent is ready".to_owned(), took))
            }
            CrewEvent::RestartScheduled(scheduled) => {
                let what = format!("is restarted ({})", plural(scheduled.agents.len(), "agent"));
                Some((self.name(&scheduled.failed), what, None))
            }
            CrewEvent::RestartCompleted(completed) => {
                self.recoveries.push(completed.took_ms);
                let what = format!("recovered as incarnation {}", completed.incarnation);
                Some((self.name(&completed.agent), what, Some(completed.took_ms)))
            }
            CrewEvent::RestartsExhausted(exhausted) => {
                Some((self.name(&exhausted.failed), format!("is given up: {}", exhausted.action), None))
            }
            _ => None,
        }
    }

    fn agent(&mut self, event: &Recorded) -> Option<(String, String, Option<u64>)> {
        let agent: AgentId = event.stream.id.parse().ok()?;
        match AgentEvent::decode(&event.kind, event.schema, &event.payload).ok()? {
            AgentEvent::Requested(requested) => {
                self.agents.insert(agent, format!("{}[{}]", requested.member, requested.replica));
                None
            }
            AgentEvent::SandboxClaimed(_) => {
                self.claimed.insert(agent, event.recorded_at);
                None
            }
            AgentEvent::Ready(ready) => {
                let took = self.claimed.get(&agent).map(|began| event.recorded_at.ms_since(*began));
                Some((self.name(&agent), format!("ready, incarnation {}", ready.incarnation), took))
            }
            AgentEvent::Unhealthy(down) => {
                Some((self.name(&agent), format!("is gone: {}", down.detail), None))
            }
            _ => None,
        }
    }

    fn task(&mut self, event: &Recorded) -> Option<(String, String, Option<u64>)> {
        let task: TaskId = event.stream.id.parse().ok()?;
        let at = event.recorded_at;
        match TaskEvent::decode(&event.kind, event.schema, &event.payload).ok()? {
            TaskEvent::Submitted(submitted) => {
                let label = self.labels.remove(&task).unwrap_or_else(|| "the report".to_owned());
                let worker = submitted.member;
                self.tasks.insert(task, Told { label, worker, started: at });
                None
            }
            TaskEvent::ChildDelegated(delegated) => {
                self.labels.insert(delegated.child, delegated.key);
                None
            }
            TaskEvent::AttemptStarted(started) => {
                self.attempts += 1;
                let worker = self.name(&started.agent);
                let told = self.tasks.get_mut(&task)?;
                told.worker.clone_from(&worker);
                told.started = at;
                let again = if started.attempt > 1 {
                    format!(", attempt {}", started.attempt)
                } else {
                    String::new()
                };
                Some((worker, format!("begins {}{again}", told.label), None))
            }
            TaskEvent::Progressed(progressed) => {
                let told = self.tasks.get(&task)?;
                Some((told.worker.clone(), progressed.message?, None))
            }
            TaskEvent::AttemptEnded(ended) => {
                let told = self.tasks.get(&task)?;
                let what = format!("{} comes back: {}", told.label, ended.ended.as_str());
                Some((told.worker.clone(), what, Some(at.ms_since(told.started))))
            }
            TaskEvent::Completed(_) => {
                let told = self.tasks.get(&task)?;
                Some((
                    told.worker.clone(),
                    format!("done with {}", told.label),
                    Some(at.ms_since(told.started)),
                ))
            }
            TaskEvent::Failed(failed) => {
                let told = self.tasks.get(&task)?;
                Some((told.worker.clone(), format!("{} failed: {}", told.label, failed.message), None))
            }
            _ => None,
        }
    }

    fn message(&mut self, event: &Recorded) -> Option<(String, String, Option<u64>)> {
        if &*event.kind != "message_sent" {
            return None;
        }
        self.messages += 1;
        let sender: AgentId = event.stream.id.split('/').next()?.parse().ok()?;
        Some((self.name(&sender), "sends a message".to_owned(), None))
    }
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A whole performance.
pub(super) struct Timeline {
    lines: Vec<Line>,
    narrator: Narrator,
    events: usize,
    wall_ms: u64,
}

impl Timeline {
    pub(super) fn of(events: &[Recorded]) -> Self {
        let mut narrator = Narrator::default();
        let lines: Vec<Line> = events.iter().filter_map(|event| narrator.tell(event)).collect();
        let wall_ms = match (events.first(), events.last()) {
            (Some(first), Some(last)) => last.recorded_at.ms_since(first.recorded_at),
            _ => 0,
        };
        Self { lines, narrator, events: events.len(), wall_ms }
    }

    /// The lines as a Markdown table.
    pub(super) fn table(&self) -> String {
        let Some(began) = self.lines.first().map(|line| line.at) else { return String::new() };
        let mut text = String::from("| at | who | what | took |\n|---:|---|---|---:|\n");
        for line in &self.lines {
            let at = line.at.ms_since(began);
            let took = line.took_ms.map_or_else(String::new, |ms| format!("{ms} ms"));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {at} ms | {} | {} | {took} |", line.who, cell(&line.what));
        }
        text
    }

    /// All of it as a value: the report, the lines and what it came to.
    pub(super) fn told(&self, assembly: Duration, report: &str) -> Value {
        let began = self.lines.first().map(|line| line.at);
        let line = |line: &Line| {
            let at_ms = began.map_or(0, |began| line.at.ms_since(began));
            json!({ "atMs": at_ms, "who": line.who, "what": line.what, "tookMs": line.took_ms })
        };
        let narrator = &self.narrator;
        json!({
            "report": report,
            "timeline": self.lines.iter().map(line).collect::<Vec<_>>(),
            "figures": {
                "agents": narrator.agents.len(),
                "assemblyMs": assembly.as_millis() as u64,
                "tasks": narrator.tasks.len(),
                "attempts": narrator.attempts,
                "messages": narrator.messages,
                "recoveriesMs": narrator.recoveries,
                "events": self.events,
                "wallMs": self.wall_ms,
                "reportSha256": Digest::of(report.as_bytes()).to_string(),
            },
        })
    }
}

/// What it came to, as a Markdown list.
pub(super) fn figures(told: &Value) -> String {
    let each = |times: &Vec<Value>| {
        let each: Vec<String> = times.iter().map(|ms| format!("{ms} ms")).collect();
        format!("{} ({})", times.len(), each.join(", "))
    };
    let recoveries = told["recoveriesMs"].as_array().filter(|times| !times.is_empty());
    format!(
        "- assembly of {} agents: {} ms\n- tasks: {}, attempts: {}\n- messages: {}\n- recoveries: {}\n\
         - events: {} in {} ms, the hash chain verifies\n- report: SHA-256 {}\n",
        told["agents"],
        told["assemblyMs"],
        told["tasks"],
        told["attempts"],
        told["messages"],
        recoveries.map_or_else(|| "0".to_owned(), each),
        told["events"],
        told["wallMs"],
        told["reportSha256"].as_str().unwrap_or_default(),
    )
}

/// A text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
