pub(super) mod world;

use serde_json::json;
use tempfile::TempDir;

use self::world::{Home, World};
use super::*;
use crate::domain::message::{self, Body, MessageId, Party};
use crate::domain::spending::{Spent, Usage};
use crate::domain::task::{self, Ended, RetryPolicy};
use crate::domain::{DomainEvent, agent, crew, pool, profile};
use crate::event::{Meta, NewEvent, Principal};
use crate::id::{
    AgentId, CommandId, CrewId, Digest, EntityKind, Incarnation, PoolId, SandboxId, StreamId, TaskId, Tenant,
    Timestamp,
};
use crate::store::postgres::server::{Server, execute};
use crate::store::{AppendRequest, Expected, Memory};
use crate::supervision::{ChildKind, Policy};

const PATIENCE: Duration = Duration::from_secs(30);

/// Each of these tests in each kind of home.
macro_rules! in_every_home {
    ($($test:ident),+ $(,)?) => {
        mod in_a_file {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Home::file().await).await;
            })+
        }
        mod in_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Home::common().await).await;
            })+
        }
    };
}

mod rebuild;

in_every_home! {
    entities_are_shown_as_their_events_left_them,
    messages_profiles_and_audit_are_shown,
    lists_come_in_pages_from_either_end_and_one_tenant_sees_nothing_of_another,
    rp_1_a_rebuild_from_zero_gives_the_same_bytes,
    an_event_that_one_projection_cannot_read_stops_that_one_alone,
    what_a_newer_program_wrote_stops_what_reads_it,
    views_go_on_after_a_restart_and_are_made_anew_when_they_are_of_another_log,
    a_wait_ends_when_the_view_is_there_or_the_time_is_over,
    snapshots_are_kept_by_stream_decider_and_schema,
    what_no_text_of_a_database_may_hold_is_shown_all_the_same,
}

async fn entities_are_shown_as_their_events_left_them(home: Home) {
    let world = World::new().await;
    let views = world.views(&home, 1_000).await;
    let tenant = &world.tenant;

    let crew = views.crew(tenant, &world.crew).await.expect("read").expect("it is there");
    assert_eq!((crew.state.status, crew.agents_ready, crew.tasks_open), (crew::Status::Running, 2, 1));
    let usage = Usage { input_tokens: 7, output_tokens: 2, cost_micros: 5 };
    assert_eq!(crew.spent, Spent { messages: 1, usage });
    assert_eq!((crew.lifespan.created, crew.lifespan.updated), (Position(3), Position(12)));
    let held = views.in_hand(tenant, &world.agents[1]).await.expect("read");
    assert_eq!(held.iter().map(|task| &task.id).collect::<Vec<_>>(), [&world.task]);
    assert_eq!(views.in_hand(tenant, &world.agents[0]).await, Ok(Vec::new()), "its attempt is over");
    let agents =
        views.agents(tenant, AgentFilter::default(), PageRequest::default()).await.expect("read").items;
    assert_eq!(agents.iter().map(AgentView::activity).collect::<Vec<_>>(), ["ready", "busy"]);
    let task = views.task(tenant, &world.task).await.expect("read").expect("it is there");
    assert_eq!((task.state.status, task.state.attempts), (task::Status::Working, 2));

    world.task_completes().await;
    world.caught_up(&views).await;
    let task = views.task(tenant, &world.task).await.expect("read").expect("it is there");
    assert_eq!((task.state.status, task.state.output), (task::Status::Completed, Some(json!([0.1]))));
    let attempts = views.attempts(tenant, &world.task).await.expect("read");
    let outcomes: Vec<_> =
        attempts.iter().map(|a| (a.number, a.agent.clone(), a.outcome.as_deref())).collect();
    let [first, second] = world.agents.clone();
    assert_eq!(outcomes, [(1, first, Some("crash")), (2, second, Some("completed"))]);
    assert_eq!(attempts[0].detail.as_deref(), Some("signal 9"));
    assert!(attempts[1].ended_at > Some(attempts[1].started_at));
    assert_eq!(
        views.task_counts(tenant, Some(&world.crew)).await.expect("read"),
        [("completed".to_owned(), 1)].into()
    );
    let agent = views.agent(tenant, &world.agents[1]).await.expect("read").expect("it is there");
    assert_eq!((agent.activity(), agent.attempts_live), ("ready", 0));
}

