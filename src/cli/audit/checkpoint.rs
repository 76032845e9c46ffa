//! Checkpoints and proofs.

use std::path::PathBuf;

use clap::Args;
use events::Position;
use events::api::{Problem, ProblemKind};
use events::audit::{Local, Note};
use serde_json::{Value, json};

use crate::cli::session::{self, Session};
use crate::cli::{Global, evidence};
use crate::config::Config;
use crate::http::ProofModel;
use crate::output::{Format, Output, harmless, print};

#[derive(Debug, Args)]
pub(in crate::cli) struct Checkpoint {
    /// Cut one now, over everything that the log has.
    #[arg(long)]
    cut: bool,
    /// Write the signed note to this file too, for safekeeping; `audit verify --against` holds the log to it later.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl Checkpoint {
    pub(super) async fn run(self, session: &Session) -> Result<(), Problem> {
        let standing = match self.cut {
            true => session.client.post("/v1/audit/checkpoint", &json!({}), None).await?,
            false => session.client.get("/v1/audit/checkpoint", &[]).await?,
        };
        if let Some(file) = &self.save {
            let note = standing["newest"]["note"].as_str();
            let none =
                || Problem::new(ProblemKind::NotFound, "there is no checkpoint yet; cut one with `--cut`");
            write(file, note.ok_or_else(none)?)?;
        }
        session.output.value(&standing, tell)?;
        Ok(())
    }
}

fn write(file: &std::path::Path, text: &str) -> Result<(), Problem> {
    std::fs::write(file, text)
        .map_err(|error| Problem::new(ProblemKind::Invalid, format!("write `{}`: {error}", file.display())))
}

fn tell(standing: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut told = match standing["newest"].is_null() {
        true => "no checkpoint yet: the log has no events, or the first ones are a moment old\n".to_owned(),
        false => format!(
            "position {}, signed {}\n\n{}\n",
            standing["newest"]["size"],
            text(&standing["newest"]["cutAt"]),
            text(&standing["newest"]["note"])
        ),
    };
    if let Some(refused) = standing["refused"].as_str() {
        told += &format!("NOTHING IS SIGNED ANY MORE: {refused}\nrun `hypercode audit verify`\n");
    }
    for key in standing["keys"].as_array().into_iter().flatten() {
        told += &format!("key   {}\n", text(key));
    }
    for (sink, error) in standing["sinks"].as_object().into_iter().flatten() {
        told += &format!("sink  {sink}: {}\n", error.as_str().unwrap_or("ok"));
    }
    harmless(&told)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Prove {
    /// The event's position.
    position: u64,
    /// Write the proof to this file, by custom `*.tlog-proof`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Read the data directory, or the configured database, itself instead of asking a platform; the newest checkpoint that
    /// is there must cover the event.
    #[arg(long)]
    offline: bool,
}

impl Prove {
    pub(super) async fn run(self, global: &Global, output: Output) -> Result<(), Problem> {
        let proof = match self.offline {
            true => json!(self.offline(&session::config(global, Vec::new())?).await?),
            false => {
                let path = format!("/v1/audit/proofs/{}", self.position);
                Session::open(global, output)?.client.get(&path, &[]).await?
            }
        };
        let text = proof["text"].as_str().unwrap_or_default();
        match (&self.out, output.format) {
            (Some(file), _) => write(file, text)?,
            (None, Format::Table) => print(text)?,
            (None, _) => output.details(&proof)?,
        }
        Ok(())
    }

    async fn offline(&self, config: &Config) -> Result<ProofModel, Problem> {
        let store = evidence::configured(config).await?;
        let ledger = evidence::ledger(config).await?;
        let newest = ledger.newest().await?.ok_or_else(|| {
            Problem::new(ProblemKind::NotFound, "there is no checkpoint yet; a platform that runs cuts one")
        })?;
        let note = Note::parse(&newest.note).map_err(|error| {
            Problem::new(ProblemKind::Failed, format!("read the newest checkpoint: {error}"))
        })?;
        let proof = Local::prove(&*store, &ledger, Position(self.position), note).await?;
        Ok(ProofModel::from(&proof))
    }
}
