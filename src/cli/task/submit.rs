//! `hypercode task submit`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use events::api::{Problem, ProblemKind};
use manifest::Millis;
use serde_json::{Value, json};

use super::super::patience::Patience;
use super::super::session::Session;
use super::super::{Outcome, artifact, files};
use super::{get, result};
use crate::output;

/// How long the platform is asked to hold its answer while a task is waited for, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// The same for the first time, so that who waits soon hears that the task waits for them.
const FIRST_WAIT_MS: u64 = 2_000;

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

/// The task when it has ended. A platform that is away meanwhile is waited for: the task outlives that. What the task
/// waits for that somebody may have to see to is said, each thing once.
async fn ended(session: &Session, id: &str) -> Result<Value, Problem> {
    let mut patience = Patience::default();
    let (mut wait_ms, mut told) = (FIRST_WAIT_MS, None);
    loop {
        match get(session, id, wait_ms).await {
            Ok(task) if task["isTerminal"] == true => return Ok(task),
            Ok(task) => {
                patience.renew();
                let awaited = awaited(&task);
                if let Some(awaited) = awaited.as_ref().filter(|_| awaited != told) {
                    output::remark(format_args!("{}", output::harmless(awaited)));
                }
                told = awaited;
            }
            Err(problem) => patience.bear(problem).await?,
        }
        wait_ms = WAIT_MS;
    }
}

/// What a task waits for that does not come by itself.
fn awaited(task: &Value) -> Option<String> {
    if task["status"] == "input_required" {
        return Some("the task asks something: `hypercode approval list` shows what".to_owned());
    }
    let wait = &task["waitsFor"];
    let detail = wait["detail"].as_str()?;
    let needs_somebody = matches!(wait["reason"].as_str()?, "agents_gone" | "agents_down" | "crew_paused");
    needs_somebody.then(|| format!("the task waits: {detail}"))
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
        output::remark(format_args!("task {id}"));
        let task = ended(session, &id).await?;
        result::result(session, &task, None).await
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::api::Token;
    use crate::client::Client;
    use crate::output::{Format, Output};

    #[tokio::test]
    async fn who_waits_for_a_task_waits_out_a_restart() {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap();
        let client = Client::new(&format!("http://{address}"), Token::parse("t", "a test").unwrap(), None);
        let session = Session { client: client.unwrap(), output: Output::stdout(Format::Json) };
        let platform = async {
            // One request is cut off, then nobody is there, then the platform is back.
            let (mut cut, _) = first.accept().await.unwrap();
            let _ = cut.read(&mut [0; 1_024]).await;
            drop((cut, first));
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let again = TcpListener::bind(address).await.unwrap();
            let (mut asked, _) = again.accept().await.unwrap();
            let _ = asked.read(&mut [0; 1_024]).await;
            let body = r#"{"id":"tk_1","isTerminal":true}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            asked.write_all(answer.as_bytes()).await.unwrap();
            again
        };
        let (task, _again) = tokio::join!(ended(&session, "tk_1"), platform);
        assert_eq!(task.unwrap()["id"], "tk_1");
    }
}
