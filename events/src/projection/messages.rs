//! Every message, and what became of it at each of its recipients.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::database::{Writer, twins};
use super::entities::poison;
use super::{Fault, Projection};
use crate::domain::DomainEvent;
use crate::domain::message::{Event, MessageId, Recipient, Sent};
use crate::event::Recorded;
use crate::id::EntityKind;

pub(super) struct Messages;

#[async_trait]
impl Projection for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["messages", "deliveries"]
    }

    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<(), Fault> {
        let mut batch = Batch::default();
        let boxes = |event: &&Recorded| matches!(event.stream.kind, EntityKind::Outbox | EntityKind::Inbox);
        for event in events.iter().filter(boxes) {
            match Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(Event::Sent(message)) => batch.add(event, &message),
                Ok(decoded) => batch.settle(event, settlements(&decoded)),
                Err(error) => return Err(poison(event, &error)),
            }
        }
        batch.store(db).await?;
        Ok(())
    }
}

/// What a batch of events does. A message is sent before anything becomes of it.
#[derive(Default)]
struct Batch {
    messages: Vec<Value>,
    deliveries: Vec<Value>,
    /// What became of messages, by message and recipient: the first is what counts.
    settled: BTreeMap<(MessageId, String), Value>,
}

impl Batch {
    fn add(&mut self, event: &Recorded, sent: &Sent) {
        let (id, at, tenant) = (&sent.message, event.recorded_at, &event.meta.tenant);
        let sender = &sent.from.agent;
        self.messages.push(json!([id, tenant, sent.crew, sender, event.position, at, &*event.payload]));
        let agents = sent.recipients.iter().cloned().map(Recipient::Agent);
        for recipient in agents.chain(sent.waits_for.clone().map(Recipient::Member)) {
            self.deliveries.push(json!([id, name(&recipient), "pending", at]));
        }
    }

    fn settle(&mut self, event: &Recorded, settlements: Vec<Settlement<'_>>) {
        for Settlement { message, recipient, status, detail } in settlements {
            let row = json!([message, recipient, status, detail, event.recorded_at]);
            self.settled.entry((message.clone(), recipient)).or_insert(row);
        }
    }

    async fn store(self, db: &mut Writer) -> Result<(), sqlx::Error> {
        if !self.messages.is_empty() {
            db.execute(twins!("store_messages.sql"), [Value::from(self.messages).into()]).await?;
            db.execute(twins!("store_deliveries.sql"), [Value::from(self.deliveries).into()]).await?;
        }
        if !self.settled.is_empty() {
            let settled = Value::from_iter(self.settled.into_values());
            db.execute(twins!("settle_deliveries.sql"), [settled.into()]).await?;
        }
        Ok(())
    }
}

/// A recipient as the `deliveries` table names it.
fn name(recipient: &Recipient) -> String {
    match recipient {
        Recipient::Agent(agent) => agent.to_string(),
        Recipient::Member(member) => format!("member:{member}"),
    }
}

/// The recipient that the `deliveries` table names so.
pub(super) fn recipient(name: &str) -> Result<Recipient, sqlx::Error> {
    match name.strip_prefix("member:") {
        Some(member) => Ok(Recipient::Member(member.into())),
        None => name.parse().map(Recipient::Agent).map_err(|error| sqlx::Error::Decode(Box::new(error))),
    }
}

/// What became of a message at one recipient.
struct Settlement<'a> {
    message: &'a MessageId,
    recipient: String,
    status: &'static str,
    detail: Option<String>,
}

fn settlements(event: &Event) -> Vec<Settlement<'_>> {
    match event {
        Event::Acked(acked) => {
            let taken = acked.taken.iter().map(|message| (message, "taken"));
            let unhandled = acked.unhandled.iter().map(|message| (message, "unhandled"));
            let by = [Recipient::Agent(acked.by.agent.clone()), Recipient::Member(acked.by.member.clone())];
            let of = |(message, status)| {
                let detail = || Some(acked.by.agent.to_string());
                by.each_ref().map(|by| Settlement { message, recipient: name(by), status, detail: detail() })
            };
            taken.chain(unhandled).flat_map(of).collect()
        }
        Event::DeadLettered(dead) => vec![Settlement {
            message: &dead.message,
            recipient: name(&dead.recipient),
            status: "dead_lettered",
            detail: json!(dead.reason).as_str().map(str::to_owned),
        }],
        Event::Sent(_) | Event::Denied(_) | Event::DelegateDenied(_) | Event::FrameRefused(_) => Vec::new(),
    }
}
