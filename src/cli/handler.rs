//! `hypercode handler`: handlers without a platform.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use events::api::{Problem, ProblemKind};
use link::Content;
use manifest::Millis;
use runner::check::{self, CheckOptions, Finding, Severity};
use serde_json::json;

use super::Outcome;
use crate::output::{Output, harmless};

#[derive(Debug, Subcommand)]
pub(super) enum Handler {
    /// Drive a handler of protocol `stdio` through its methods, and say what is wrong.
    Check(Check),
    /// Serve a role of the example crew on standard input and output.
    #[command(hide = true)]
    CodeHealth {
        /// The role.
        role: String,
    },
}

/// Reads content as a handler may write it.
fn content(text: &str) -> Result<Content, String> {
    Content::from_handler(serde_json::from_str(text).map_err(|error| error.to_string())?)
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// How long each step may take.
    #[arg(long, default_value = "30s", value_name = "TIME")]
    timeout: Millis,
    /// How long the handler may take to stop.
    #[arg(long, default_value = "10s", value_name = "TIME")]
    grace: Millis,
    /// What comes out of every task that the handler delegates: JSON, as a handler gives its output.
    #[arg(long, default_value = "\"from the check\"", value_name = "JSON", value_parser = content)]
    child: Content,
    /// Where the handler runs.
    #[arg(long, default_value = ".", value_name = "DIR")]
    cwd: PathBuf,
    /// The handler and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Handler {
    pub(super) async fn run(self, output: Output) -> Outcome {
        match self {
            Self::Check(check) => check.run(output).await,
            Self::CodeHealth { .. } => unreachable!("served before there is a runtime"),
        }
    }
}

impl Check {
    async fn run(self, output: Output) -> Outcome {
        let failed =
            |error| Problem::new(ProblemKind::Failed, format!("make a directory for the check: {error}"));
        let work = tempfile::Builder::new().prefix("hypercode-check-").tempdir().map_err(failed)?;
        let options = CheckOptions {
            command: self.command,
            cwd: self.cwd,
            work: work.path().to_owned(),
            env: std::collections::BTreeMap::new(),
            child: self.child,
            step_ms_max: self.timeout.as_millis(),
            grace_ms: self.grace.as_millis(),
        };
        let findings = check::check(&options).await;
        let is_right = findings.iter().all(|finding| finding.severity != Severity::Error);
        output.value(&json!({"ok": is_right, "findings": findings}), |_| {
            findings.iter().map(|finding: &Finding| harmless(&finding.to_string()) + "\n").collect()
        })?;
        Ok(ExitCode::from(u8::from(!is_right)))
    }
}
