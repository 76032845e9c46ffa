//! The platform as a process: `hypercode up`.

use std::fs::File;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use super::{Answer, Api, Home, PATIENCE, PROGRAM, eventually_within, processes, program, shell};

/// A running `hypercode up`.
pub(crate) struct Up {
    child: Child,
    log: std::path::PathBuf,
}

impl Up {
    /// Starts it; it listens some time later.
    pub(crate) fn spawn(home: &Home) -> Self {
        Self::spawn_by(program(), home)
    }

    /// Starts it under what a line of shell sets first: limits, mounts.
    pub(crate) fn spawn_after(line: &str, home: &Home) -> Self {
        let mut shell = shell(&format!(r#"{line} && exec "$0" "$@""#));
        shell.arg(PROGRAM);
        Self::spawn_by(shell, home)
    }

    fn spawn_by(mut command: Command, home: &Home) -> Self {
        // What an earlier one that was killed has left would lead to where nobody listens.
        let _ = std::fs::remove_file(home.data().join("http.address"));
        let log = home.path("platform.log");
        let open = || File::options().append(true).create(true).open(&log).expect("the platform's log");
        let child = command
            .envs(home.environment())
            .arg("up")
            .arg("--data-dir")
            .arg(home.data())
            .args(["--listen", "127.0.0.1:0"])
            .args(["--set", &format!("run_dir={}", home.run_dir().display())])
            .args(["--set", &format!("secret_files={}", home.path("").display())])
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("the program starts");
        Self { child, log }
    }

    /// Starts it and waits until it serves.
    pub(crate) async fn start(home: &Home) -> Self {
        let mut up = Self::spawn(home);
        up.ready(&Api::of(home)).await;
        up
    }

    /// Waits until it serves, for as long as this client would.
    pub(crate) async fn ready(&mut self, api: &Api) {
        eventually_within(api.patience(), "the platform serves", async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the platform ended with {status}; its log:\n{}", self.log());
            }
            api.get("/readyz").await.ok().filter(Answer::is_ok)
        })
        .await;
    }

    /// Ends it as a power cut would: at once, with nothing put in order.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("the platform is our child");
    }

    /// Kills it and starts another over the same home at once.
    pub(crate) async fn restart(&mut self, home: &Home) {
        self.kill().await;
        *self = Self::spawn(home);
    }

    /// Ends it in good order.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        processes::send(self.pid(), Signal::SIGTERM);
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            panic!("the platform does not end on SIGTERM; its log:\n{}", self.log())
        };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(!log.contains("panicked at"), "the platform's log:\n{log}");
        status.expect("the platform is our child")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().expect("it was not waited for").cast_signed()
    }

    /// The end of what it wrote about itself.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
