use proptest::collection::vec;
use proptest::prelude::{any, proptest};

use super::*;
use crate::domain::driven::Driven;

fn size(min: u32, max: u32) -> Size {
    Size { min, max, target: None }
}

fn apply(template: &[u8], size: Size) -> Command {
    let (tenant, name) = (Tenant::default(), "small".to_owned());
    let template = Digest::of(template);
    Command::Apply { tenant, name, template, size, prestart: None, spec: Value::Null, image: None }
}

fn id(number: u32) -> SandboxId {
    SandboxId::derive(&["standby", &number.to_string()])
}

fn requested(number: u32, template: &[u8]) -> Requested {
    Requested {
        sandbox: id(number),
        template: Digest::of(template),
        sandbox_kind: "process".to_owned(),
        isolation: "none".to_owned(),
        node: "node-1".to_owned(),
        at_ms: 999_990,
    }
}

fn request(numbers: impl IntoIterator<Item = u32>, template: &[u8]) -> Command {
    Command::Request { standbys: numbers.into_iter().map(|number| requested(number, template)).collect() }
}

fn claimed(number: u32, agent: &str) -> Command {
    let agent = AgentId::derive(&[agent]);
    Command::Claimed(Claimed { sandbox: id(number), agent, incarnation: Incarnation(1) })
}

fn fail(number: u32) -> Command {
    Command::Fail { sandbox: id(number), detail: "no such image".to_owned() }
}

fn pool() -> Driven<Pool> {
    let mut pool = Driven::<Pool>::new();
    pool.give(&apply(b"a", size(1, 4))).expect("it is applied");
    pool
}

#[test]
fn a_life_of_a_standby() {
    let mut pool = pool();
    pool.give(&request([1], b"a")).expect("it is wanted");
    let stand = Effect::Stand { sandbox: id(1) };
    assert_eq!(Pool::obligations(&pool.state), [Effect::Fill, stand.clone()]);
    pool.give(&Command::Ready { sandbox: id(1) }).expect("it is up");
    assert!(matches!(&pool.history[2], Event::Ready(Ready { took_ms: 10, .. })), "{:?}", pool.history);
    assert_eq!(Pool::obligations(&pool.state), [Effect::Fill, stand]);
    pool.give(&claimed(1, "a")).expect("it is claimed");
    assert_eq!(pool.give(&claimed(1, "a")), Ok(Vec::new()), "told twice");
    assert!(pool.give(&claimed(1, "b")).is_err(), "once and for ever");
    assert!(matches!(&Pool::obligations(&pool.state)[..], [Effect::Fill, Effect::Follow(_)]));
    assert!(pool.give(&Command::Gone { sandbox: id(1) }).is_err(), "it serves somebody");
    pool.give(&Command::Release { sandbox: id(1) }).expect("the incarnation is over");
    assert_eq!(Pool::obligations(&pool.state), [Effect::Fill, Effect::Destroy { sandbox: id(1) }]);
    pool.give(&Command::Gone { sandbox: id(1) }).expect("it is gone");
    let totals = Totals { created: 1, claimed: 1, failed: 0, destroyed: 1 };
    assert_eq!((pool.state.totals, pool.state.standbys.len()), (totals, 0));
    pool.assert_folds_the_same();
}

#[test]
fn what_is_dirty_never_stands_by_again() {
    let mut pool = pool();
    pool.give(&request([1, 2], b"a")).expect("they are wanted");
    pool.give(&Command::Ready { sandbox: id(1) }).expect("it is up");
    let spoil = Command::Spoil { sandboxes: vec![id(1), id(9)], reason: "its link was lost".to_owned() };
    assert_eq!(pool.give(&spoil).map(|events| events.len()), Ok(1));
    assert_eq!(pool.give(&spoil), Ok(Vec::new()));
    assert!(pool.give(&Command::Ready { sandbox: id(1) }).is_err());
    // A claim that was durable before the suspicion is a fact all the same.
    pool.give(&claimed(1, "a")).expect("it is taken note of");
    assert_eq!(pool.state.standbys[&id(1)].phase, Phase::Claimed);
}

#[test]
fn another_template_replaces_what_stands_by_and_leaves_what_serves() {
    let mut pool = pool();
    pool.give(&request([1, 2, 3], b"a")).expect("they are wanted");
    pool.give(&Command::Ready { sandbox: id(1) }).expect("it is up");
    pool.give(&claimed(1, "a")).expect("it is claimed");
    assert_eq!(pool.give(&apply(b"a", size(1, 4))), Ok(Vec::new()), "it is so already");
    pool.give(&apply(b"a", size(2, 4))).expect("another size");
    assert_eq!((pool.state.count(Phase::Warming), pool.state.count(Phase::Claimed)), (2, 1));
    pool.give(&apply(b"b", size(2, 4))).expect("another template");
    assert_eq!((pool.state.count(Phase::Spent), pool.state.count(Phase::Claimed)), (2, 1));
    assert_eq!(pool.give(&request([4], b"a")), Ok(Vec::new()), "it was asked for too late");
}

