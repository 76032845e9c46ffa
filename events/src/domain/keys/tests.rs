use proptest::prelude::*;

use super::*;
use crate::domain::driven::Driven;

fn made(key: &str) -> Made {
    Made { key: key.to_owned(), public: format!("x{key}"), sealed: format!("s{key}") }
}

fn begun() -> Driven<Keys> {
    let mut keys = Driven::<Keys>::new();
    let begin = Command::Begin { issuer: "urn:one".into(), active: made("a"), next: made("b") };
    assert_eq!(keys.give(&begin).expect("begun").len(), 4);
    keys
}

fn rotate(next: &str) -> Command {
    Command::Rotate { next: made(next), reason: "its time was up".into() }
}

fn revoke(key: &str, next: &str) -> Command {
    Command::Revoke { key: key.into(), reason: "leaked".into(), next: made(next) }
}

fn names(keys: &Driven<Keys>) -> (String, String) {
    let name = |key: Option<&Key>| key.expect("there is one").made.key.clone();
    (name(keys.state.active()), name(keys.state.next()))
}

#[test]
fn the_next_key_signs_and_the_last_is_accepted_for_a_while() {
    let mut keys = begun();
    assert_eq!(names(&keys), ("a".into(), "b".into()));
    keys.give(&rotate("c")).expect("rotated");
    assert_eq!(names(&keys), ("b".into(), "c".into()));
    let (now, last) = (keys.now_ms, &keys.state.keys["a"]);
    assert!(last.is_accepted(now) && last.is_accepted(now + RETIRING_MS - 1));
    assert!(!last.is_accepted(now + RETIRING_MS));
    keys.assert_folds_the_same();
}

#[test]
fn a_revoked_key_is_accepted_no_more_and_another_signs() {
    let mut keys = begun();
    keys.give(&rotate("c")).expect("rotated");
    keys.give(&revoke("b", "d")).expect("revoked");
    assert_eq!(names(&keys), ("c".into(), "d".into()));
    keys.give(&revoke("d", "e")).expect("revoked");
    assert_eq!(names(&keys), ("c".into(), "e".into()));
    assert_eq!(keys.give(&revoke("a", "f")).expect("revoked").len(), 1);
    assert!(["a", "b", "d"].iter().all(|key| !keys.state.keys[*key].is_accepted(keys.now_ms)));
    assert_eq!(keys.give(&revoke("a", "f")).expect("it is so already"), []);
    assert_eq!(keys.give(&revoke("z", "f")), Err(Rejection::NoKey { key: "z".into() }));
    keys.assert_folds_the_same();
}

#[test]
fn whoever_cannot_open_the_keys_begins_anew_under_the_same_name() {
    let mut keys = begun();
    let begin = Command::Begin { issuer: "urn:two".into(), active: made("c"), next: made("d") };
    keys.give(&begin).expect("begun");
    assert_eq!((&keys.state.issuer[..], names(&keys)), ("urn:one", ("c".into(), "d".into())));
    assert!(keys.state.keys["a"].is_accepted(keys.now_ms), "agents that run go on");
    assert!(!keys.state.keys["b"].is_accepted(keys.now_ms));
    keys.assert_folds_the_same();
}

#[test]
fn without_keys_nothing_can_be_done_with_them() {
    let mut keys = Driven::<Keys>::new();
    assert_eq!(keys.give(&rotate("a")), Err(Rejection::NotBegun));
    assert_eq!(keys.give(&revoke("a", "b")), Err(Rejection::NoKey { key: "a".into() }));
}

#[test]
fn keys_are_bounded() {
    let mut keys = begun();
    for number in 0..RETIRING_MAX {
        keys.give(&rotate(&format!("k{number}"))).expect("rotated");
    }
    assert_eq!(keys.give(&rotate("more")), Err(Rejection::Full));
    keys.now_ms += RETIRING_MS;
    for number in 0..2 * ENDED_MAX {
        keys.now_ms += RETIRING_MS;
        keys.give(&rotate(&format!("l{number}"))).expect("rotated");
    }
    assert_eq!(keys.state.keys.len(), ENDED_MAX + 2);
    keys.assert_folds_the_same();
}

proptest! {
    /// Whatever is asked in whatever order, one key signs and one comes after it.
    #[test]
    fn there_is_always_one_key_that_signs_and_one_after_it(asked in prop::collection::vec((any::<bool>(), 0..12_usize), 1..30)) {
        let mut keys = begun();
        for (number, (rotates, which)) in asked.into_iter().enumerate() {
            let fresh = format!("k{number}");
            let known: Vec<String> = keys.state.keys.keys().cloned().collect();
            let command = if rotates { rotate(&fresh) } else { revoke(&known[which % known.len()], &fresh) };
            let _ = keys.give(&command);
            let count = |wanted: fn(&Stage) -> bool| keys.state.keys.values().filter(|key| wanted(&key.stage)).count();
            prop_assert_eq!(count(|stage| matches!(stage, Stage::Active { .. })), 1);
            prop_assert_eq!(count(|stage| *stage == Stage::Next), 1);
        }
        keys.assert_folds_the_same();
    }
}
