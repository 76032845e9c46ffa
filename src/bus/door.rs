//! Commands by request and reply: the operations of [`crate::api`] at their subjects.

use std::sync::Arc;
use std::time::Duration;

use events::api::{Problem, ProblemKind};
use nats::{Bus, Headers, Message, Subject, Subscription};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use crate::api::{self, Done, OPERATIONS, Operation, PROBLEM_MEDIA_TYPE, Refusal, Service, late};

/// Of all nodes that take commands, each command reaches one.
const GROUP: &str = "hypercode";

impl api::Headers for Headers {
    fn header(&self, name: &str) -> Option<&str> {
        self.get(name)
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Takes commands until `stop`, then ends when those that were begun are answered.
pub(super) async fn serve<B: Bus + Clone>(
    service: Arc<Service>,
    bus: B,
    limits: Limits,
    stop: CancellationToken,
) {
    let (slots, begun) = (Arc::new(Semaphore::new(limits.commands_max)), TaskTracker::new());
    let taking = async {
        loop {
            let mut commands = subscribe(&bus, &limits).await;
            while let Some(message) = commands.next().await {
                let (service, bus, slots) = (Arc::clone(&service), bus.clone(), Arc::clone(&slots));
                begun.spawn(async move {
                    let answer = match slots.try_acquire() {
                        Ok(_slot) => answer(&service, &message).await,
                        Err(_) => respond(Err(busy(limits.commands_max))),
                    };
                    send(&bus, message.reply, answer).await;
                });
            }
        }
    };
    stop.run_until_cancelled(taking).await;
    begun.close();
    begun.wait().await;
}

async fn subscribe(bus: &impl Bus, limits: &Limits) -> Subscription {
    let pattern: nats::Pattern = nats::subject::COMMANDS.parse().expect("the pattern is legal");
    loop {
        match bus.subscribe(pattern.clone(), Some(GROUP)).await {
            Ok(subscription) => return subscription,
            Err(error) => tracing::debug!(%error, "commands cannot be taken yet"),
        }
        tokio::time::sleep(Duration::from_millis(limits.retry_ms)).await;
    }
}

fn busy(most: usize) -> Refusal {
    let detail = format!("{most} commands are being carried out, and more are not taken at once");
    Problem::new(ProblemKind::Busy, detail).into()
}

/// What is answered to a command.
async fn answer(service: &Service, message: &Message) -> Answer {
    let Some(operation) = operation(&message.subject) else {
        let detail =
            format!("there is no command at `{}`; `docs/nats.md` lists what there is", message.subject);
        return respond(Err(Problem::new(ProblemKind::NotFound, detail).into()));
    };
    let limit = service.limit(operation.pace).unwrap_or(Duration::MAX);
    let outcome = tokio::time::timeout(limit, perform(service, operation, message)).await;
    respond(outcome.unwrap_or_else(|_| Err(late(limit))).map(|done| (operation.creates, done)))
}

/// The operation at a subject, `hypercode.cmd.<entity>.<verb>`.
fn operation(subject: &Subject) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| Subject::of_command(operation.entity, operation.verb) == *subject)
}

async fn perform(
    service: &Service,
    operation: &'static Operation,
    message: &Message,
) -> Result<Done, Refusal> {
    let admitted = service.admit(&message.headers, operation.permission).await?;
    service.check_size(message.body.len())?;
    let media_type = message.headers.get("Content-Type").unwrap_or("application/json");
    let request = api::Request {
        media_type: Some(api::media_type(media_type)),
        fields: Vec::new(),
        body: message.body.clone(),
    };
    service.perform(operation, admitted, request).await
}

/// An answer, before it has somewhere to go.
struct Answer {
    status: u16,
    problem: Option<String>,
    media_type: &'static str,
    body: Vec<u8>,
}

fn respond(outcome: Result<(bool, Done), Refusal>) -> Answer {
    let (status, problem, media_type, body) = match outcome {
        Ok((creates, done)) => {
            let status = if creates { 201 } else { 200 };
            (status, None, "application/json", serde_json::to_vec(&done))
        }
        Err(refusal) => {
            let (status, details) = (refusal.status(), refusal.details());
            (status, Some(details.title.clone()), PROBLEM_MEDIA_TYPE, serde_json::to_vec(&details))
        }
    };
    Answer { status, problem, media_type, body: body.expect("an answer has only keys that are text") }
}

async fn send(bus: &impl Bus, reply: Option<Subject>, answer: Answer) {
    // Who named no place for an answer wants none.
    let Some(reply) = reply else { return };
    let mut message = Message::new(reply, answer.body)
        .with("Content-Type", answer.media_type)
        .with("Hypercode-Status", answer.status.to_string());
    if let Some(problem) = answer.problem {
        // What clients of NATS services look for.
        message = message
            .with("Nats-Service-Error", problem)
            .with("Nats-Service-Error-Code", answer.status.to_string());
    }
    if let Err(error) = bus.publish(message).await {
        tracing::warn!(%error, "the answer to a command could not be sent");
    }
}
