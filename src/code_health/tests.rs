//! The crew over its pipes, with a runner played by the test.

mod platform;

use std::fs;
use std::path::Path;

use serde_json::json;

use super::measure::measure;
use super::report::{self, Survey};
use super::{CREW, PROFILES, ROLES, report_task_input, tree};
use platform::Platform;

/// A tree of some forty files in several languages, large enough for several batches a part.
fn sample_tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    for number in 0..40 {
        let rust = format!(
            "// TODO: look at {number}\nfn f{number}(x: u8) {{\n{}}}\n",
            format!("    if x > 1 {{ call_{number}(x); }}\n").repeat(20 + number * 7)
        );
        let shared: String = (0..12).map(|line| format!("shared_{line}()\n")).collect();
        let python = format!("def g{number}():\n    return {number}\n\n{shared}");
        for (name, text) in
            [(format!("src/m{}/f{number}.rs", number % 5), rust), (format!("py/g{number}.py"), python)]
        {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
    }
    root
}

/// The report as one process would write it.
fn expected_report(root: &Path) -> String {
    let tree = tree::walk(root, None).expect("a walk");
    let read = |entry: &tree::Entry| measure(&entry.name, &fs::read(&entry.path).expect("a file"));
    let name = root.file_name().expect("a name").to_string_lossy().into_owned();
    let files = tree.entries.iter().map(read).collect();
    report::write(Survey { name, files, skipped: tree.skipped, missing: Vec::new() })
}

#[test]
fn the_crew_writes_the_same_report_into_however_many_parts_it_splits_the_tree() {
    let root = sample_tree();
    let expected = expected_report(root.path());
    for parts in [1, 4, 11] {
        let platform = Platform::new();
        let done = platform.run("scout", "scout", &json!({"path": root.path(), "splitInto": parts}));
        assert_eq!(done.text(), expected);
        assert_eq!(platform.artifact(&done, super::REPORT_NAME), expected.as_bytes());
        assert_eq!(platform.messages().len(), parts);
        assert!(platform.progress("scout").contains(&format!("analysed {parts} of {parts} parts")));
    }
}

#[test]
fn analysts_that_are_killed_go_on_where_they_were() {
    let root = sample_tree();
    let platform = Platform::new();
    platform.kill_after_checkpoints("part-00", &[1, 1]);
    platform.kill_after_checkpoints("part-02", &[2]);
    let done = platform.run("scout", "scout", &json!({"path": root.path(), "splitInto": 3}));
    assert_eq!(done.text(), expected_report(root.path()));
    assert_eq!(
        [platform.attempts("part-00"), platform.attempts("part-01"), platform.attempts("part-02")],
        [3, 1, 2]
    );
    // Each batch was measured once: no progress was reported twice.
    for part in ["part-00", "part-02"] {
        let mut progress = platform.progress(part);
        let count = progress.len();
        progress.sort();
        progress.dedup();
        assert_eq!(progress.len(), count, "{progress:?}");
    }
}

#[test]
fn work_that_was_kept_but_cannot_be_had_is_done_again() {
    let root = sample_tree();
    let platform = Platform::new();
    platform.kill_after_checkpoints("part-00", &[2]);
    platform.lose_artifacts_of_killed();
    let done = platform.run("scout", "scout", &json!({"path": root.path(), "splitInto": 2}));
    assert_eq!(done.text(), expected_report(root.path()));
}

#[test]
fn a_scout_that_is_killed_asks_for_the_same_parts_again() {
    let root = sample_tree();
    let platform = Platform::new();
    platform.kill_after_checkpoints("scout", &[1]);
    platform.on_kill({
        let late = root.path().join("zzz.rs");
        move || fs::write(&late, "fn late() {}\n").expect("a file")
    });
    let done = platform.run("scout", "scout", &json!({"path": root.path(), "splitInto": 4}));
    assert!(done.text().contains("# Code health of"));
    assert_eq!(platform.attempts("scout"), 2);
    for part in ["part-00", "part-03"] {
        let inputs = platform.inputs(part);
        assert!(inputs.iter().all(|input| *input == inputs[0]), "{inputs:?}");
    }
}

#[test]
fn a_part_that_fails_is_missing_from_the_report_and_named_in_it() {
    let root = sample_tree();
    let platform = Platform::new();
    platform.fail("part-01", "killed by signal 9");
    let report = platform.run("scout", "scout", &json!({"path": root.path(), "splitInto": 3})).text();
    assert!(report.contains("## Parts that are missing"), "{report}");
    assert!(report.contains("part-01") && report.contains("killed by signal 9"), "{report}");
}

#[test]
fn without_any_part_or_with_a_wrong_wish_there_is_no_report() {
    let root = sample_tree();
    let platform = Platform::new();
    platform.fail("part-00", "killed by signal 9");
    let error = platform.run("scout", "scout", &json!({"path": root.path(), "splitInto": 1})).error();
    assert!(error.contains("none of the 1 parts"), "{error}");
    for wish in [json!({"path": root.path().join("none")}), json!({"paht": "/"}), json!("words")] {
        assert_eq!(Platform::new().run("scout", "scout", &wish).state(), "rejected");
    }
    assert_eq!(Platform::new().run("analyst", "x", &json!({})).state(), "rejected");
    assert_eq!(Platform::new().run("editor", "x", &json!({})).state(), "rejected");
}

#[test]
fn a_refusal_that_may_pass_is_waited_out_and_faults_of_keeping_cost_nothing() {
    let root = sample_tree();
    let platform = Platform::new();
    platform.refuse_delegations(5);
    platform.refuse("task/checkpoint");
    platform.refuse("message/send");
    let done = platform.run("scout", "scout", &json!({"path": root.path(), "splitInto": 3}));
    assert_eq!(done.text(), expected_report(root.path()));
}

#[test]
fn an_empty_tree_is_reported_on() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let done = Platform::new().run("scout", "scout", &report_task_input(root.path()));
    assert!(done.text().contains("no text files"));
}

#[test]
fn the_manifests_are_valid_and_name_the_roles() {
    for (file, text, count) in [("crew.yaml", CREW, 1), ("profiles.yaml", PROFILES, 3)] {
        let parsed = manifest::parse(file, text.as_bytes());
        assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
        assert_eq!(parsed.manifests.len(), count);
    }
    for role in ROLES {
        assert!(PROFILES.contains(&format!("[hypercode, handler, code-health, {role}]")));
    }
}
