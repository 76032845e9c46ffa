//! `hypercode demo`, with and without chaos.

use crate::stage::nothing_is_left;
use crate::support::Home;

/// A tree that takes a while to report on, but not long.
const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/link");

/// The report, and what follows it.
async fn demo(args: &[&str]) -> (String, String) {
    let home = Home::by_default();
    let out = home.run(&[&["demo", "--path", TREE], args].concat()).await.ok();
    nothing_is_left(&home).await;
    let left: Vec<_> = std::fs::read_dir(home.path("")).expect("the home").flatten().collect();
    assert!(left.is_empty(), "{left:?} is left");
    let (report, rest) = out.split_once("## Timeline").expect("a timeline follows the report");
    (report.to_owned(), rest.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_reports_the_same_whether_an_analyst_is_killed_or_not() {
    let (report, quiet) = demo(&[]).await;
    assert!(report.contains("| Rust |"), "{report}");
    assert!(quiet.contains("## Figures"), "{quiet}");
    let (again, chaos) = demo(&["--chaos"]).await;
    assert_eq!(report, again);
    assert!(chaos.contains("recovered as incarnation 2"), "{chaos}");
    assert!(!quiet.contains("recovered as incarnation"), "{quiet}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_nobody_to_kill_that_is_said_and_the_outcome_can_be_json() {
    let home = Home::by_default();
    let empty = home.path("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let path = empty.to_str().expect("text");
    let ran = home.run(&["demo", "--path", path, "--chaos", "--output", "json"]).await;
    assert!(ran.err.contains("nobody was killed"), "{ran:?}");
    let told = ran.json();
    assert_eq!(told["figures"]["recoveriesMs"], serde_json::json!([]));
    assert!(told["report"].as_str().is_some_and(|report| report.starts_with('#')), "{told:#}");
    assert!(told["timeline"].as_array().is_some_and(|lines| lines.len() > 5), "{told:#}");
    nothing_is_left(&home).await;
}
