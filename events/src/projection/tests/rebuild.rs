//! Rebuilds beside what serves: whoever reads meanwhile sees all rows, at every moment.

use std::sync::atomic::{AtomicBool, Ordering};

use super::world::{Home, World};
use super::*;

in_every_home! {
    who_reads_during_a_rebuild_sees_everything,
    damaged_rows_are_made_good,
    an_event_that_cannot_be_read_ends_the_rebuild_and_leaves_the_old_rows,
    a_rebuild_that_is_cut_off_leaves_the_old_rows_and_no_others,
    a_projection_that_had_stopped_goes_on_after_its_rebuild,
}

/// Reads until it is told to stop, and says how often it did.
async fn read(views: Views, tenant: Tenant, is_over: Arc<AtomicBool>) -> u64 {
    let (mut looks, mut least) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        let page = PageRequest { items_max: PAGE_ITEMS_MAX, ..PageRequest::default() };
        let agents = views.agents(&tenant, AgentFilter::default(), page).await.expect("read").items.len();
        let tasks = views.tasks(&tenant, TaskFilter::default(), page).await.expect("read").items.len();
        let crews = views.crews(&tenant, CrewFilter::default(), page).await.expect("read").items;
        assert_eq!((agents, tasks, crews.len()), (2, 1, 1));
        assert_eq!((crews[0].agents_ready, crews[0].state.status), (2, crew::Status::Running));
        let newest = PageRequest { items_max: 1, cursor: None, direction: Direction::Newest };
        let audit = views.audit(&tenant, AuditFilter::default(), newest).await.expect("read").items;
        let newest = audit.first().expect("the audit is never empty").position.0;
        assert!(newest >= least, "{newest} was read after {least}");
        least = newest;
        looks += 1;
    }
    looks
}

async fn who_reads_during_a_rebuild_sees_everything(home: Home) {
    let world = World::new().await;
    world.task_is_talked_about(300).await;
    let views = world.views(&home, 50).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let reading: Vec<_> = (0..3)
        .map(|_| tokio::spawn(read(views.clone(), world.tenant.clone(), Arc::clone(&is_over))))
        .collect();
    for name in [None, Some("audit"), None, Some("agents")] {
        views.rebuild(name).expect("it begins");
        assert_eq!(views.rebuild(None), Err(ViewError::Busy));
        world.task_is_talked_about(60).await;
        views.rebuilt().await.expect("it is done");
        let rebuilding = views.rebuilding().expect("there was one");
        assert!(rebuilding.position.0 > 300 && rebuilding.ended == Some(Ok(())), "{rebuilding:?}");
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in reading {
        assert!(reader.await.expect("what it read was whole") > 0);
    }
    world.caught_up(&views).await;
    let fresh = world.views(&Home::file().await, 1_000).await.dump().await.expect("dumped");
    assert_same(&views.dump().await.expect("dumped"), &fresh);
}

async fn damaged_rows_are_made_good(home: Home) {
    let world = World::new().await;
    let views = world.views(&home, 1_000).await;
    let dump = views.dump().await.expect("dumped");
    home.execute("DELETE FROM agents").await;
    home.execute("UPDATE tasks SET status = 'failed'").await;
    assert_ne!(views.dump().await.expect("dumped"), dump);
    views.rebuild(Some("agents")).expect("it begins");
    views.rebuilt().await.expect("it is done");
    assert_ne!(views.dump().await.expect("dumped"), dump, "only the agents were made again");
    views.rebuild(None).expect("it begins");
    views.rebuilt().await.expect("it is done");
    assert_eq!(views.dump().await.expect("dumped"), dump);
}

/// An event that no version of the projection can read.
async fn poison(world: &World) {
    let malformed = NewEvent { kind: "agent_draining".into(), schema: 1, payload: r#"{"why":1}"#.into() };
    world.append(EntityKind::Agent, world.agents[0].as_str(), vec![malformed]).await;
}

async fn an_event_that_cannot_be_read_ends_the_rebuild_and_leaves_the_old_rows(home: Home) {
    let world = World::new().await;
    poison(&world).await;
    world.task_completes().await;
    let views = world.views(&home, 1_000).await;
    let dump = views.dump().await.expect("dumped");
    views.rebuild(None).expect("it begins");
    let ended = views.rebuilt().await;
    assert!(matches!(&ended, Err(ViewError::Stopped { name, .. }) if name == "agents"), "{ended:?}");
    assert_eq!(views.dump().await.expect("dumped"), dump);
    // The others can be made again all the same.
    views.rebuild(Some("tasks")).expect("it begins");
    views.rebuilt().await.expect("it is done");
    assert_eq!(views.dump().await.expect("dumped"), dump);
}

async fn a_rebuild_that_is_cut_off_leaves_the_old_rows_and_no_others(home: Home) {
    let world = World::new().await;
    world.task_is_talked_about(40).await;
    let views = world.views(&home, 1).await;
    let dump = views.dump().await.expect("dumped");
    views.rebuild(None).expect("it begins");
    while views.rebuilding().is_some_and(|rebuilding| rebuilding.position.0 < 5) {
        tokio::task::yield_now().await;
    }
    views.close().await;
    assert!(views.rebuilt().await.is_err(), "it did not come to its end");
    let views = world.views(&home, 1_000).await;
    assert_eq!(views.dump().await.expect("dumped"), dump);
    views.rebuild(None).expect("it begins");
    views.rebuilt().await.expect("it is done");
    assert_eq!(views.dump().await.expect("dumped"), dump);
}

/// As after the program was mended: here it is the row that was damaged.
async fn a_projection_that_had_stopped_goes_on_after_its_rebuild(home: Home) {
    let world = World::new().await;
    let views = world.views(&home, 1_000).await;
    home.execute("UPDATE agents SET state = 'nothing that can be read'").await;
    home.execute("UPDATE projections SET error = 'it stopped', position = 3 WHERE name = 'agents'").await;
    world.task_completes().await;
    views.rebuild(Some("agents")).expect("it begins");
    views.rebuilt().await.expect("it is done");
    world.task_is_talked_about(3).await;
    world.caught_up(&views).await;
    let fresh = world.views(&Home::file().await, 1_000).await.dump().await.expect("dumped");
    assert_same(&views.dump().await.expect("dumped"), &fresh);
    assert!(views.status().await.expect("read").iter().all(|status| status.error.is_none()));
}
