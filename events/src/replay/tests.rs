//! Replay beside the views: what is folded is what queries would have said.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::event::Recorded;
use crate::id::{EntityKind, Position, StreamId, Tenant};
use crate::projection::{self, AgentFilter, CrewFilter, PageRequest, TaskFilter, Views};
use crate::store::EventStore;
use crate::store::conformance::log;
use crate::store::{AppendRequest, Expected, Memory};

/// A store that has only the first events of another.
async fn prefix(events: &[Recorded]) -> Memory {
    let store = Memory::new();
    for event in events {
        let request = AppendRequest {
            stream: event.stream.clone(),
            expected: Expected::Any,
            command_id: crate::id::CommandId::fresh(),
            command_digest: None,
            epoch: None,
            meta: event.meta.clone(),
            recorded_at: event.recorded_at,
            events: vec![crate::NewEvent {
                kind: Arc::clone(&event.kind),
                schema: event.schema,
                payload: Arc::clone(&event.payload),
            }],
            reserve: Vec::new(),
            release: Vec::new(),
        };
        store.append(request).await.expect("appended");
    }
    store
}

/// RP-1: at every position, the registry is what views that were made up to there show.
#[tokio::test]
async fn rp_1_the_registry_was_what_the_views_showed() {
    let events = log(&crate::projection::world().await).await;
    assert!(events.len() > 10, "something of everything happens");
    let mut registry = Registry::default();
    for (n, event) in events.iter().enumerate() {
        registry.apply(event).expect("known events");
        assert_eq!(registry.position(), Position(n as u64 + 1));
        let dir = tempfile::tempdir().expect("a directory");
        let store = Arc::new(prefix(&events[..=n]).await);
        let views = Views::open(dir.path(), store, projection::Options::default()).await.expect("views");
        views.wait_for(event.position, Duration::from_secs(30)).await.expect("made");
        let (tenant, page) = (Tenant::default(), PageRequest { items_max: 1_000, ..PageRequest::default() });
        let crews = views.crews(&tenant, CrewFilter::default(), page).await.expect("crews").items;
        let agents = views.agents(&tenant, AgentFilter::default(), page).await.expect("agents").items;
        let tasks = views.tasks(&tenant, TaskFilter::default(), page).await.expect("tasks").items;
        let pools = views.pools(&tenant, page).await.expect("pools").items;
        let profiles = views.profiles(&tenant, page).await.expect("profiles").items;
        assert_eq!(registry.crews(), crews, "crews at {}", event.position);
        assert_eq!(registry.agents(), agents, "agents at {}", event.position);
        assert_eq!(registry.tasks(), tasks, "tasks at {}", event.position);
        assert_eq!(registry.pools(), pools, "pools at {}", event.position);
        assert_eq!(registry.profiles().count(), profiles.len(), "profiles at {}", event.position);
        views.close().await;
    }
    assert_eq!(registry.skipped(), 0);
}

#[tokio::test]
async fn what_a_newer_version_wrote_of_what_is_shown_is_refused_and_counted() {
    let events = log(&crate::projection::world().await).await;
    let of = |kind| events.iter().find(|event| event.stream.kind == kind).expect("one of everything").clone();
    let (task, message) = (of(EntityKind::Task), of(EntityKind::Outbox));
    let dreamt = |event: &Recorded| Recorded { kind: "dreamt".into(), ..event.clone() };
    let newer = Recorded { schema: 99, ..task.clone() };
    let mut registry = Registry::default();
    for event in [dreamt(&task), newer] {
        let refused = registry.apply(&event).expect_err("it is not known");
        assert!(refused.to_string().contains("upgrade the platform"), "{refused}");
    }
    assert_eq!(registry.skipped(), 2);
    registry.apply(&dreamt(&message)).expect("it is of nothing that is shown");
    assert_eq!((registry.skipped(), registry.position()), (2, message.position));
}

#[tokio::test]
async fn a_life_has_cause_and_effect() {
    let mut events = log(&crate::projection::world().await).await;
    let own = events.iter().position(|event| event.stream.kind == EntityKind::Task).expect("a task");
    let entity: StreamId = events[own].stream.clone();
    let after = events.last_mut().expect("events");
    after.stream = StreamId::new(EntityKind::Platform, "elsewhere");
    after.payload = "{}".into();
    after.meta.causation_id = Some(format!("{entity}@1").into());
    let mut life = Life::of(entity.clone());
    let steps: Vec<Step> = events.iter().filter_map(|event| life.step(event)).collect();
    let of = |relation| steps.iter().filter(move |step| step.relation == relation);
    assert_eq!(of(Relation::Own).count(), events.iter().filter(|event| event.stream == entity).count());
    let effect = of(Relation::Effect).next().expect("an effect");
    assert_eq!(effect.cause.as_ref().map(|cause| cause.0), Some(events[own].position));
    assert!(of(Relation::Own).any(|step| step.since_ms >= 1_000), "the world's clock ticks by seconds");
}
