//! The peers' programs: in `benches/peers`, installed below `target/peers` from the registries of their languages.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A peer, and its program or why there is none.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) program: Result<Program, String>,
}

/// How a peer's program is started, but for what it is to do.
#[derive(Clone)]
pub(super) struct Program {
    program: PathBuf,
    first: OsString,
}

impl Program {
    pub(super) fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.arg(&self.first).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// Installs every peer that can be had.
pub(super) fn all() -> Vec<Peer> {
    let rust = rust();
    let of_rust = |name, word: &str| {
        let first = word.into();
        Peer { name, program: rust.clone().map(|program| Program { program, first }) }
    };
    vec![
        of_rust("postgres-es 0.5.0", "postgres-es"),
        of_rust("disintegrate 4.0.1", "disintegrate"),
        of_rust("disintegrate 4.0.1, version unchecked", "disintegrate-unvalidated"),
        Peer { name: "eventsourcing 9.5.6 (Python)", program: python() },
        Peer { name: "emmett-postgresql 0.42.0 (Node)", program: node() },
    ]
}

/// A package outside of the workspace, with versions of its own.
fn rust() -> Result<PathBuf, String> {
    let target = target().join("rust");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(source().join("rust/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target))?;
    Ok(target.join("release/hypercode-bench-peers"))
}

/// A virtual environment.
fn python() -> Result<Program, String> {
    let (source, target) = (source().join("python"), target().join("python"));
    run(Command::new("python3").args(["-m", "venv"]).arg(&target))?;
    // Not its script `pip`, which has an absolute path in its first line.
    run(Command::new(target.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(source.join("requirements.txt")))?;
    Ok(Program { program: target.join("bin/python"), first: source.join("peer.py").into() })
}

/// A directory with the modules beside the program, where Node looks for them.
fn node() -> Result<Program, String> {
    let (source, target) = (source().join("node"), target().join("node"));
    let copied = fs::create_dir_all(&target).and_then(|()| {
        for file in ["package.json", "package-lock.json", "peer.js"] {
            fs::copy(source.join(file), target.join(file))?;
        }
        Ok(())
    });
    copied.map_err(|error| format!("copy to {}: {error}", target.display()))?;
    run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&target))?;
    Ok(Program { program: "node".into(), first: target.join("peer.js").into() })
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    eprintln!(
        "$ {name} {}",
        command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    );
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{name}` failed ({status})")),
        Err(error) => Err(format!("`{name}` cannot be started: {error}")),
    }
}

fn source() -> PathBuf {
    root().join("benches/peers")
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("peers")
}

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the bench is a directory of the workspace")
}
