//! The audit view: one line for each event of the log, whatever its kind.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::database::{Writer, twins};
use super::entities::poison;
use super::{Fault, Projection};
use crate::domain;
use crate::event::Recorded;
use crate::id::EntityKind;

mod summary;

/// What an event of this kind and payload says, in a line for a person; and how it came out: `ok`, `failed` or `denied`.
pub fn summarize(kind: &str, payload: &str) -> (&'static str, String) {
    let payload = serde_json::from_str(payload).unwrap_or(Value::Null);
    match summary::of(kind) {
        Some((outcome, template)) => (outcome, summary::fill(template, &payload)),
        None => ("ok", String::new()),
    }
}

/// Entities whose crew is remembered between batches.
const CREWS_MAX: usize = 100_000;

pub(super) struct Audit {
    /// The crew of each entity that was met; `None` for one that has none.
    crews: HashMap<String, Option<String>>,
}

impl Audit {
    pub(super) fn new() -> Self {
        Self { crews: HashMap::new() }
    }

    /// Learns the crews of entities that were first met in earlier batches.
    async fn learn(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<(), sqlx::Error> {
        if self.crews.len() > CREWS_MAX {
            self.crews.clear();
        }
        let entities =
            events.iter().filter(|event| event.version.0 > 1).map(|event| event.stream.to_string());
        let unknown: BTreeSet<String> = entities.filter(|entity| !self.crews.contains_key(entity)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        for row in db.fetch(twins!("load_audit_crews.sql"), [json!(unknown).into()]).await? {
            if let Some(crew) = row.get(1)? {
                self.crews.insert(row.get(0)?, Some(crew));
            }
        }
        Ok(())
    }

    /// The crew that the event names or that its entity's first event named.
    fn crew(&mut self, event: &Recorded, entity: &str, payload: &Value) -> Option<String> {
        let named = match event.stream.kind {
            EntityKind::Crew => Some(event.stream.id.as_ref().to_owned()),
            _ => payload.get("crew").and_then(Value::as_str).map(str::to_owned),
        };
        match named {
            Some(crew) => self.crews.entry(entity.to_owned()).or_insert(Some(crew)).clone(),
            None => self.crews.get(entity).cloned().flatten(),
        }
    }
}

#[async_trait]
impl Projection for Audit {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["audit"]
    }

    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<(), Fault> {
        if events.is_empty() {
            return Ok(());
        }
        self.learn(db, events).await?;
        let mut rows = Vec::with_capacity(events.len());
        for event in events {
            let payload: Value =
                serde_json::from_str(&event.payload).map_err(|error| poison(event, &error))?;
            let entity = event.stream.to_string();
            let crew = self.crew(event, &entity, &payload);
            // What is not known has a line all the same: it is on record that something happened, and what it is called.
            let (outcome, text) = match summary::of(&event.kind).filter(|_| domain::knows(event)) {
                Some((outcome, template)) => (outcome, summary::fill(template, &payload)),
                None => ("ok", event.kind.as_ref().to_owned()),
            };
            let meta = &event.meta;
            rows.push(json!([
                event.position,
                event.recorded_at,
                meta.tenant,
                meta.principal,
                &*event.kind,
                entity,
                crew,
                meta.correlation_id.as_deref(),
                meta.causation_id.as_deref(),
                outcome,
                text,
            ]));
        }
        db.execute(twins!("store_audit.sql"), [Value::from(rows).into()]).await?;
        Ok(())
    }
}
