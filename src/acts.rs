//! Administrative acts and denials, written down as events of the platform itself.

use events::api::{Caller, Problem};
use events::domain::DomainEvent as _;
use events::domain::platform::Event;
use events::store::{AppendRequest, Appended, Expected};
use events::{EntityKind, EventStore, Meta, StreamId, Timestamp};

/// Appends `event` to the stream of this part of the platform, in the name of `caller`.
///
/// # Errors
/// When it did not become durable: then the act itself must not be done.
pub(crate) async fn record(
    store: &dyn EventStore,
    caller: &Caller,
    part: &str,
    event: impl Into<Event>,
) -> Result<Appended, Problem> {
    let request = AppendRequest {
        stream: StreamId::new(EntityKind::Platform, part),
        expected: Expected::Any,
        command_id: caller.command_id(),
        command_digest: None,
        epoch: None,
        meta: Meta {
            tenant: caller.tenant.clone(),
            principal: caller.principal.clone(),
            correlation_id: None,
            causation_id: None,
            traceparent: caller.traceparent.clone(),
        },
        recorded_at: Timestamp::now(),
        events: vec![event.into().encode()],
        reserve: Vec::new(),
        release: Vec::new(),
    };
    Ok(store.append(request).await?)
}
