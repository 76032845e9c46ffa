//! The runner's entry.

use std::{ffi::OsString, io, io::Write as _, process::ExitCode};

use link::limits::ARTIFACT_BYTES_MAX;
use tokio::sync::{mpsc, watch};

use crate::{
    core::{Core, End, Parts},
    door::Door,
    event::{EVENTS_MAX, Platform},
    options::Options,
    process, uplink,
    workspace::Workspace,
};

/// The command line was wrong.
const EXIT_USAGE: u8 = 2;
/// The sandbox itself is broken: no work directory, no process tree.
const EXIT_BROKEN: u8 = 4;

/// Runs a runner to the end of its sandbox's life; `args` are those after `argv[0]`.
///
/// Exit codes: 0 drained or told that the incarnation is over, 1 the handler ended by itself or could not be started,
/// 2 wrong arguments, 3 no gateway within the orphan grace, 4 the sandbox is broken. No descendant is left behind.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(error) => return complain(&error, EXIT_USAGE),
    };
    let code = match run(options) {
        Ok(end) => ExitCode::from(end as u8),
        Err(error) => complain(&error, EXIT_BROKEN),
    };
    if !process::kill_descendants() {
        return complain(&"a descendant cannot be killed", EXIT_BROKEN);
    }
    code
}

fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // Where stderr is closed, the exit code alone must do.
    let _ = writeln!(io::stderr(), "hypercode-runner: failed to {error}");
    ExitCode::from(code)
}

fn run(options: Options) -> io::Result<End> {
    process::become_root_of_tree()?;
    let work = options.work.canonicalize().map_err(|error| {
        io::Error::new(error.kind(), format!("find the work directory `{}`: {error}", options.work.display()))
    })?;
    // One thread: a runner mostly waits, and there are many of them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(async {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let (token, bearer) = watch::channel(None);
        let platform = Platform::new(events);
        let door = Door::new(options.gateway.clone(), bearer.clone(), ARTIFACT_BYTES_MAX);
        let workspace = Workspace::new(work.clone(), door);
        tokio::spawn(uplink::run(options.gateway.clone(), work.clone(), bearer, platform.clone()));
        Core::new(Parts { options, work, platform, workspace, token }).run(inbox).await
    });
    // A file operation on a stuck disk must not keep the runner alive.
    runtime.shutdown_background();
    end
}