async fn messages_profiles_and_audit_are_shown(home: Home) {
    let world = World::new().await;
    let views = world.views(&home, 1_000).await;
    let (tenant, page) = (&world.tenant, PageRequest::default());

    let messages = views.messages(tenant, MessageFilter::default(), page).await.expect("read").items;
    assert_eq!(messages.len(), 1);
    assert_eq!((&messages[0].sent.message, &*messages[0].sent.to), (&world.message, "editor"));
    let deliveries: Vec<_> =
        messages[0].deliveries.iter().map(|delivery| (&*delivery.recipient, &*delivery.status)).collect();
    assert_eq!(deliveries, [(world.agents[1].as_str(), "taken"), ("member:editor", "pending")]);

    let newest = views.profiles(tenant, page).await.expect("read").items;
    assert_eq!(newest.iter().map(|profile| profile.applied.version).collect::<Vec<_>>(), [2]);
    let first = views.profile(tenant, "analyst", Some(1)).await.expect("read").expect("it is there");
    assert_eq!(first.applied.version, 1);
    assert_eq!(views.profile(tenant, "analyst", Some(3)).await, Ok(None));
    assert_eq!(views.profile(tenant, "analyst", None).await.expect("read"), Some(newest[0].clone()));

    let pools = views.pools(tenant, page).await.expect("read").items;
    assert_eq!(pools.iter().map(|pool| pool.state.count(pool::Phase::Ready)).collect::<Vec<_>>(), [1]);
    assert_eq!(views.pool(tenant, "small").await.expect("read"), Some(pools[0].clone()));
    assert_eq!(views.pool(tenant, "large").await, Ok(None));
    assert_eq!(views.unfinished().await.expect("read").pools, [pools[0].id.clone()]);

    let denied = AuditFilter { outcome: Some(Outcome::Denied), ..AuditFilter::default() };
    let denied = views.audit(tenant, denied, page).await.expect("read").items;
    assert_eq!(denied.len(), 1);
    let rule = "analyst[0] to scout, 3 times (no_channel): no channel leads from analyst to scout";
    assert_eq!(denied[0].summary, rule);
    let of_crew = AuditFilter { crew: Some(world.crew.clone()), ..AuditFilter::default() };
    let of_crew = views.audit(tenant, of_crew, page).await.expect("read").items;
    let head = world.store.head().await.expect("head").position.0;
    assert_eq!(
        of_crew.len() as u64,
        head - 5,
        "all but the profiles' and the pool's events belong to the crew"
    );
}

async fn lists_come_in_pages_from_either_end_and_one_tenant_sees_nothing_of_another(home: Home) {
    let world = World::new().await;
    let views = world.views(&home, 1_000).await;
    let stranger: Tenant = "stranger".parse().expect("a tenant");
    let all: Vec<u64> = (1..=world.store.head().await.expect("head").position.0).collect();
    for (direction, reversed) in [(Direction::Oldest, false), (Direction::Newest, true)] {
        let mut page = PageRequest { items_max: 5, cursor: None, direction };
        let mut seen = Vec::new();
        loop {
            let part = views.audit(&world.tenant, AuditFilter::default(), page).await.expect("read");
            assert!(part.items.len() <= 5);
            seen.extend(part.items.iter().map(|entry| entry.position.0));
            page.cursor = part.next;
            if part.next.is_none() {
                break;
            }
        }
        if reversed {
            seen.reverse();
        }
        assert_eq!(seen, all);
        assert_eq!(views.audit(&stranger, AuditFilter::default(), page).await.expect("read").items, []);
        assert_eq!(views.crews(&stranger, CrewFilter::default(), page).await.expect("read").items, []);
        let of_crew = TaskFilter { crew: Some(world.crew.clone()), ..TaskFilter::default() };
        assert_eq!(views.tasks(&stranger, of_crew, page).await.expect("read").items, []);
    }
    assert_eq!(views.task(&stranger, &world.task).await, Ok(None));
    assert_eq!(views.attempts(&stranger, &world.task).await, Ok(Vec::new()));
    let working = TaskFilter { status: Some(task::Status::Working), ..TaskFilter::default() };
    assert_eq!(
        views.tasks(&world.tenant, working, PageRequest::default()).await.expect("read").items.len(),
        1
    );
    let named = CrewFilter { name: Some("other".to_owned()), ..CrewFilter::default() };
    assert_eq!(views.crews(&world.tenant, named, PageRequest::default()).await.expect("read").items, []);
}

