//! `hypercode artifact`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use events::api::{Problem, ProblemKind};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::session::Session;
use super::{Outcome, files};
use crate::client::{Client, escape};

#[derive(Debug, Subcommand)]
pub(super) enum Artifact {
    /// Keep a file's bytes, at most 64 MiB; prints their digest.
    Put {
        /// The file; `-` is standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Fetch bytes.
    Get {
        /// The digest: 64 hex digits, or `artifact:sha256:` and the digits.
        digest: String,
        /// Where to write them [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

impl Artifact {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Put { file } => {
                let kept = put(&session.client, &file).await?;
                session.output.value(&kept, |kept| kept["url"].as_str().unwrap_or_default().to_owned())?;
            }
            Self::Get { digest, out } => get(&session.client, &digest, out.as_deref()).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Keeps a file's bytes.
pub(super) async fn put(client: &Client, file: &Path) -> Result<Value, Problem> {
    client.put_bytes("/v1/artifacts", "application/octet-stream", files::read(file)?).await
}

/// Writes an artifact's bytes to a file, or to standard output. A file is there whole or not at all.
pub(super) async fn get(client: &Client, digest: &str, out: Option<&Path>) -> Result<(), Problem> {
    let digest = digest.trim_start_matches("artifact:").trim_start_matches("sha256:");
    let mut stream = Box::pin(client.stream(&format!("/v1/artifacts/{}", escape(digest)), &[]).await?);
    let failed = |error: std::io::Error| {
        let place = out.map_or_else(|| "standard output".to_owned(), |out| format!("`{}`", out.display()));
        Problem::new(ProblemKind::Failed, format!("write {place}: {error}"))
    };
    let Some(out) = out else {
        let mut stdout = std::io::stdout().lock();
        while let Some(chunk) = stream.next().await {
            stdout.write_all(&chunk?).map_err(failed)?;
        }
        return stdout.flush().map_err(failed);
    };
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = out.with_file_name(name);
    let mut file = std::fs::File::create(&part).map_err(failed)?;
    while let Some(chunk) = stream.next().await {
        let written = chunk.and_then(|chunk| file.write_all(&chunk).map_err(failed));
        if let Err(problem) = written {
            let _ = std::fs::remove_file(&part);
            return Err(problem);
        }
    }
    std::fs::rename(&part, out).map_err(failed)
}
