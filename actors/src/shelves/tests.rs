use events::domain::pool::{Applied, Claimed, Requested};
use events::domain::{Decider, pool};
use events::{Digest, Tenant};
use link::HandlerState;
use serde_json::json;

use crate::profiles::Wish;

use super::refill::Plan;
use super::*;

const PROFILE: Digest = Digest::ZERO;

fn sandbox(number: u32) -> SandboxId {
    SandboxId::derive(&["standby", &number.to_string()])
}

fn requested(number: u32) -> Event {
    let requested = Requested {
        sandbox: sandbox(number),
        template: Digest::ZERO,
        sandbox_kind: "process".to_owned(),
        isolation: "none".to_owned(),
        node: "node-1".to_owned(),
        at_ms: 0,
    };
    requested.into()
}

/// A pool with its shelf.
struct World {
    shelves: Arc<Shelves>,
    id: PoolId,
    state: State,
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        let id = PoolId::of(&Tenant::default(), "small");
        let mut world = Self { shelves: Arc::default(), id, state: State::default() };
        let parsed: PoolSpec = serde_json::from_value(spec.clone()).expect("a spec");
        let size = Size { min: parsed.size.min, max: parsed.size.max, target: parsed.size.target };
        world.happens(Applied {
            tenant: Tenant::default(),
            name: "small".to_owned(),
            version: 1,
            template: Digest::ZERO,
            size,
            prestart: None,
            spec,
            image: None,
        });
        world
    }

    fn happens(&mut self, event: impl Into<Event>) {
        let event = event.into();
        self.state = pool::Pool::evolve(std::mem::take(&mut self.state), &event);
        self.shelves.enroll(&self.id, &self.state);
        self.shelves.observe(&self.id, &event);
    }

    fn stands_by(&mut self, number: u32) {
        self.happens(requested(number));
        self.happens(pool::Ready { sandbox: sandbox(number), took_ms: 100 });
    }

    fn take(&self) -> Found {
        self.shelves.take(&self.id, PROFILE, Wish::default(), 0)
    }

    fn plan(&self) -> Plan {
        self.shelves.plan(&self.id, &self.state, 0)
    }
}

fn waiting(length: u32) -> serde_json::Value {
    json!({"size": {"min": 1, "max": 10}, "queue": {"whenEmpty": "wait", "length": length, "deadline": "5s"}})
}

#[test]
fn what_is_taken_is_nobody_elses_and_goes_back_unless_it_was_claimed() {
    let mut world = World::new(waiting(0));
    world.stands_by(1);
    let Found::Standby(taken) = world.take() else { panic!("one stands by") };
    assert!(matches!(world.take(), Found::Full));
    drop(taken);
    let Found::Standby(taken) = world.take() else { panic!("it was given back") };
    taken.claimed();
    assert!(matches!(world.take(), Found::Full));
    assert!(!world.shelves.stands_by(&sandbox(1)));
    assert_eq!(world.shelves.pool_of(&sandbox(1)), Some(world.id.clone()), "it is still the pool's");
}

#[test]
fn a_pool_is_kept_filled_by_one() {
    let world = World::new(waiting(0));
    let filler = world.shelves.filler(&world.id).expect("nobody fills it");
    assert!(world.shelves.filler(&world.id).is_none());
    drop(filler);
    assert!(world.shelves.filler(&world.id).is_some());
}

#[test]
fn what_was_made_for_an_earlier_version_is_not_found_any_more() {
    let mut world = World::new(waiting(0));
    world.stands_by(1);
    let mut applied = world.state.applied.clone().expect("it was applied");
    applied.template = Digest::of(b"another");
    let dirty = pool::Dirty { sandbox: sandbox(1), reason: "another template".to_owned() };
    for event in [Event::from(applied), Event::from(dirty)] {
        world.state = pool::Pool::evolve(std::mem::take(&mut world.state), &event);
    }
    // Both are one append: the shelf is made what the state says before each is looked at.
    world.shelves.enroll(&world.id, &world.state);
    assert!(matches!(world.take(), Found::Full));
}

