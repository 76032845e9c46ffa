use proptest::collection::vec;
use proptest::prelude::proptest;
use serde_json::json;

use super::*;
use crate::domain::driven::Driven;

fn apply(depth: u32, bundle: Option<Digest>) -> Command {
    Command::Apply {
        tenant: Tenant::default(),
        name: "analyst".into(),
        spec: json!({ "env": { "DEPTH": depth.to_string() } }),
        bundle,
    }
}

#[test]
fn the_same_content_makes_no_new_version_and_a_changed_byte_does() {
    let mut profile = Driven::<Profile>::new();
    assert_eq!(profile.give(&apply(1, None)).expect("it never refuses").len(), 1);
    assert_eq!(profile.give(&apply(1, None)).expect("it never refuses"), []);
    assert_eq!(profile.give(&apply(1, Some(Digest::of(b"a")))).expect("it never refuses").len(), 1);
    assert_eq!(profile.give(&apply(1, Some(Digest::of(b"b")))).expect("it never refuses").len(), 1);
    assert_eq!(profile.state.current.as_ref().map(|current| current.version), Some(3));
}

proptest! {
    #[test]
    fn versions_count_up_by_one_and_each_differs_from_the_one_before(depths in vec(0u32..3, 0..30)) {
        let mut profile = Driven::<Profile>::new();
        for depth in depths {
            profile.give(&apply(depth, None)).expect("it never refuses");
        }
        let versions: Vec<&Applied> = profile.history.iter().map(|Event::Applied(applied)| applied).collect();
        for (number, applied) in (1..).zip(&versions) {
            assert_eq!(applied.version, number);
        }
        assert!(versions.windows(2).all(|pair| pair[0].digest != pair[1].digest));
        profile.assert_folds_the_same();
    }
}
