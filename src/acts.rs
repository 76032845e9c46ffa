//! Administrative acts and denials, written down as events of the platform itself.

use events::api::{Caller, Problem, ProblemKind};
use events::domain::DomainEvent as _;
use events::domain::platform::{AuditExported, Event};
use events::store::{AppendRequest, Appended, Expected};
use events::{Digest, EntityKind, EventStore, Principal, StreamId, Tenant, Timestamp};

/// Appends `event` to the stream of this part of the platform, in the name of `caller`.
///
/// # Errors
/// When it did not become durable: then the act itself must not be done. So too when the caller's idempotency key was
/// used for anything else.
pub(crate) async fn record(
    store: &dyn EventStore,
    caller: &Caller,
    part: &str,
    event: impl Into<Event>,
) -> Result<Appended, Problem> {
    let event = event.into().encode();
    let content = format!("{part} {} {}", event.kind, event.payload);
    let request = AppendRequest {
        stream: StreamId::new(EntityKind::Platform, part),
        expected: Expected::Any,
        command_id: caller.command_id(),
        command_digest: Some(Digest::of(content.as_bytes())),
        epoch: None,
        meta: caller.meta(),
        recorded_at: Timestamp::now(),
        events: vec![event],
        reserve: Vec::new(),
        release: Vec::new(),
    };
    Ok(store.append(request).await?)
}

/// Who runs a command on the data directory itself.
pub(crate) fn command_line() -> Caller {
    let user = std::env::var("USER").unwrap_or_default();
    Caller {
        tenant: Tenant::default(),
        principal: format!("user:{user}").parse().unwrap_or_else(|_| Principal::system("command-line")),
        idempotency_key: None,
        traceparent: None,
    }
}

/// Records that evidence is taken out, before any of it is read.
///
/// # Errors
/// When the range is not in the log, and as [`record`].
pub(crate) async fn record_export(
    store: &dyn EventStore,
    caller: &Caller,
    exported: AuditExported,
) -> Result<Appended, Problem> {
    let head = store.head().await?.position.0;
    let AuditExported { from, to, .. } = exported;
    if from == 0 || to.is_some_and(|to| to < from || to > head) {
        let detail = format!("`from` and `to`: expected positions from 1 to {head}, in order");
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    record(store, caller, "audit", exported).await
}