#[test]
fn what_starts_a_handler_ahead_is_up_when_that_is() {
    let mut world = World::new(waiting(0));
    let mut applied = world.state.applied.clone().expect("it was applied");
    applied.prestart = Some(Prestart { profile: "analyst".to_owned(), version: 1, digest: PROFILE });
    world.happens(applied);
    world.happens(requested(1));
    world.shelves.linked(&sandbox(1));
    let first = sandbox(1);
    let mut up = Box::pin(world.shelves.comes_up(&first));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(up.as_mut().poll(&mut context).is_pending(), "its runner is linked, and its handler not up");
    let beat = link::Heartbeat { handler: HandlerState::Idle, ..link::Heartbeat::default() };
    assert_eq!(world.shelves.beat(&sandbox(1), &beat), None);
    assert!(up.as_mut().poll(&mut context).is_ready());
    drop(up);
    world.happens(pool::Ready { sandbox: sandbox(1), took_ms: 100 });
    let other = world.shelves.take(&world.id, Digest::of(b"another profile"), Wish::default(), 0);
    assert!(matches!(other, Found::Elsewhere), "it is another's");
    assert!(matches!(world.take(), Found::Standby(_)));
}

#[test]
fn who_waits_longest_comes_first_and_who_gave_up_is_passed_over() {
    let mut world = World::new(waiting(2));
    let Found::Turn(first) = world.take() else { panic!("it waits") };
    let Found::Turn(mut second) = world.take() else { panic!("it waits") };
    assert!(matches!(world.take(), Found::Full));
    drop(first);
    let Found::Turn(mut third) = world.take() else { panic!("there is room again") };
    assert_eq!(world.plan().make, 2, "as many are made as wait, and one to stand by; two at once");
    world.stands_by(1);
    assert!(second.try_recv().is_ok_and(|taken| *taken.sandbox() == sandbox(1)));
    // What was dropped unread went back to the next.
    assert!(third.try_recv().is_ok());
}

#[test]
fn what_stood_by_before_a_restart_is_awaited_and_not_made_anew() {
    let mut world = World::new(json!({"size": {"min": 2, "max": 4, "target": 2}}));
    world.stands_by(1);
    world.stands_by(2);
    world.shelves = Arc::default();
    world.shelves.enroll(&world.id, &world.state);
    assert_eq!(world.plan(), Plan::default());
    let Found::Turn(mut first) = world.take() else { panic!("one comes back") };
    let Found::Turn(mut second) = world.take() else { panic!("another comes back") };
    assert!(matches!(world.take(), Found::Cold(_)), "no third does");
    world.shelves.offer(&sandbox(1));
    let taken = first.try_recv().expect("the first is back");
    assert_eq!(*taken.sandbox(), sandbox(1));
    world.happens(pool::Dirty { sandbox: sandbox(2), reason: "it was gone".to_owned() });
    let sent_away = second.try_recv();
    assert!(matches!(sent_away, Err(oneshot::error::TryRecvError::Closed)), "it looks again: {sent_away:?}");
    assert!(matches!(world.take(), Found::Cold(_)));
}

