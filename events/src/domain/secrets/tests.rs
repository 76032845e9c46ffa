use super::*;
use crate::domain::driven::Driven;

fn set(name: &str, key: &str) -> Command {
    let key = key.parse().expect("an id of a key");
    Command::Set { name: name.to_owned(), key, sealed: "noise".to_owned() }
}

fn delete(name: &str) -> Command {
    Command::Delete { name: name.to_owned(), reason: "leaked".to_owned() }
}

fn version(secrets: &Driven<Secrets>, name: &str) -> Option<u32> {
    secrets.state.find(name).map(|(version, _)| version)
}

#[test]
fn each_value_has_a_version_of_its_own_and_the_key_of_the_last_ends() {
    let mut secrets = Driven::<Secrets>::new();
    secrets.give(&set("a", "k_1")).expect("set");
    secrets.give(&set("b", "k_2")).expect("set");
    secrets.give(&set("a", "k_3")).expect("set anew");
    assert_eq!((version(&secrets, "a"), version(&secrets, "b")), (Some(2), Some(1)));
    assert_eq!(secrets.state.ended, ["k_1".parse().expect("an id")]);
    secrets.give(&delete("a")).expect("deleted");
    assert_eq!(version(&secrets, "a"), None);
    assert_eq!(secrets.state.kept().map(|(name, ..)| name).collect::<Vec<_>>(), ["b"]);
    secrets.give(&set("a", "k_4")).expect("set anew");
    assert_eq!(version(&secrets, "a"), Some(3), "no version is used twice");
    assert_eq!(secrets.state.ended.len(), 2);
    secrets.assert_folds_the_same();
}

#[test]
fn what_is_not_there_cannot_be_deleted() {
    let mut secrets = Driven::<Secrets>::new();
    let none = Err(Rejection::NoSecret { name: "a".to_owned() });
    assert_eq!(secrets.give(&delete("a")), none);
    secrets.give(&set("a", "k_1")).expect("set");
    secrets.give(&delete("a")).expect("deleted");
    assert_eq!(secrets.give(&delete("a")), none);
}

#[test]
fn names_and_ended_keys_are_bounded() {
    let mut secrets = Driven::<Secrets>::new();
    for number in 0..NAMES_MAX {
        secrets.give(&set(&format!("s{number}"), "k_1")).expect("set");
    }
    assert_eq!(secrets.give(&set("another", "k_1")), Err(Rejection::Full));
    for number in 0..ENDED_MAX + 9 {
        secrets.give(&set("s0", &format!("k_{number}"))).expect("set anew");
    }
    assert_eq!(secrets.state.ended.len(), ENDED_MAX);
}
