//! The command line, as a user gives it.

use std::process::ExitStatus;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;

use super::{Home, PATIENCE, program};

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// What it printed; it must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }

    /// What it printed, as JSON; it must have succeeded.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out}"))
    }

    /// What it said on standard error; it must have ended with `code`.
    #[track_caller]
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        self.err
    }
}

/// A command that goes on until it is told to end, or has seen enough.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<Receiver>>,
}

impl Running {
    /// Waits until it prints a line that has this in it, or remarks it.
    pub(crate) async fn says(&mut self, text: &str) {
        let said = async {
            while let Some(line) = self.lines.next_line().await.expect("lines of text") {
                if line.contains(text) {
                    return;
                }
            }
            panic!("it ended and never said `{text}`");
        };
        let heard = tokio::time::timeout(PATIENCE, said).await;
        heard.unwrap_or_else(|_| panic!("it does not say `{text}`"));
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ends(self) -> ExitStatus {
        let Self { mut child, lines } = self;
        drop(lines);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        ended.expect("it ends").expect("it is our child")
    }
}

impl Home {
    /// Starts `hypercode` with these arguments over this home's data directory.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = program();
        let command = command.arg("--data-dir").arg(self.data()).args(args).envs(self.environment());
        let (heard, said) = std::io::pipe().expect("a pipe");
        let remarked = said.try_clone().expect("another end of it");
        let child = command.stdout(said).stderr(remarked).spawn().expect("the program starts");
        let heard = Receiver::from_owned_fd(heard.into()).expect("it is a pipe");
        Running { child, lines: BufReader::new(heard).lines() }
    }

    /// Runs `hypercode` with these arguments over this home's data directory.
    pub(crate) async fn hypercode(&self, args: &[&str]) -> Ran {
        let data = self.data();
        let mut all = vec!["--data-dir", data.to_str().expect("a path of a test is text")];
        all.extend(args);
        self.run(&all).await
    }

    /// Runs `hypercode` with these arguments and no others; it must end by itself.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let command = program()
            .args(args)
            .envs(self.environment())
            .current_dir(self.path(""))
            .env("TMPDIR", self.path(""))
            .output();
        let Ok(output) = tokio::time::timeout(2 * PATIENCE, command).await else {
            panic!("`hypercode {}` does not end", args.join(" "))
        };
        let output = output.expect("the program starts");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
