//! `hypercode projection`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::session::Session;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Projection {
    /// Show where each projection stands.
    Status,
    /// Make a projection again from the beginning of the log, or all of them.
    Rebuild {
        /// Its name.
        name: Option<String>,
    },
}

const COLUMNS: [Column; 5] = [
    Column::new("NAME", "/name"),
    Column::new("STATUS", "/status"),
    Column::new("POSITION", "/position"),
    Column::new("SKIPPED", "/skipped"),
    Column::new("ERROR", "/error"),
];

impl Projection {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        let page = match self {
            Self::Status => session.client.get("/v1/projections", &[]).await?,
            Self::Rebuild { name } => {
                session.client.post("/v1/projections/rebuild", &json!({ "name": name }), None).await?
            }
        };
        session.output.page(&page, &COLUMNS);
        Ok(ExitCode::SUCCESS)
    }
}
