//! Running other programs, and saying which one failed.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why a command of the developer's did not succeed.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A program that is about to be run in the workspace's root.
pub(crate) struct Step(Command);

/// Cargo, as it was when this program was built and run by it.
pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Step {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    Step(command)
}

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a directory of the workspace")
}

impl Step {
    /// Another program.
    pub(crate) fn of<const N: usize>(program: &str, args: [&str; N]) -> Self {
        let mut command = Command::new(program);
        command.args(args).current_dir(root());
        Self(command)
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Runs it in sight of the user.
    pub(crate) fn run(mut self) -> Result<(), Failed> {
        let line = self.line();
        eprintln!("$ {line}");
        let status =
            self.0.status().map_err(|error| Failed(format!("`{line}` cannot be started: {error}")))?;
        if status.success() { Ok(()) } else { Err(Failed(format!("`{line}` failed ({status})"))) }
    }

    /// Whether it runs and succeeds; out of sight.
    pub(crate) fn works(mut self) -> bool {
        let quiet = self.0.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    fn line(&self) -> String {
        let program = Path::new(self.0.get_program());
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let words = self.0.get_args().map(OsStr::to_string_lossy);
        std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
    }
}
