//! The command line, as a user gives it.

use serde_json::Value;

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

impl Home {
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
