//! What must hold of the log, whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use events::domain::DomainEvent as _;
use events::domain::agent::Event as AgentEvent;
use events::domain::task::Event as TaskEvent;
use events::{EntityKind, EventStore, Position, Recorded, chain};
use serde_json::Value;

use crate::history::History;

/// Events that are read at a time.
const BATCH_EVENTS: usize = 1_000;

/// The log of a platform that has stopped.
pub(crate) struct Log {
    store: Arc<dyn EventStore>,
    events: Vec<Recorded>,
}

impl Log {
    pub(crate) async fn read(store: Arc<dyn EventStore>) -> Self {
        let mut events: Vec<Recorded> = Vec::new();
        loop {
            let after = events.last().map_or(Position(0), |event| event.position);
            let batch = store.read(after, BATCH_EVENTS).await.expect("the log can be read");
            if batch.is_empty() {
                return Self { store, events };
            }
            events.extend(batch);
        }
    }

    /// ES-1, ES-7.
    pub(crate) async fn chain_verifies(&self) {
        let head = chain::verify(&*self.store).await.expect("the chain verifies");
        assert_eq!(head.position.0, self.events.len() as u64);
    }

    /// TK-1, TK-2, ES-3, ES-5: what was acknowledged is there, once; what nobody knows of is there once at most; no other task
    /// was made. Each ended once, and after that nothing happened to it but that late results were refused.
    pub(crate) fn tasks_ended_once(&self, history: &History) {
        let mut tasks: BTreeMap<&str, Vec<TaskEvent>> = BTreeMap::new();
        for event in self.of(EntityKind::Task) {
            let decoded = TaskEvent::decode(&event.kind, event.schema, &event.payload);
            tasks.entry(&event.stream.id).or_default().push(decoded.expect("an event of this version"));
        }
        for (task, events) in &tasks {
            ended_once(task, events);
        }
        let given = tasks.iter().filter_map(|(task, events)| Some((*task, given_as(events)?)));
        history.explains(&given.collect());
    }

    /// SB-3, SV-1: nothing ever happened to a sandbox, so every agent lived one life through all starts of the platform.
    pub(crate) fn agents_were_adopted(&self) {
        for event in self.of(EntityKind::Agent) {
            let decoded = AgentEvent::decode(&event.kind, event.schema, &event.payload);
            if let AgentEvent::Unhealthy(down) = decoded.expect("an event of this version") {
                panic!("{} at position {} was not adopted: {down:?}", event.stream, event.position);
            }
        }
    }

    fn of(&self, kind: EntityKind) -> impl Iterator<Item = &Recorded> {
        self.events.iter().filter(move |event| event.stream.kind == kind)
    }
}

/// What was asked for, if a client asked for the task.
fn given_as(events: &[TaskEvent]) -> Option<String> {
    match &events[0] {
        TaskEvent::Submitted(submitted) if submitted.parent.is_none() => Some(submitted.input.to_string()),
        _ => None,
    }
}

fn ended_once(task: &str, events: &[TaskEvent]) {
    let is_end = |event: &TaskEvent| {
        matches!(
            event,
            TaskEvent::Completed(_)
                | TaskEvent::Failed(_)
                | TaskEvent::Canceled(_)
                | TaskEvent::Rejected(_)
                | TaskEvent::DeadLettered(_)
        )
    };
    let submitted = events.iter().filter(|event| matches!(event, TaskEvent::Submitted(_))).count();
    let ends = events.iter().filter(|event| is_end(event)).count();
    assert_eq!((submitted, ends), (1, 1), "task {task} is submitted once and ends once: {events:#?}");
    let after = events.iter().skip_while(|event| !is_end(event)).skip(1);
    for event in after {
        assert!(matches!(event, TaskEvent::ResultRefused(_)), "after the end of task {task}: {events:#?}");
    }
}

/// A handler that lives on is not given the same attempt again: what it does may cost money.
pub(crate) fn nothing_was_done_twice(diary: &[Value]) {
    let mut done = BTreeSet::new();
    for entry in diary.iter().filter(|entry| entry["deed"] != "cancel" && entry["deed"] != "refused") {
        let attempt =
            (entry["task"].as_str().expect("a task"), entry["attempt"].as_u64().expect("an attempt"));
        assert!(done.insert(attempt), "given twice: {entry}");
    }
}
