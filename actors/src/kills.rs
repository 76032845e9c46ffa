//! The kill switch of a tenant: an event that names all its crews, and then a kill of each, on whichever node it runs.

use std::collections::HashSet;
use std::sync::Arc;

use events::api::{Caller, Command, Commands, Problem, ProblemKind, Reply};
use events::domain::DomainEvent as _;
use events::domain::killed::Killed;
use events::domain::platform::{Event, TenantKilled};
use events::store::{AppendRequest, Expected};
use events::{CrewId, Digest, EntityKind, Position, Recorded, StreamId, Tenant, Version};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::core::Core;
use crate::route::Router;

/// The part of the platform's stream that holds them.
const PART: &str = "kills";
/// Crews of a tenant that are killed at the same time.
const AT_ONCE: usize = 64;
/// Events that are read at a time.
const READ_EVENTS: usize = 256;

fn decoded(event: &Recorded) -> Option<TenantKilled> {
    match Event::decode(&event.kind, event.schema, &event.payload) {
        Ok(Event::TenantKilled(ordered)) => Some(ordered),
        _ => None,
    }
}

/// Ends every crew that the tenant has at the moment. Once this is in the log it is carried out, whatever becomes of the
/// platform meanwhile: see [`finish`].
pub(crate) async fn kill_tenant(
    core: &Arc<Core>,
    router: &Router,
    caller: &Caller,
    tenant: &Tenant,
    reason: &str,
) -> Result<Reply, Problem> {
    if *tenant != caller.tenant {
        return Err(Problem::new(ProblemKind::NotFound, format!("tenant `{tenant}` does not exist")));
    }
    let mut crews = Vec::new();
    for crew in core.registry.unfinished(core.store.head().await?.position).await?.crews {
        let state = crate::entity::peek::<events::domain::crew::Crew>(core, crew.as_str()).await?;
        if state.started.as_ref().is_some_and(|started| started.tenant == *tenant) {
            crews.push(crew);
        }
    }
    if crews.is_empty() && core.store.find_command(caller.command_id()).await?.is_none() {
        let detail = format!("tenant `{tenant}` has no crew that lives");
        return Err(Problem::new(ProblemKind::NotFound, detail));
    }
    let killed =
        Killed { by: caller.principal.clone(), reason: reason.to_owned(), at_ms: core.clock.now().millis() };
    let (ordered, position) =
        order(core, caller, TenantKilled { tenant: tenant.clone(), crews, killed }).await?;
    kill_all(core, router, &ordered, ordered.crews.clone()).await?;
    let body = json!({ "tenant": ordered.tenant, "crews": ordered.crews });
    Ok(Reply { kind: EntityKind::Platform, id: tenant.to_string(), position, body })
}

/// Has it in the log. Under a key that was used before, what was decided then.
async fn order(
    core: &Core,
    caller: &Caller,
    ordered: TenantKilled,
) -> Result<(TenantKilled, Position), Problem> {
    let asked = json!([ordered.tenant, ordered.killed.reason]).to_string();
    let request = AppendRequest {
        stream: StreamId::new(EntityKind::Platform, PART),
        expected: Expected::Any,
        command_id: caller.command_id(),
        command_digest: Some(Digest::of(asked.as_bytes())),
        epoch: None,
        meta: caller.meta(),
        recorded_at: core.clock.now(),
        events: vec![Event::from(ordered.clone()).encode()],
        reserve: Vec::new(),
        release: Vec::new(),
    };
    let appended = core.store.append(request).await?;
    let before = Position(appended.position.0.saturating_sub(1));
    let first = match appended.repeated {
        true => core.store.read(before, 1).await?.first().and_then(decoded),
        false => Some(ordered),
    };
    let lost = || Problem::new(ProblemKind::KeyConflict, "the key was used for something else before");
    Ok((first.ok_or_else(lost)?, appended.position))
}

/// Kills these of the crews, each until it is answered.
async fn kill_all(
    core: &Arc<Core>,
    router: &Router,
    ordered: &TenantKilled,
    crews: Vec<CrewId>,
) -> Result<(), Problem> {
    let kills = stream::iter(crews).map(|crew| kill(core, router, ordered, crew));
    let outcomes: Vec<Result<(), Problem>> = kills.buffer_unordered(AT_ONCE).collect().await;
    outcomes.into_iter().collect()
}

async fn kill(core: &Core, router: &Router, ordered: &TenantKilled, crew: CrewId) -> Result<(), Problem> {
    let TenantKilled { tenant, killed, .. } = ordered;
    let caller = Caller {
        tenant: tenant.clone(),
        principal: killed.by.clone(),
        idempotency_key: Some(format!("tenant-kill.{}.{crew}", killed.at_ms).into()),
        traceparent: None,
    };
    let what = format!("the kill of crew `{crew}`");
    let command = Command::CrewKill { crew, reason: killed.reason.clone() };
    core.insist(what, || router.execute(&caller, command.clone())).await.map(drop)
}

/// Kills the crews that were to be killed with their tenant when the platform ended.
pub(crate) async fn finish(core: Arc<Core>) {
    let ordered = core.answered("which tenants were killed", || all(&core)).await;
    if ordered.is_empty() {
        return;
    }
    let unfinished = || async {
        let head = core.store.head().await?;
        core.registry.unfinished(head.position).await
    };
    let living: HashSet<CrewId> =
        core.answered("which crews live", unfinished).await.crews.into_iter().collect();
    let router = Router::new(Arc::clone(&core));
    for ordered in &ordered {
        let crews = ordered.crews.iter().filter(|crew| living.contains(*crew)).cloned().collect();
        if let Err(problem) = kill_all(&core, &router, ordered, crews).await {
            tracing::error!(tenant = %ordered.tenant, %problem, "not all crews of a tenant are killed");
        }
    }
}

async fn all(core: &Core) -> Result<Vec<TenantKilled>, Problem> {
    let (stream, mut after, mut found) = (StreamId::new(EntityKind::Platform, PART), Version(0), Vec::new());
    loop {
        let events = core.store.read_stream(&stream, after, READ_EVENTS).await?;
        let Some(last) = events.last() else { return Ok(found) };
        after = last.version;
        found.extend(events.iter().filter_map(decoded));
    }
}
