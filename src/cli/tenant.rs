//! `hypercode tenant`: whose crews there are.

use std::process::ExitCode;

use clap::Subcommand;

use super::Outcome;
use super::session::Session;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Tenant {
    /// List the tenants of which one sees crews, with how many those are.
    List,
}

const COLUMNS: [Column; 3] =
    [Column::new("TENANT", "/name"), Column::new("CREWS", "/crews"), Column::new("LIVING", "/living")];

impl Tenant {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        let Self::List = self;
        session.output.page(&session.client.get("/v1/tenants", &[]).await?, &COLUMNS)?;
        Ok(ExitCode::SUCCESS)
    }
}
