//! `hypercode secret`: what agents are given and nobody is shown.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use events::api::{Problem, ProblemKind};
use serde_json::json;

use super::Outcome;
use super::session::Session;
use crate::client::escape;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// Give a secret a value, read from standard input or a file; agents that start from now on get it.
    Set {
        /// Its name, as profiles refer to it: `from: {stored: NAME}`.
        name: String,
        /// Read the value from this file; a line's end at its end does not count.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List the secrets that are stored, without their values.
    List,
    /// Destroy the value of a secret; agents that run keep what they were given.
    Delete {
        /// Its name.
        name: String,
        /// Why, for the log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

const COLUMNS: [Column; 3] =
    [Column::new("NAME", "/name"), Column::new("VERSION", "/version"), Column::new("SET", "/setAt")];

impl Secret {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Set { name, file } => {
                let value = link::Secret::new(read(file)?);
                let body = json!({"name": name, "value": value});
                let done = session.client.post("/v1/secrets", &body, None).await?;
                session.output.value(&done, |_| format!("secret {name} has a new value"))?;
            }
            Self::List => session.output.page(&session.client.get("/v1/secrets", &[]).await?, &COLUMNS)?,
            Self::Delete { name, reason } => {
                let path = format!("/v1/secrets/{}/delete", escape(&name));
                let done = session.client.post(&path, &json!({"reason": reason}), None).await?;
                session.output.value(&done, |_| format!("secret {name} has no value any more"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The value: never an argument, which others on the machine can see, and which shells remember.
fn read(file: Option<PathBuf>) -> Result<String, Problem> {
    let invalid = |detail: String| Problem::new(ProblemKind::Invalid, detail);
    let mut value = match file {
        Some(file) => std::fs::read_to_string(&file)
            .map_err(|error| invalid(format!("read the value from `{}`: {error}", file.display())))?,
        None if std::io::stdin().is_terminal() => {
            let detail =
                "the value is read from standard input or `--file`: `hypercode secret set NAME < FILE`";
            return Err(invalid(detail.to_owned()));
        }
        None => {
            let mut value = String::new();
            let read = std::io::stdin().read_to_string(&mut value);
            read.map_err(|error| invalid(format!("read the value from standard input: {error}")))?;
            value
        }
    };
    let end = value.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text).len());
    value.truncate(end.unwrap_or(value.len()));
    Ok(value)
}