/// RP-1, whatever the batches were.
async fn rp_1_a_rebuild_from_zero_gives_the_same_bytes(home: Home) {
    let (world, other) = (World::new().await, home.another().await);
    world.task_completes().await;
    let views = world.views(&home, 1_000).await;
    let dump = views.dump().await.expect("dumped");
    assert!(dump.contains("tasks: ") && dump.contains("audit: "), "{dump}");
    let one_by_one = world.views(&other, 1).await;
    assert_eq!(one_by_one.dump().await.expect("dumped"), dump);
    for name in [None, Some("audit"), Some("tasks")] {
        views.rebuild(name).expect("it begins");
        views.rebuilt().await.expect("it is done");
        assert_eq!(views.dump().await.expect("dumped"), dump);
    }
    let unknown = views.rebuild(Some("nothing"));
    assert!(matches!(unknown, Err(ViewError::UnknownProjection { .. })));
}

async fn an_event_that_one_projection_cannot_read_stops_that_one_alone(home: Home) {
    let world = World::new().await;
    let poisoned = world.store.head().await.expect("head").position.next();
    let malformed = NewEvent { kind: "agent_draining".into(), schema: 1, payload: r#"{"why":1}"#.into() };
    world.append(EntityKind::Agent, world.agents[0].as_str(), vec![malformed]).await;
    world.task_completes().await;

    let views = world.views(&home, 1_000).await;
    let head = world.store.head().await.expect("head").position;
    for status in views.status().await.expect("read") {
        if status.name == "agents" {
            assert_eq!(status.position.next(), poisoned, "what came before is applied");
            let error = status.error.expect("it stopped");
            assert!(error.starts_with(&format!("event at position {poisoned}: ")), "{error}");
        } else {
            assert_eq!((status.position, status.error), (head, None), "{}", status.name);
        }
        assert_eq!(status.skipped, 0);
    }
    let stopped = views.stopped();
    assert_eq!(stopped.iter().map(|status| &*status.name).collect::<Vec<_>>(), ["agents"]);
    let agent = views.agent(&world.tenant, &world.agents[0]).await.expect("read").expect("it is there");
    assert_eq!(agent.state.status, agent::Status::Ready);
    let task = views.task(&world.tenant, &world.task).await.expect("read").expect("it is there");
    assert_eq!(task.state.status, task::Status::Completed);
    views.close().await;

    // What comes behind it is seen by those who pass it over.
    let draining =
        NewEvent { kind: "agent_draining".into(), schema: 1, payload: r#"{"reason":"enough"}"#.into() };
    world.append(EntityKind::Agent, world.agents[1].as_str(), vec![draining]).await;
    let scratch = tempfile::tempdir().expect("a directory");
    let options = Options { passes_over: true, ..Options::default() };
    let views = Views::open(scratch.path(), Arc::new(world.store.clone()), options).await.expect("opened");
    world.caught_up(&views).await;
    assert_eq!(views.stopped(), []);
    let agent = views.agent(&world.tenant, &world.agents[1]).await.expect("read").expect("it is there");
    assert_eq!(agent.state.status, agent::Status::Draining);
    views.close().await;
}

/// An older program shows nothing of an entity of which it does not know all, says so, and goes on with the rest.
async fn what_a_newer_program_wrote_stops_what_reads_it(home: Home) {
    let stops: [(EntityKind, NewEvent, &[&str]); 4] = [
        (EntityKind::Task, of_tomorrow("task_celebrated", 1), &["tasks", "attempts", "spending"]),
        (EntityKind::Crew, of_tomorrow("crew_paused", 99), &["crews"]),
        (EntityKind::Outbox, of_tomorrow("message_sung", 1), &["messages", "spending"]),
        (EntityKind::Profile, of_tomorrow("profile_framed", 1), &["profiles"]),
    ];
    for (kind, event, stopped) in stops {
        let world = World::new().await;
        let position = world.store.head().await.expect("head").position.next();
        world.append(kind, "of-tomorrow", vec![event.clone()]).await;
        world.task_completes().await;
        let views = world.views(&home, 1_000).await;
        let head = world.store.head().await.expect("head").position;
        for status in views.status().await.expect("read") {
            if !stopped.contains(&&*status.name) {
                assert_eq!((status.position, status.error), (head, None), "{}", status.name);
                continue;
            }
            assert!(status.is_outdated() && status.position.next() == position, "{status:?}");
            let error = status.error.expect("it stopped");
            assert!(error.starts_with(&format!("event at position {position}: ")), "{error}");
            assert!(error.contains(&*event.kind) && error.ends_with("upgrade the platform"), "{error}");
        }
        let told: Vec<_> = views.stopped().into_iter().map(|status| status.name).collect();
        assert_eq!(told.len(), stopped.len(), "{told:?}");
        // That something happened, and what it is called, is on record for whoever reads the audit.
        let page = PageRequest { items_max: PAGE_ITEMS_MAX, ..PageRequest::default() };
        let lines = views.audit(&world.tenant, AuditFilter::default(), page).await.expect("read").items;
        let line = lines.iter().find(|line| line.position == position).expect("it has a line");
        assert_eq!((&*line.kind, &*line.summary), (&*event.kind, &*event.kind));
        views.close().await;
    }
}

fn of_tomorrow(kind: &str, schema: u16) -> NewEvent {
    NewEvent { kind: kind.into(), schema, payload: "{}".into() }
}

async fn views_go_on_after_a_restart_and_are_made_anew_when_they_are_of_another_log(home: Home) {
    let world = World::new().await;
    let views = world.views(&home, 1_000).await;
    let dump = views.dump().await.expect("dumped");
    views.close().await;

    let shorter = World { store: Memory::new(), ..World::new().await };
    let applied = NewEvent { kind: "task_retried".into(), schema: 1, payload: "{}".into() };
    shorter.append(EntityKind::Task, "other", vec![applied]).await;
    let views = shorter.views(&home, 1_000).await;
    assert!(!views.dump().await.expect("dumped").contains("code-health"), "they were ahead of the log");
    views.close().await;

    if let Home::File(directory) = &home {
        std::fs::write(directory.path().join(VIEWS_FILE), "no database").expect("written");
    }
    let views = world.views(&home, 1_000).await;
    assert_eq!(views.dump().await.expect("dumped"), dump);
    views.close().await;

    world.task_completes().await;
    let views = world.views(&home, 1_000).await;
    assert!(views.dump().await.expect("dumped").contains("completed"));
}

async fn a_wait_ends_when_the_view_is_there_or_the_time_is_over(home: Home) {
    let world = World::new().await;
    let views = world.views(&home, 1_000).await;
    let head = world.store.head().await.expect("head").position;
    let behind = views.wait_for(head.next(), Duration::from_millis(1)).await;
    assert_eq!(behind, Err(ViewError::Behind { wanted: head.next(), reached: head }));
    let retried = NewEvent { kind: "task_retried".into(), schema: 1, payload: "{}".into() };
    world.append(EntityKind::Task, "other", vec![retried]).await;
    world.store.faults().fail_reads(3);
    let waited = views.wait_for(head.next(), PATIENCE).await;
    waited.expect("it comes in spite of reads that failed");
    views.close().await;
    assert!(views.rebuild(None).is_err());
}

async fn snapshots_are_kept_by_stream_decider_and_schema(home: Home) {
    use crate::domain::Decider;
    use crate::domain::agent::Agent;
    use crate::snapshot::{self, Saved, Snapshot, SnapshotStore};

    let world = World::new().await;
    let views = world.views(&home, 1_000).await;
    let stream = StreamId::new(EntityKind::Agent, world.agents[0].as_str());
    let events = world.store.read_stream(&stream, crate::Version(0), 100).await.expect("read");
    let fold = |state: agent::State, events: &[Recorded]| {
        let decoded =
            events.iter().map(|e| agent::Event::decode(&e.kind, e.schema, &e.payload).expect("decoded"));
        decoded.fold(state, |state, event| Agent::evolve(state, &event))
    };
    assert_eq!(snapshot::load::<Agent>(&views, &stream).await, None);
    for version in [2, 3, 1] {
        let state = fold(agent::State::default(), &events[..version]);
        let (version, hash) = (crate::Version(version as u64), events[version - 1].hash);
        snapshot::save::<Agent>(&views, &stream, Saved { version, hash, state: &state }).await;
    }
    let Saved { version, hash, state } = snapshot::load::<Agent>(&views, &stream).await.expect("it is there");
    assert_eq!((version, hash), (crate::Version(3), events[2].hash), "the newest stays");
    assert_eq!(
        fold(state, &events[3..]),
        fold(agent::State::default(), &events),
        "snapshot and tail give the whole"
    );

    assert_eq!(views.load(&stream, "agent", Agent::STATE_SCHEMA + 1).await, None);
    let unreadable = Snapshot { version: crate::Version(4), hash: events[3].hash, state: "{".to_owned() };
    views.save(&stream, "agent", Agent::STATE_SCHEMA, unreadable).await;
    assert_eq!(snapshot::load::<Agent>(&views, &stream).await, None, "what cannot be read is ignored");
}

/// A handler may say U+0000 in what becomes a detail and a summary.
async fn what_no_text_of_a_database_may_hold_is_shown_all_the_same(home: Home) {
    let world = World::new().await;
    let ended = task::AttemptEnded {
        attempt: 2,
        fence: 2,
        ended: Ended::Crash,
        detail: "nul \0 and \u{10FFFF}".to_owned(),
        retry_at_ms: None,
    };
    world.happens(EntityKind::Task, world.task.as_str(), [task::Event::AttemptEnded(ended)]).await;
    let views = world.views(&home, 1_000).await;
    let attempts = views.attempts(&world.tenant, &world.task).await.expect("read");
    let detail = attempts[1].detail.as_deref().expect("a detail");
    assert_eq!(detail, "nul \u{FFFD} and \u{10FFFF}");
    assert!(views.status().await.expect("read").iter().all(|status| status.error.is_none()));
}

/// RP-1, whatever the views are kept in.
#[tokio::test]
async fn rp_1_every_home_holds_the_same_bytes() {
    let world = World::new().await;
    world.task_completes().await;
    let (file, common) = (Home::file().await, Home::common().await);
    let dump = world.views(&file, 7).await.dump().await.expect("dumped");
    assert_eq!(world.views(&common, 1_000).await.dump().await.expect("dumped"), dump);
}

/// RP-1: nothing was applied twice or left out.
#[track_caller]
fn assert_same(found: &str, expected: &str) {
    let different = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert_eq!(different, None);
    assert_eq!(found.len(), expected.len());
}

/// Several nodes follow one log into one database: one writes, all see, and another goes on when it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_node_writes_and_when_it_ends_another_goes_on() {
    let (world, home) = (World::new().await, Home::common().await);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(world.views(&home, 2).await);
    }
    while let Some(node) = nodes.pop() {
        world.task_is_talked_about(20).await;
        for other in &nodes {
            world.caught_up(other).await;
        }
        if let Some(other) = nodes.first() {
            other.rebuild(Some("audit")).expect("any node may begin it");
            other.rebuilt().await.expect("it is done");
        }
        node.close().await;
    }
    let dump = world.views(&home, 1_000).await.dump().await.expect("dumped");
    let fresh = world.views(&Home::file().await, 1_000).await.dump().await.expect("dumped");
    assert_same(&dump, &fresh);
}

/// A writer whose session was ended writes nothing more under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_that_are_terminated_lose_and_double_nothing() {
    let (world, home) = (World::new().await, Home::common().await);
    let Home::Common(url) = &home else { unreachable!("it is common") };
    let nodes = [world.views(&home, 2).await, world.views(&home, 2).await];
    for _ in 0..10 {
        world.task_is_talked_about(20).await;
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        execute(url, others).await;
    }
    for node in &nodes {
        world.caught_up(node).await;
    }
    let fresh = world.views(&Home::file().await, 1_000).await.dump().await.expect("dumped");
    assert_same(&nodes[0].dump().await.expect("dumped"), &fresh);
}
