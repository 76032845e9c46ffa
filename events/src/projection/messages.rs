//! Every message, and what became of it at each of its recipients.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::database::{Statement, Writer, twins};
use super::entities::poison;
use super::{Fault, Projection};
use crate::domain::message::{Event, MessageId, Recipient, Sent};
use crate::domain::{DecodeError, DomainEvent};
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

    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<u64, Fault> {
        let mut skipped = 0;
        let mut sent = Batch::default();
        let boxes = |event: &&Recorded| matches!(event.stream.kind, EntityKind::Outbox | EntityKind::Inbox);
        for event in events.iter().filter(boxes) {
            match Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(Event::Sent(message)) => sent.add(event, &message),
                Ok(decoded) => {
                    let settled = settlements(&decoded);
                    if !settled.is_empty() {
                        sent.store(db).await?;
                    }
                    for settlement in settled {
                        settle(db, event, &settlement).await?;
                    }
                }
                Err(DecodeError::UnknownKind { .. }) => skipped += 1,
                Err(error) => return Err(poison(event, &error)),
            }
        }
        sent.store(db).await?;
        Ok(skipped)
    }
}

/// Messages that are stored together.
#[derive(Default)]
struct Batch {
    messages: Vec<Value>,
    deliveries: Vec<Value>,
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

    async fn store(&mut self, db: &mut Writer) -> Result<(), sqlx::Error> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let Self { messages, deliveries } = std::mem::take(self);
        db.execute(twins!("store_messages.sql"), [Value::from(messages).into()]).await?;
        db.execute(twins!("store_deliveries.sql"), [Value::from(deliveries).into()]).await
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

async fn settle(db: &mut Writer, event: &Recorded, settled: &Settlement<'_>) -> Result<(), sqlx::Error> {
    const SETTLE: Statement = Statement::common(include_str!("sql/settle_delivery.sql"));
    let values = [
        settled.message.as_str().into(),
        settled.recipient.clone().into(),
        settled.status.into(),
        settled.detail.clone().into(),
        event.recorded_at.0.into(),
    ];
    db.execute(SETTLE, values).await
}
