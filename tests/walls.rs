//! The walls between the crates: who may know whom, and that versions and lints stand in one place.
//!
//! The graph is what `cargo metadata` says of the workspace, so no wall is passed by a rename, a feature or a
//! target of its own. What only tests depend on is free.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A crate and others: those that it may know, or those that it must stay free of.
type Wall = (&'static str, &'static [&'static str]);

/// Every crate of the workspace, and those of ours that it may know.
const WALLS: &[Wall] = &[
    ("hypercode-link", &[]),
    ("hypercode-events", &[]),
    ("hypercode-manifest", &[]),
    ("hypercode-runner", &["hypercode-link"]),
    ("hypercode-sandbox", &["hypercode-link"]),
    ("hypercode-gateway", &["hypercode-events", "hypercode-identity", "hypercode-link"]),
    ("hypercode-identity", &["hypercode-events"]),
    ("hypercode-nats", &["hypercode-events", "hypercode-identity"]),
    (
        "hypercode-actors",
        &[
            "hypercode-events",
            "hypercode-gateway",
            "hypercode-identity",
            "hypercode-link",
            "hypercode-manifest",
            "hypercode-nats",
            "hypercode-sandbox",
        ],
    ),
    ("hypercode", PRODUCT),
    // The developers' tools, which nothing that ships may know.
    ("hypercode-bench", PRODUCT),
    ("xtask", &[]),
];

/// The crates that ship.
const PRODUCT: &[&str] = &[
    "hypercode",
    "hypercode-actors",
    "hypercode-events",
    "hypercode-gateway",
    "hypercode-identity",
    "hypercode-link",
    "hypercode-manifest",
    "hypercode-nats",
    "hypercode-runner",
    "hypercode-sandbox",
];

/// Crates of others that a crate of ours must stay free of: the core knows no actors, buses, servers and
/// sandboxes; the wire types and the manifests know no IO.
const FOREIGN: &[Wall] = &[
    ("hypercode-events", &["ractor", "async-nats", "axum", "hyper", "reqwest", "bollard"]),
    ("hypercode-link", &["tokio", "axum", "hyper", "reqwest", "sqlx", "ractor"]),
    ("hypercode-manifest", &["tokio", "axum", "hyper", "reqwest", "sqlx", "ractor"]),
];

/// Crates, and what each depends on for more than its tests.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Every way in which `graph` breaks the walls.
fn breaches(graph: &Graph, walls: &[Wall], foreign: &[Wall]) -> Vec<String> {
    let ours: BTreeMap<_, _> = walls.iter().copied().collect();
    let mut found = Vec::new();
    for (name, knows) in graph {
        let Some(allowed) = ours.get(name.as_str()) else {
            found.push(format!("`{name}` is in the workspace and has no wall"));
            continue;
        };
        let neighbours = knows.iter().filter(|known| graph.contains_key(*known));
        let beyond = neighbours.filter(|known| !allowed.contains(&known.as_str()));
        found.extend(beyond.map(|known| format!("`{name}` must not know `{known}`")));
        for stranger in foreign.iter().filter(|(of, _)| of == name).flat_map(|(_, strangers)| *strangers) {
            let met = knows.iter().filter(|known| is_of_family(known, stranger));
            found.extend(met.map(|known| format!("`{name}` must stay free of `{known}`")));
        }
    }
    let gone = ours.keys().filter(|name| !graph.contains_key(**name));
    found.extend(gone.map(|name| format!("`{name}` has a wall and is not in the workspace")));
    found
}

/// Whether `name` is `family` or one of its parts, as `hyper-util` is of `hyper`.
fn is_of_family(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Every dependency of a manifest that is not left to the workspace. A path without a version is no version.
fn own_versions(manifest: &toml::Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let per_target = targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    let mut found = Vec::new();
    for table in std::iter::once(manifest).chain(per_target) {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(entries) = table.get(section).and_then(toml::Value::as_table) else { continue };
            for (name, entry) in entries {
                let inherited = entry.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                let local = entry.get("path").is_some() && entry.get("version").is_none();
                if !inherited && !local {
                    found.push(format!("{section}.{name}"));
                }
            }
        }
    }
    found
}

struct Workspace {
    graph: Graph,
    manifests: Vec<PathBuf>,
}

fn workspace() -> Workspace {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let knows = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies").iter();
        all.filter(|known| known["kind"] != "dev").map(|known| text(&known["name"])).collect()
    };
    Workspace {
        graph: packages.iter().map(|package| (text(&package["name"]), knows(package))).collect(),
        manifests: packages.iter().map(|package| text(&package["manifest_path"]).into()).collect(),
    }
}

fn read(manifest: &Path) -> toml::Table {
    let text = std::fs::read_to_string(manifest).expect("a manifest is readable");
    text.parse().expect("a manifest is TOML")
}

const NONE: [String; 0] = [];

#[test]
fn crates_know_only_whom_they_may() {
    assert_eq!(breaches(&workspace().graph, WALLS, FOREIGN), NONE);
}

#[test]
fn versions_and_lints_stand_in_the_root_alone() {
    for path in workspace().manifests {
        let manifest = read(&path);
        assert_eq!(own_versions(&manifest), NONE, "{}", path.display());
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints, Some(&toml::Value::Boolean(true)), "lints of {}", path.display());
    }
}

#[test]
fn a_crate_lives_in_the_directory_of_its_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in workspace().manifests {
        let manifest = read(&path);
        let name = manifest["package"]["name"].as_str().expect("a name");
        let directory = path.parent().expect("a manifest is in a directory");
        if directory != root {
            assert_eq!(directory, root.join(name.trim_start_matches("hypercode-")));
        }
    }
}

const SMALL: &[Wall] = &[("core", &[]), ("shell", &["core"])];

fn graph(edges: &[(&str, &[&str])]) -> Graph {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    edges.iter().map(|&(name, knows)| (name.to_owned(), owned(knows))).collect()
}

#[test]
fn a_graph_within_its_walls_passes() {
    let good = graph(&[("core", &["serde", "hyperlink"]), ("shell", &["core", "hyper-util"])]);
    assert_eq!(breaches(&good, SMALL, &[("core", &["hyper"])]), NONE);
}

#[test]
fn every_breach_is_found() {
    let reversed = graph(&[("core", &["shell", "hyper-util"]), ("shell", &["core"])]);
    assert_eq!(
        breaches(&reversed, SMALL, &[("core", &["hyper"])]),
        ["`core` must not know `shell`", "`core` must stay free of `hyper-util`"]
    );
    let other = graph(&[("core", &[]), ("annex", &[])]);
    assert_eq!(
        breaches(&other, SMALL, &[]),
        ["`annex` is in the workspace and has no wall", "`shell` has a wall and is not in the workspace"]
    );
}

#[test]
fn every_version_outside_the_root_is_found() {
    let manifest = r#"
        [dependencies]
        good = { workspace = true, features = ["x"] }
        near = { path = "../near" }
        plain = "1"
        [dev-dependencies]
        both = { path = "../both", version = "1" }
        [target.'cfg(unix)'.build-dependencies]
        git = { git = "https://example.org/x" }
    "#;
    let found = own_versions(&manifest.parse().expect("TOML"));
    assert_eq!(found, ["dependencies.plain", "dev-dependencies.both", "build-dependencies.git"]);
}
