//! What tests of the real binary share: a home of their own, the platform as a process, its HTTP API, its command
//! line, and a look at what runs on the machine.

// Each test uses its part of it.
#![allow(dead_code, unused_imports, reason = "shared by several test programs")]

mod api;
mod command_line;
pub(crate) mod containers;
mod home;
mod issuer;
mod platform;
mod processes;

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

pub(crate) use api::{Answer, Api, is_passing};
pub(crate) use command_line::Ran;
pub(crate) use home::Home;
pub(crate) use issuer::Issuer;
pub(crate) use platform::Up;
pub(crate) use processes::{Process, send};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_hypercode");

/// The program under test, to be run.
pub(crate) fn program() -> Command {
    quiet(Command::new(PROGRAM))
}

/// A line of shell, to be run with what is added as its arguments, `$0` the first.
fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line);
    quiet(command)
}

/// With nothing set by whoever runs the tests, ended with the test.
fn quiet(mut command: Command) -> Command {
    let set = std::env::vars_os().map(|(name, _)| name);
    for name in set.filter(|name| name.as_encoded_bytes().starts_with(b"HYPERCODE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A handler in Python that does what its task says.
pub(crate) const DEEDS: &str = include_str!("deeds.py");

/// How long anything may take that must come; far longer than it takes on a machine with other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether it came.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until there is something; fails with `what` when it does not come.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// The same with another patience.
pub(crate) async fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {} s", patience.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}
