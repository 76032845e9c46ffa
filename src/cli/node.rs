//! `hypercode node`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::session::Session;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// Show the nodes that share the log, and how many of the 256 shards each holds.
    List,
}

const COLUMNS: [Column; 5] = [
    Column::new("NODE", "/id"),
    Column::new("STATE", "/state"),
    Column::new("SHARDS", "/held"),
    Column::new("JOINED", "/joinedAt"),
    Column::new("SEEN", "/seenAt"),
];

impl Node {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        let Self::List = self;
        let mut page = session.client.get("/v1/nodes", &[]).await?;
        for node in page["items"].as_array_mut().into_iter().flatten() {
            node["held"] = json!(node["shards"].as_array().map_or(0, Vec::len));
        }
        session.output.page(&page, &COLUMNS)?;
        Ok(ExitCode::SUCCESS)
    }
}
