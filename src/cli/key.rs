//! `hypercode key`: what signs agents' tokens.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Outcome;
use super::session::Session;
use crate::client::escape;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// List the keys that sign agents' tokens.
    List,
    /// Have the next key sign; the last one is accepted until its tokens have ended.
    Rotate {
        /// Why, for the log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Accept a key no longer, at once: agents that run get new tokens over their links.
    Revoke {
        /// Its id.
        key: String,
        /// Why, for the log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

const COLUMNS: [Column; 5] = [
    Column::new("ID", "/id"),
    Column::new("STATE", "/state"),
    Column::new("SINCE", "/since"),
    Column::new("UNTIL", "/until"),
    Column::new("REASON", "/reason"),
];

impl Key {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        let (path, reason) = match self {
            Self::List => {
                session.output.page(&session.client.get("/v1/keys", &[]).await?, &COLUMNS)?;
                return Ok(ExitCode::SUCCESS);
            }
            Self::Rotate { reason } => ("/v1/keys/rotate".to_owned(), reason),
            Self::Revoke { key, reason } => (format!("/v1/keys/{}/revoke", escape(&key)), reason),
        };
        let done = session.client.post(&path, &json!({"reason": reason}), None).await?;
        session.output.value(&done, signs)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn signs(done: &Value) -> String {
    format!("key {} signs agents' tokens", done["body"]["active"].as_str().unwrap_or_default())
}
