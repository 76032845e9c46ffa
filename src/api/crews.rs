//! Which crew a text means.

use events::api::{Caller, Problem, ProblemKind};
use events::domain::DomainEvent;
use events::domain::crew::{self, name_reservation};
use events::domain::task;
use events::{CrewId, EntityKind, EventStore, Position, Recorded, StreamId, Tenant, Version};
use identity::Sight;

use super::input::parse;
use super::problem::Refusal;
use super::service::Admitted;

/// The crew that a text names: by its id, or, while it lives, by its name, where whoever asks sees it.
pub(crate) async fn crew_id(
    store: &dyn EventStore,
    tenant: &Tenant,
    sight: &Sight,
    text: &str,
) -> Result<CrewId, Refusal> {
    if is_id(text) {
        return parse("crew", text);
    }
    let holder = store.find_reservation(&name_reservation(tenant, text)).await?;
    let crew = holder.map(|stream| parse::<CrewId>("crew", &stream.id)).transpose()?;
    match crew.filter(|crew| sight.takes_in(Some(crew))) {
        Some(crew) => Ok(crew),
        None => {
            let shown: String = text.chars().take(80).collect();
            let detail =
                format!("no living crew has the name `{shown}`; crews that ended are known by their id");
            Err(Problem::new(ProblemKind::NotFound, detail).into())
        }
    }
}

/// The crew that a command means. Under a key that the log knows that is the crew of the first time, whoever has its name by
/// now: what was answered once is answered again (ES-5).
pub(super) async fn meant(
    store: &dyn EventStore,
    Admitted { caller, sight, .. }: &Admitted,
    text: &str,
) -> Result<CrewId, Refusal> {
    if caller.idempotency_key.is_some()
        && !is_id(text)
        && let Some(crew) = of_the_first_time(store, caller, text).await?
    {
        return Ok(crew);
    }
    crew_id(store, &caller.tenant, sight, text).await
}

/// The tenant of a crew, if there is such a crew.
pub(super) async fn tenant_of(store: &dyn EventStore, crew: &CrewId) -> Result<Option<Tenant>, Refusal> {
    let begun = first(store, &StreamId::new(EntityKind::Crew, crew.as_str())).await?;
    Ok(match begun.as_ref().and_then(decoded) {
        Some(crew::Event::AssemblyStarted(started)) => Some(started.tenant),
        _ => None,
    })
}

fn is_id(text: &str) -> bool {
    text.starts_with("cr_")
}

/// The crew that the command under the caller's key was about, if there was one and this was its name.
async fn of_the_first_time(
    store: &dyn EventStore,
    caller: &Caller,
    name: &str,
) -> Result<Option<CrewId>, Refusal> {
    let Some(done) = store.find_command(caller.command_id()).await? else { return Ok(None) };
    let before = Position(done.position.0.saturating_sub(1));
    let Some(event) = store.read(before, 1).await?.pop() else { return Ok(None) };
    let crew = match event.stream.kind {
        EntityKind::Crew => event.stream.id.parse().ok(),
        EntityKind::Task => match first(store, &event.stream).await?.as_ref().and_then(decoded) {
            Some(task::Event::Submitted(submitted)) => Some(submitted.crew),
            _ => None,
        },
        _ => None,
    };
    let Some(crew): Option<CrewId> = crew else { return Ok(None) };
    let begun = first(store, &StreamId::new(EntityKind::Crew, crew.as_str())).await?;
    let had_the_name = match begun.as_ref().and_then(decoded) {
        Some(crew::Event::AssemblyStarted(started)) => started.name == name,
        _ => false,
    };
    Ok(had_the_name.then_some(crew))
}

pub(super) async fn first(store: &dyn EventStore, stream: &StreamId) -> Result<Option<Recorded>, Refusal> {
    Ok(store.read_stream(stream, Version(0), 1).await?.pop())
}

pub(super) fn decoded<E: DomainEvent>(event: &Recorded) -> Option<E> {
    E::decode(&event.kind, event.schema, &event.payload).ok()
}
