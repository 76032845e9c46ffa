//! `hypercode task submit`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use events::api::{Problem, ProblemKind};
use manifest::Millis;
use serde_json::{Value, json};

use super::super::session::Session;
use super::super::{Outcome, artifact, files};
use super::{get, result};

/// How long the platform is asked to hold its answer while a task is waited for, in milliseconds.
const WAIT_MS: u64 = 20_000;

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The crew's name or id.
    crew: String,
    /// What is to be done, in words; `-` reads it from standard input.
    text: Option<String>,
    /// Data for the task: JSON, or `@FILE` with JSON in it.
    #[arg(long, value_name = "JSON", value_parser = data)]
    input: Option<Value>,
    /// A file that goes with the task; may be repeated.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The member that gets it, such as `editor` or `analyst[2]` [default: the crew's entry].
    #[arg(long, value_name = "MEMBER")]
    to: Option<String>,
    /// Whose personal data it is about: what the task takes in, says and gives is encrypted under a key of this
    /// subject's own, which `audit erase` destroys.
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// The conversation that it belongs to.
    #[arg(long, value_name = "ID")]
    context: Option<String>,
    /// It must be finished within this time, such as `10m`.
    #[arg(long, value_name = "TIME")]
    deadline: Option<Millis>,
    /// The same key and content gives the same task.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until the task ends, and print what came out.
    #[arg(long)]
    wait: bool,
}

fn data(text: &str) -> Result<Value, String> {
    let text = match text.strip_prefix('@') {
        Some(file) => {
            let bytes = files::read(Path::new(file)).map_err(|problem| problem.detail)?;
            String::from_utf8(bytes).map_err(|_| format!("`{file}` is not UTF-8"))?
        }
        None => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| format!("expected JSON, or `@FILE` with JSON in it: {error}"))
}

impl Submit {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let input = self.content(session).await?;
        let body = json!({
            "crew": self.crew,
            "to": self.to,
            "input": input,
            "subject": self.subject,
            "context": self.context,
            "deadlineMs": self.deadline.map(Millis::as_millis),
        });
        let done = session.client.post("/v1/tasks", &body, self.idempotency_key.as_deref()).await?;
        let id = done["id"].as_str().unwrap_or_default().to_owned();
        if !self.wait {
            session.output.value(&done, |_| id.clone())?;
            return Ok(ExitCode::SUCCESS);
        }
        crate::output::remark(format_args!("task {id}"));
        loop {
            let task = get(session, &id, WAIT_MS).await?;
            if task["isTerminal"] == true {
                return result::result(session, &task, None).await;
            }
        }
    }

    /// Text, data and files as one content; data alone is passed on as it is.
    async fn content(&self, session: &Session) -> Result<Value, Problem> {
        let text = match self.text.as_deref() {
            Some("-") => Some(String::from_utf8(files::read(Path::new("-"))?).map_err(|_| {
                Problem::new(
                    ProblemKind::Invalid,
                    "standard input is not UTF-8; give it with `--file -` instead",
                )
            })?),
            text => text.map(str::to_owned),
        };
        if let (None, Some(data), true) = (&text, &self.input, self.file.is_empty()) {
            return Ok(data.clone());
        }
        let mut parts = Vec::new();
        parts.extend(text.map(|text| json!({ "text": text })));
        parts.extend(self.input.as_ref().map(|data| json!({ "data": data })));
        for file in &self.file {
            let kept = artifact::put(&session.client, file).await?;
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("input");
            parts.push(json!({"url": kept["url"], "filename": name}));
        }
        match parts.is_empty() {
            true => Err(Problem::new(
                ProblemKind::Invalid,
                "give the task something to do: a text, `--input` or `--file`",
            )),
            false => Ok(json!({ "parts": parts })),
        }
    }
}
