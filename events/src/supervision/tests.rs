use proptest::collection::vec;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as Generator;

use super::*;

const KINDS: [ChildKind; 3] = [ChildKind::Permanent, ChildKind::Transient, ChildKind::Temporary];
const EXITS: [Exit; 8] = [
    Exit::Done,
    Exit::Drained,
    Exit::Killed,
    Exit::Failed,
    Exit::Panicked,
    Exit::StartFailed,
    Exit::Lost,
    Exit::Hung,
];

fn strategies() -> impl Generator<Value = Strategy> {
    prop::sample::select(vec![Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne])
}

fn policies() -> impl Generator<Value = Policy> {
    let backoff = (0u64..5_000, 0u64..20_000, 0.0f64..=1.0)
        .prop_map(|(initial_ms, max_ms, jitter)| Backoff { initial_ms, max_ms, jitter });
    (strategies(), 0u32..6, 1u64..5_000, backoff).prop_map(|(strategy, max_restarts, within_ms, backoff)| {
        Policy { strategy, max_restarts, within_ms, backoff, ..Policy::default() }
    })
}

fn families() -> impl Generator<Value = Vec<Child<u8>>> {
    vec((prop::sample::select(KINDS.to_vec()), any::<bool>()), 1..8).prop_map(|children| {
        let child = |(id, (kind, running))| Child { id: id as u8, kind, running };
        children.into_iter().enumerate().map(child).collect()
    })
}

fn exits() -> impl Generator<Value = Exit> {
    prop::sample::select(EXITS.to_vec())
}

fn permanent(ids: &[&'static str]) -> Vec<Child<&'static str>> {
    ids.iter().map(|&id| Child { id, kind: ChildKind::Permanent, running: true }).collect()
}

fn failure<'a, Id>(child: &'a Id, exit: Exit, now_ms: u64) -> Failure<'a, Id> {
    Failure { child, exit, now_ms, jitter_seed: 7 }
}

fn groups(strategy: Strategy) -> (Vec<&'static str>, Vec<&'static str>) {
    let policy = Policy { strategy, ..Policy::default() };
    let children = permanent(&["a", "b", "c", "d"]);
    match decide(&policy, &Budget::default(), &children, &failure(&"b", Exit::Panicked, 0)) {
        Decision::Restart { children, stop_first, .. } => (children, stop_first),
        other => panic!("not a restart: {other:?}"),
    }
}

#[test]
fn each_strategy_restarts_its_group_in_start_order_and_stops_it_in_reverse() {
    assert_eq!(groups(Strategy::OneForOne), (vec!["b"], vec![]));
    assert_eq!(groups(Strategy::OneForAll), (vec!["a", "b", "c", "d"], vec!["d", "c", "a"]));
    assert_eq!(groups(Strategy::RestForOne), (vec!["b", "c", "d"], vec!["d", "c"]));
}

#[test]
fn each_kind_restarts_after_its_exits() {
    for exit in EXITS {
        assert!(ChildKind::Permanent.restarts_after(exit));
        assert!(!ChildKind::Temporary.restarts_after(exit));
        let normal = matches!(exit, Exit::Done | Exit::Drained);
        assert_eq!(ChildKind::Transient.restarts_after(exit), !normal, "{exit:?}");
    }
}

#[test]
fn a_group_restart_ends_temporary_siblings_and_starts_finished_transient_ones() {
    let policy = Policy { strategy: Strategy::OneForAll, ..Policy::default() };
    let children = [
        Child { id: "finished", kind: ChildKind::Transient, running: false },
        Child { id: "temporary", kind: ChildKind::Temporary, running: true },
        Child { id: "failed", kind: ChildKind::Permanent, running: true },
    ];
    let decision = decide(&policy, &Budget::default(), &children, &failure(&"failed", Exit::Lost, 0));
    let Decision::Restart { children, stop_first, .. } = decision else { panic!("{decision:?}") };
    assert_eq!(children, ["finished", "failed"]);
    assert_eq!(stop_first, ["temporary"]);
}

#[test]
fn a_spent_budget_exhausts_and_the_window_gives_it_back() {
    let policy = Policy { max_restarts: 2, within_ms: 1_000, ..Policy::default() };
    let children = permanent(&["a"]);
    let mut budget = Budget::default();
    for now_ms in [0, 400] {
        assert!(matches!(
            decide(&policy, &budget, &children, &failure(&"a", Exit::Failed, now_ms)),
            Decision::Restart { .. }
        ));
        budget.restarted(&policy, &"a", now_ms);
    }
    let at = |now_ms| decide(&policy, &budget, &children, &failure(&"a", Exit::Failed, now_ms));
    assert_eq!(at(999), Decision::Exhausted(OnExhausted::Quarantine));
    assert!(matches!(at(1_000), Decision::Restart { .. }));
}

#[test]
fn no_restarts_allowed_means_none() {
    let policy = Policy { max_restarts: 0, on_exhausted: OnExhausted::Escalate, ..Policy::default() };
    let decision = decide(&policy, &Budget::default(), &permanent(&["a"]), &failure(&"a", Exit::Failed, 0));
    assert_eq!(decision, Decision::Exhausted(OnExhausted::Escalate));
}

