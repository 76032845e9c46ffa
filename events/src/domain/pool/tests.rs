use proptest::collection::vec;
use proptest::prelude::{any, proptest};

use super::*;
use crate::domain::driven::Driven;

fn size(min: u32, max: u32) -> Size {
    Size { min, max, target: None }
}

fn apply(template: &[u8], size: Size) -> Command {
    let (tenant, name) = (Tenant::default(), "small".to_owned());
    Command::Apply { tenant, name, template: Digest::of(template), size, prestart: None, spec: Value::Null }
}

fn id(number: u32) -> SandboxId {
    SandboxId::derive(&["standby", &number.to_string()])
}

fn request(numbers: impl IntoIterator<Item = u32>, template: &[u8]) -> Command {
    let requested = |number| Requested {
        sandbox: id(number),
        template: Digest::of(template),
        sandbox_kind: "process".to_owned(),
        isolation: "none".to_owned(),
        node: "node-1".to_owned(),
        at_ms: 999_990,
    };
    Command::Request { standbys: numbers.into_iter().map(requested).collect() }
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
    pool.give(&request([99], b"a")).expect("it is wanted");
    pool.give(&Command::Ready { sandbox: id(99) }).expect("it is up");
    assert_eq!((pool.state.status, pool.state.failures, pool.state.retry_at_ms), (Status::Active, 0, 0));
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
    fn sb_1_a_standby_is_claimed_once_and_never_stands_by_again(steps in vec((0..8u8, 0..6u32, any::<bool>()), 0..120)) {
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
        let totals = pool.state.totals;
        assert_eq!(totals.created - totals.destroyed, pool.state.standbys.len() as u64);
        pool.assert_folds_the_same();
    }
}
