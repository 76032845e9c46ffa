//! `hypercode pool`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use events::api::{Problem, ProblemKind};
use manifest::Manifest;
use serde_json::{Value, json};

use super::session::{Listing, Session};
use super::{Outcome, files};
use crate::client::escape;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Pool {
    /// Make each pool the newest version of its name, and keep it filled.
    Apply {
        /// Files with pools; other manifests in them are passed over.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The same key and content gives the first outcome.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// List pools.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a pool and its sandboxes.
    Show {
        /// Its name.
        name: String,
    },
    /// Have another number of sandboxes stand by, until the pool is applied anew.
    Resize {
        /// Its name.
        name: String,
        /// The fewest [default: as before].
        #[arg(long, value_name = "NUMBER")]
        min: Option<u32>,
        /// The most [default: as before].
        #[arg(long, value_name = "NUMBER")]
        max: Option<u32>,
        /// How many, whatever happens, or `auto`: as claims call for [default: as before].
        #[arg(long, value_name = "NUMBER", value_parser = target)]
        target: Option<Value>,
    },
    /// Have nothing stand by until the pool is applied or resized; agents start cold meanwhile.
    Drain {
        /// Its name.
        name: String,
        /// Why, for the log.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

const COLUMNS: [Column; 9] = [
    Column::new("NAME", "/name"),
    Column::new("VERSION", "/version"),
    Column::new("STATUS", "/status"),
    Column::new("MIN", "/size/min"),
    Column::new("MAX", "/size/max"),
    Column::new("TARGET", "/live/target"),
    Column::new("READY", "/ready"),
    Column::new("CLAIMED", "/claimed"),
    Column::new("UPDATED", "/updatedAt"),
];

impl Pool {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Apply { files, idempotency_key } => {
                let found = files::manifests(&files)?;
                let pools: Vec<_> =
                    found.iter().filter(|found| matches!(found.manifest, Manifest::Pool(_))).collect();
                if pools.is_empty() {
                    return Err(Problem::new(ProblemKind::Invalid, "found no manifest of kind `Pool`"));
                }
                for found in pools {
                    let done = apply(session, &found.manifest, idempotency_key.as_deref()).await?;
                    session.output.item(&done, applied)?;
                }
            }
            Self::List { listing } => session.list("/v1/pools", [], &listing, &COLUMNS).await?,
            Self::Show { name } => {
                let pool = session.client.get(&format!("/v1/pools/{}", escape(&name)), &[]).await?;
                session.output.details(&pool)?;
            }
            Self::Resize { name, min, max, target } => {
                let body = json!({"min": min, "max": max, "target": target});
                command(session, &name, "resize", &body).await?;
            }
            Self::Drain { name, reason } => {
                command(session, &name, "drain", &json!({ "reason": reason })).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A number, or `auto`.
fn target(text: &str) -> Result<Value, String> {
    match text.parse::<u32>() {
        Ok(number) => Ok(json!(number)),
        Err(_) if text == "auto" => Ok(json!(text)),
        Err(_) => Err("expected a number or `auto`".to_owned()),
    }
}

async fn command(session: &Session, name: &str, verb: &str, body: &Value) -> Result<(), Problem> {
    let done = session.client.post(&format!("/v1/pools/{}/{verb}", escape(name)), body, None).await?;
    session.output.value(&done, applied)?;
    Ok(())
}

/// What came of a command, in words.
pub(super) fn applied(done: &Value) -> String {
    let body = &done["body"];
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    let size = &body["size"];
    format!(
        "pool {} version {} is {}, {} to {} stand by",
        text("name"),
        body["version"],
        text("status"),
        size["min"],
        size["max"]
    )
}

/// Applies a pool. The key is the pool's own.
pub(super) async fn apply(
    session: &Session,
    manifest: &Manifest,
    key: Option<&str>,
) -> Result<Value, Problem> {
    let key = key.map(|key| format!("{key}.{}", manifest.metadata().name));
    session.client.post("/v1/pools", &json!({ "manifest": manifest }), key.as_deref()).await
}