#[test]
fn a_drained_pool_is_empty_until_it_is_told_otherwise() {
    let mut pool = pool();
    pool.give(&request([1, 2], b"a")).expect("they are wanted");
    pool.give(&Command::Drain { reason: "maintenance".to_owned() }).expect("it drains");
    assert_eq!((pool.state.status, pool.state.count(Phase::Spent)), (Status::Drained, 2));
    assert_eq!(pool.give(&request([3], b"a")), Ok(Vec::new()));
    pool.give(&Command::Resize { size: size(1, 4) }).expect("it is filled again");
    assert_eq!(pool.state.status, Status::Active);
    for wrong in [size(3, 2), size(0, 0), Size { min: 1, max: 3, target: Some(4) }] {
        assert!(matches!(pool.give(&Command::Resize { size: wrong }), Err(Rejection::Size { .. })));
    }
}

#[test]
fn sandboxes_that_do_not_come_up_slow_the_pool_down_and_mark_it() {
    let mut pool = pool();
    let mut waits = Vec::new();
    for number in 0..12 {
        pool.give(&request([number], b"a")).expect("it is wanted");
        pool.give(&fail(number)).expect("it failed");
        waits.push(pool.state.retry_at_ms as i64 - pool.now_ms);
        let degraded = number + 1 >= DEGRADED_AFTER;
        assert_eq!(pool.state.status == Status::Degraded, degraded, "after {} failures", number + 1);
    }
    assert!((400..=500).contains(&waits[0]) && (800..=1_000).contains(&waits[1]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 60_000) && waits[11] >= 48_000, "{waits:?}");
    let degraded = pool.history.iter().filter(|event| matches!(event, Event::Degraded(_)));
    assert_eq!(degraded.count(), 1, "it is said once");
}

/// A pool in which `failures` sandboxes have failed, one of them that came up once the wait was over, and its number.
fn after_failures(failures: u32) -> (Driven<Pool>, u32) {
    let mut pool = pool();
    for number in 0..failures {
        pool.give(&request([number], b"a")).expect("it is wanted");
        pool.give(&fail(number)).expect("it failed");
    }
    pool.now_ms = pool.now_ms.max(pool.state.retry_at_ms as i64);
    let made = Requested { at_ms: pool.now_ms as u64, ..requested(failures, b"a") };
    pool.give(&Command::Request { standbys: vec![made] }).expect("it is wanted");
    pool.give(&Command::Ready { sandbox: id(failures) }).expect("it is up");
    (pool, failures)
}

#[test]
fn one_that_comes_up_ends_the_failures_once_it_has_stood_by_for_a_while() {
    for failures in 0..6 {
        let (mut pool, _) = after_failures(failures);
        assert_eq!(pool.state.failures, failures, "that it came up says little");
        assert_eq!(pool.state.is_trying(), failures > 0);
        pool.now_ms += STEADY_AFTER_MS as i64 - 1;
        assert_eq!(pool.give(&Command::Recover), Ok(Vec::new()));
        pool.now_ms += 1;
        let events = pool.give(&Command::Recover).expect("it may be asked");
        assert_eq!(events.len(), usize::from(failures > 0), "{events:?}");
        assert_eq!((pool.state.status, pool.state.failures, pool.state.retry_at_ms), (Status::Active, 0, 0));
        assert_eq!(pool.give(&Command::Recover), Ok(Vec::new()), "it is said once");
        pool.assert_folds_the_same();
    }
}

#[test]
fn one_that_is_claimed_ends_the_failures_unless_it_stood_by_before_them() {
    for failures in 1..6 {
        let (mut pool, number) = after_failures(failures);
        let events = pool.give(&claimed(number, "a")).expect("it is claimed");
        assert!(matches!(&events[..], [Event::Claimed(_), Event::Recovered(_)]), "{events:?}");
        assert_eq!((pool.state.status, pool.state.failures), (Status::Active, 0));
    }
    let mut pool = pool();
    pool.give(&request([1, 2], b"a")).expect("they are wanted");
    pool.give(&Command::Ready { sandbox: id(1) }).expect("it is up");
    pool.give(&fail(2)).expect("it failed");
    pool.now_ms += 2 * STEADY_AFTER_MS as i64;
    assert!(
        !pool.state.is_trying() && !pool.state.has_recovered(pool.now_ms as u64),
        "what stood by before says nothing of what is made now"
    );
    assert_eq!(pool.give(&claimed(1, "a")).map(|events| events.len()), Ok(1));
    assert_eq!(pool.state.failures, 1);
}

