//! All that must hold before a change goes in.

use crate::steps::{Failed, cargo};
use crate::{style, test};

/// Runs every check, whatever the ones before it said, and names those that failed.
pub(crate) fn run() -> Result<(), Failed> {
    let checks: [fn() -> Result<(), Failed>; 6] = [format, style::run, lints, documents, dependencies, tests];
    let failed: Vec<String> =
        checks.iter().filter_map(|check| check().err()).map(|failed| failed.to_string()).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failed(failed.join("\nerror: "))) }
}

fn format() -> Result<(), Failed> {
    cargo(["fmt", "--all", "--check"]).run()
}

fn lints() -> Result<(), Failed> {
    cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()
}

fn documents() -> Result<(), Failed> {
    let doc = cargo(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links").run()
}

fn dependencies() -> Result<(), Failed> {
    if !cargo(["deny", "--version"]).works() {
        eprintln!("cargo-deny is not installed: dependencies, their licences and sources are not checked");
        return Ok(());
    }
    // The advisories are a repository on the net, which a build machine may not reach; nothing else needs it.
    if !cargo(["deny", "--workspace", "fetch", "db"]).works() {
        eprintln!("the advisory database cannot be fetched: advisories are not checked");
        return cargo(["deny", "--workspace", "check", "bans", "licenses", "sources"]).run();
    }
    cargo(["deny", "--workspace", "check"]).run()
}

fn tests() -> Result<(), Failed> {
    test::run(&[])
}