#[test]
fn the_wait_doubles_per_child_up_to_the_longest_and_stability_resets_it() {
    let backoff = Backoff { initial_ms: 100, max_ms: 500, jitter: 0.0 };
    let policy = Policy { max_restarts: 100, backoff, ..Policy::default() };
    let children = permanent(&["a", "b"]);
    let mut budget = Budget::default();
    let fail = |child: &'static str, budget: &mut Budget<&'static str>| {
        let decision = decide(&policy, budget, &children, &failure(&child, Exit::Failed, 0));
        budget.restarted(&policy, &child, 0);
        match decision {
            Decision::Restart { delay_ms, .. } => delay_ms,
            other => panic!("not a restart: {other:?}"),
        }
    };
    let waits: Vec<u64> = (0..5).map(|_| fail("a", &mut budget)).collect();
    assert_eq!(waits, [100, 200, 400, 500, 500]);
    assert_eq!(fail("b", &mut budget), 100, "a sibling's failures are its own");
    budget.stable(&"a");
    assert_eq!(fail("a", &mut budget), 100);
}

#[test]
fn a_clock_set_back_neither_refills_the_budget_nor_locks_it_for_longer_than_the_window() {
    let policy = Policy { max_restarts: 2, within_ms: 1_000, ..Policy::default() };
    let mut budget = Budget::default();
    budget.restarted(&policy, &"a", 1_000_000);
    assert_eq!(budget.spent(&policy, 0), 1);
    budget.restarted(&policy, &"a", 0);
    assert_eq!(budget.spent(&policy, 999), 2);
    assert_eq!(budget.spent(&policy, 1_000), 0);
}

#[test]
fn the_budget_survives_being_stored() {
    let policy = Policy::default();
    let mut budget = Budget::default();
    budget.restarted(&policy, &"analyst-1".to_owned(), 42);
    let stored = serde_json::to_string(&budget).expect("a budget is JSON");
    assert_eq!(stored, r#"{"restarts_ms":[42],"failures":{"analyst-1":1}}"#);
    assert_eq!(serde_json::from_str::<Budget<String>>(&stored).expect("what was written is read"), budget);
}

proptest! {
    /// SV-2: whatever fails and when, no window ever holds more restarts than the policy allows.
    #[test]
    fn no_window_holds_more_restarts_than_allowed(
        policy in policies(),
        family in families(),
        failures in vec((any::<prop::sample::Index>(), exits(), 0u64..2_000, any::<u64>()), 0..60),
    ) {
        let mut budget = Budget::default();
        let mut restarts: Vec<u64> = Vec::new();
        let mut now_ms = 0;
        for (child, exit, pause_ms, jitter_seed) in failures {
            now_ms += pause_ms;
            let child = &child.get(&family).id;
            let decision = decide(&policy, &budget, &family, &Failure { child, exit, now_ms, jitter_seed });
            let window = restarts.iter().filter(|&&at| now_ms - at < policy.within_ms).count();
            match decision {
                Decision::Restart { .. } => {
                    prop_assert!(window < policy.max_restarts as usize);
                    budget.restarted(&policy, child, now_ms);
                    restarts.push(now_ms);
                }
                Decision::Exhausted(_) => prop_assert_eq!(window, policy.max_restarts as usize),
                Decision::Ignore => {}
            }
            prop_assert!(budget.restarts_ms.len() <= policy.max_restarts as usize, "the state stays small");
        }
    }

    #[test]
    fn a_wait_stays_within_its_bounds(
        policy in policies(), failures in 0u32..100, seed in any::<u64>(),
    ) {
        let Backoff { initial_ms, max_ms, jitter } = policy.backoff;
        let full = (u128::from(initial_ms) << failures.min(64)).min(u128::from(max_ms)) as f64;
        let wait = policy.backoff.delay_ms(failures, seed) as f64;
        prop_assert!(wait <= full);
        prop_assert!(wait >= (full * (1.0 - jitter)).floor());
        let without = Backoff { jitter: 0.0, ..policy.backoff }.delay_ms(failures, seed);
        prop_assert_eq!(without as f64, full);
    }

    /// What OTP says of the three strategies and the three kinds, told a second way.
    #[test]
    fn the_group_is_the_one_that_the_strategy_names(
        strategy in strategies(),
        family in families(),
        failed in any::<prop::sample::Index>(),
        exit in exits(),
        seed in any::<u64>(),
    ) {
        let policy = Policy { strategy, ..Policy::default() };
        let failed = failed.get(&family);
        let report = Failure { child: &failed.id, exit, now_ms: 0, jitter_seed: seed };
        let decision = decide(&policy, &Budget::default(), &family, &report);
        prop_assert_eq!(&decision, &decide(&policy, &Budget::default(), &family, &report), "deterministic");
        match decision {
            Decision::Ignore => prop_assert!(
                failed.kind == ChildKind::Temporary || (failed.kind == ChildKind::Transient && exit.is_normal())
            ),
            Decision::Exhausted(_) => prop_assert!(false, "nothing was spent"),
            Decision::Restart { children, stop_first, .. } => {
                prop_assert!(children.contains(&failed.id));
                prop_assert!(!stop_first.contains(&failed.id));
                prop_assert!(children.is_sorted());
                prop_assert!(stop_first.iter().rev().is_sorted());
                for child in family.iter().filter(|child| child.id != failed.id) {
                    let named = match strategy {
                        Strategy::OneForOne => false,
                        Strategy::OneForAll => true,
                        Strategy::RestForOne => child.id > failed.id,
                    };
                    prop_assert_eq!(stop_first.contains(&child.id), named && child.running);
                    let restarts = named && child.kind != ChildKind::Temporary;
                    prop_assert_eq!(children.contains(&child.id), restarts);
                }
            }
        }
    }

    #[test]
    fn an_exit_of_an_unknown_child_is_ignored(policy in policies(), family in families(), exit in exits()) {
        let report = Failure { child: &200, exit, now_ms: 0, jitter_seed: 0 };
        prop_assert_eq!(decide(&policy, &Budget::default(), &family, &report), Decision::Ignore);
    }
}