#[test]
fn what_ends_soon_after_it_came_up_did_not_come_up() {
    let mut pool = pool();
    for number in 0..DEGRADED_AFTER {
        let made = Requested { at_ms: pool.now_ms as u64, ..requested(number, b"a") };
        pool.give(&Command::Request { standbys: vec![made] }).expect("it is wanted");
        pool.give(&Command::Ready { sandbox: id(number) }).expect("it is up");
        pool.now_ms += STEADY_AFTER_MS as i64 - 1;
        pool.give(&fail(number)).expect("it ended");
        assert_eq!(pool.state.failures, number + 1);
        assert!(pool.state.retry_at_ms > pool.now_ms as u64, "the next has to wait");
        pool.now_ms = pool.state.retry_at_ms as i64;
    }
    assert_eq!((pool.state.status, pool.state.totals.failed), (Status::Degraded, u64::from(DEGRADED_AFTER)));
    pool.assert_folds_the_same();
}

#[test]
fn what_ends_after_it_has_stood_by_for_a_while_is_no_failure() {
    let mut pool = pool();
    pool.give(&request([1], b"a")).expect("it is wanted");
    pool.give(&Command::Ready { sandbox: id(1) }).expect("it is up");
    pool.now_ms += STEADY_AFTER_MS as i64;
    let events = pool.give(&fail(1)).expect("it ended");
    assert!(matches!(&events[..], [Event::Dirty(dirty)] if dirty.reason == "no such image"), "{events:?}");
    assert_eq!((pool.state.failures, pool.state.totals.failed), (0, 0));
    assert_eq!(pool.give(&fail(1)), Ok(Vec::new()), "told twice");
}

#[test]
fn a_drained_pool_does_not_recover_into_being_filled() {
    let (mut pool, number) = after_failures(4);
    pool.give(&Command::Drain { reason: "maintenance".to_owned() }).expect("it drains");
    pool.now_ms += STEADY_AFTER_MS as i64;
    assert_eq!(pool.give(&Command::Recover), Ok(Vec::new()));
    assert_eq!(
        pool.give(&claimed(number, "a")).map(|events| events.len()),
        Ok(1),
        "it is a fact all the same"
    );
    assert_eq!(pool.state.status, Status::Drained);
}

#[test]
fn a_pool_that_was_never_applied_is_not_there() {
    let mut pool = Driven::<Pool>::new();
    assert_eq!(pool.give(&Command::Resize { size: size(1, 2) }), Err(Rejection::Unknown));
    assert!(Pool::obligations(&pool.state).is_empty());
}

proptest! {
    /// SB-1: whatever is said of its sandboxes in whatever order, each is claimed at most once, and nothing leads back.
    #[test]
    fn sb_1_a_standby_is_claimed_once_and_never_stands_by_again(steps in vec((0..9u8, 0..6u32, any::<bool>()), 0..120)) {
        let mut pool = pool();
        for (what, number, other) in steps {
            let sandbox = id(number);
            let command = match what {
                0 => request([number], b"a"),
                1 => Command::Ready { sandbox },
                2 => claimed(number, if other { "a" } else { "b" }),
                3 => fail(number),
                4 => Command::Spoil { sandboxes: vec![sandbox], reason: "suspicion".to_owned() },
                5 => Command::Release { sandbox },
                6 => Command::Gone { sandbox },
                7 => {
                    pool.now_ms += if other { STEADY_AFTER_MS as i64 } else { 1_000 };
                    Command::Recover
                }
                _ => Command::Drain { reason: "enough".to_owned() },
            };
            let before = pool.state.clone();
            let _ = pool.give(&command);
            if pool.state.status == Status::Drained {
                pool.give(&Command::Resize { size: size(1, 4) }).expect("it goes on");
            }
            for (sandbox, standby) in &before.standbys {
                let Some(after) = pool.state.standbys.get(sandbox) else {
                    assert_eq!(standby.phase, Phase::Spent, "only what is spent goes");
                    continue;
                };
                let is_fact = standby.phase == Phase::Spent && standby.claimed.is_none() && after.claimed.is_some();
                assert!(after.phase >= standby.phase || is_fact, "{standby:?} became {after:?}");
                assert!(standby.claimed.is_none() || standby.claimed == after.claimed);
            }
        }
        let is_degraded = pool.state.status == Status::Degraded;
        assert_eq!(is_degraded, pool.state.failures >= DEGRADED_AFTER, "{:?}", pool.state);
        let totals = pool.state.totals;
        assert_eq!(totals.created - totals.destroyed, pool.state.standbys.len() as u64);
        pool.assert_folds_the_same();
    }
}