#[test]
fn what_returns_takes_no_room_in_the_queue_and_who_waits_in_vain_starts_cold() {
    let mut world = World::new(json!({"queue": {"length": 0}, "refill": {"concurrency": 1}}));
    world.stands_by(1);
    world.stands_by(2);
    world.shelves = Arc::default();
    world.shelves.enroll(&world.id, &world.state);
    assert!(
        world.shelves.admits(&world.id, 3) && !world.shelves.admits(&world.id, 4),
        "two return, one starts"
    );
    let Found::Turn(_first) = world.take() else { panic!("one comes back") };
    let Found::Turn(second) = world.take() else { panic!("another comes back") };
    drop(second);
    let Found::Turn(mut third) = world.take() else { panic!("who gave up makes room") };
    world.happens(pool::Dirty { sandbox: sandbox(1), reason: "it was gone".to_owned() });
    assert!(third.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    let _start = world.shelves.cold_start(&world.id).expect("its time is up");
    assert!(world.shelves.cold_start(&world.id).is_none(), "one at a time");
}

#[test]
fn what_is_dirty_is_not_taken_and_what_is_taken_is_decided_first() {
    let mut world = World::new(waiting(0));
    world.stands_by(1);
    world.stands_by(2);
    let dirty = |number| pool::Dirty { sandbox: sandbox(number), reason: "suspicion".to_owned() };
    world.happens(dirty(1));
    let Found::Standby(taken) = world.take() else { panic!("another stands by") };
    assert_eq!(*taken.sandbox(), sandbox(2));
    world.happens(dirty(2));
    drop(taken);
    assert!(matches!(world.take(), Found::Full), "what was dirty when it came back is not offered");
}

#[test]
fn after_a_failure_one_at_a_time_is_tried_and_has_to_last() {
    let mut world = World::new(json!({"size": {"min": 3, "max": 4, "target": 3}}));
    world.stands_by(1);
    assert_eq!(world.plan().make, 2);
    let failed = |number| pool::Failed {
        sandbox: sandbox(number),
        detail: "its handler ended".to_owned(),
        failures: number,
        retry_at_ms: 0,
    };
    world.happens(failed(1));
    assert_eq!(world.plan().make, 1);
    world.stands_by(2);
    assert_eq!(world.plan().make, 0, "it came up, and is not known to last");
    world.happens(failed(2));
    assert_eq!(world.plan().make, 1);
    world.stands_by(3);
    world.happens(pool::Recovered {});
    assert_eq!(world.plan().make, 2);
}

#[test]
fn as_many_start_cold_as_may_be_made_at_once() {
    let world = World::new(json!({"refill": {"concurrency": 2}, "queue": {"length": 1}}));
    let Found::Cold(first) = world.take() else { panic!("it starts cold") };
    let Found::Cold(_second) = world.take() else { panic!("it starts cold") };
    let Found::Turn(_third) = world.take() else { panic!("it waits") };
    assert!(matches!(world.take(), Found::Full) && !world.shelves.admits(&world.id, 1));
    drop(first);
    assert!(world.shelves.admits(&world.id, 1) && !world.shelves.admits(&world.id, 2));
}

#[test]
fn a_runner_that_does_something_while_it_stands_by_is_suspicious() {
    let mut world = World::new(json!({}));
    world.stands_by(1);
    let beat = |cpu_ms, memory_bytes| link::Heartbeat { cpu_ms, memory_bytes, ..link::Heartbeat::default() };
    let look = |beat| world.shelves.beat(&sandbox(1), &beat);
    assert_eq!(look(beat(10, 20 << 20)), None);
    assert_eq!(look(beat(500, 60 << 20)), None);
    assert!(look(beat(5_000, 20 << 20)).is_some_and(|why| why.contains("processor time")));
    assert!(look(beat(500, 200 << 20)).is_some_and(|why| why.contains("memory")));
    // A handler that was started ahead is at work, for as long as it stands by.
    let mut applied = world.state.applied.clone().expect("it was applied");
    applied.prestart = Some(Prestart { profile: "analyst".to_owned(), version: 1, digest: PROFILE });
    world.happens(applied);
    let look = |beat| world.shelves.beat(&sandbox(1), &beat);
    assert_eq!(look(beat(3_600_000, 2 << 30)), None);
}

#[tokio::test]
async fn a_sandbox_comes_up_or_says_why_not() {
    let mut world = World::new(json!({}));
    world.happens(requested(1));
    world.happens(requested(2));
    assert!(!world.shelves.ended(&sandbox(1), "its sandbox ended with exit code 3"), "it never stood by");
    assert_eq!(
        world.shelves.comes_up(&sandbox(1)).await,
        Err("its sandbox ended with exit code 3".to_owned())
    );
    world.shelves.linked(&sandbox(2));
    assert_eq!(world.shelves.comes_up(&sandbox(2)).await, Ok(()));
    world.happens(requested(3));
    world.happens(pool::Dirty { sandbox: sandbox(3), reason: "the pool was drained".to_owned() });
    assert!(world.shelves.comes_up(&sandbox(3)).await.is_err(), "nobody waits for what is not wanted");
}

#[test]
fn a_claim_that_only_the_log_knew_of_is_taken_off_the_shelf() {
    let mut world = World::new(waiting(0));
    world.stands_by(1);
    let agent = events::AgentId::derive(&["a"]);
    world.happens(Claimed { sandbox: sandbox(1), agent, incarnation: events::Incarnation(1) });
    assert!(matches!(world.take(), Found::Full));
    assert_eq!(world.shelves.remove_where(|_| true), Vec::<SandboxId>::new(), "it serves its agent");
}
