//! The example manifests are without a fault, and what they name is there.

#![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hypercode_manifest::{Manifest, ProfileSummary, parse, plan};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

fn read(path: &Path) -> Vec<Manifest> {
    let parsed = parse(path.to_str().unwrap(), &fs::read(path).unwrap());
    assert!(parsed.faults.is_empty(), "{}", parsed.faults[0]);
    parsed.manifests
}

#[test]
fn manifests_are_without_a_fault() {
    let directory = examples().join("manifests");
    let files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2);
    assert!(files.iter().map(|path| read(path).len()).sum::<usize>() >= 5);
}

#[test]
fn the_word_count_crew_is_whole() {
    let directory = examples().join("word-count");
    let mut profiles = BTreeMap::new();
    for manifest in read(&directory.join("profiles.yaml")) {
        let Manifest::Profile(profile) = manifest else { panic!("only profiles") };
        let handler = &profile.spec.handler;
        let source = directory.join(handler.source.as_ref().unwrap());
        let program = source.join(handler.command.last().unwrap());
        assert!(program.is_file(), "{}", program.display());
        if handler.command[0].starts_with("./") {
            assert!(
                fs::metadata(&program).unwrap().permissions().mode() & 0o111 != 0,
                "{}",
                program.display()
            );
        }
        profiles.insert(profile.metadata.name.clone(), ProfileSummary::of(&profile));
    }
    let [Manifest::Crew(crew)] = &read(&directory.join("crew.yaml"))[..] else { panic!("one crew") };
    let plan = plan(crew, &profiles);
    assert_eq!(plan.faults, []);
    assert_eq!(plan.total.agents, 5);
    assert_eq!(profiles.len(), crew.spec.members.len());
}
