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
        image: None,
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

#[test]
fn an_image_whose_name_stands_for_something_else_by_now_is_a_new_version() {
    let of = |image: &str| {
        let Command::Apply { tenant, name, spec, bundle, .. } = apply(1, None);
        Command::Apply { tenant, name, spec, bundle, image: Some(image.to_owned()) }
    };
    let mut profile = Driven::<Profile>::new();
    for (image, events) in [("sha256:aa", 1), ("sha256:aa", 0), ("sha256:bb", 1)] {
        assert_eq!(profile.give(&of(image)).expect("it never refuses").len(), events, "{image}");
    }
    assert_eq!(profile.state.current.and_then(|current| current.image).as_deref(), Some("sha256:bb"));
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
