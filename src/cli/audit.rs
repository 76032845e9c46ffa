//! `hypercode audit`: the log of everything that happened, and the proof that it is what it was.

mod checkpoint;
mod erase;
mod export;
mod tail;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use super::session::Session;
use super::{Global, Outcome};
use crate::output::Output;

pub(super) use tail::line;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Show the last events, and with --follow those that come.
    Tail(tail::Tail),
    /// Show one event whole.
    Show {
        /// Its position.
        position: u64,
    },
    /// Recompute every hash, the chain, the tree and every checkpoint, and name what is wrong.
    Verify(verify::Verify),
    /// Write evidence that an auditor verifies without this program: events, proofs, keys and a verifier in Python.
    Export(export::Export),
    /// Show the newest signed checkpoint and the keys, or cut one now.
    Checkpoint(checkpoint::Checkpoint),
    /// Destroy the key of a data subject, and with it all of its personal data. The log and its proofs stay whole.
    Erase(erase::Erase),
    /// Show who could do what, now or at some time.
    Access {
        /// The time, such as `2026-11-23T01:30:00Z`.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Prove that an event is in the signed log, in a text that anybody can check.
    Prove(checkpoint::Prove),
}

impl Audit {
    pub(super) async fn run(self, global: &Global, output: Output) -> Outcome {
        match self {
            Self::Verify(verify) => return verify.run(global, output).await,
            Self::Export(export) => export.run(global, output).await?,
            Self::Tail(tail) => tail.run(&Session::open(global, output)?).await?,
            Self::Show { position } => tail::show(&Session::open(global, output)?, position).await?,
            Self::Access { at } => {
                let session = Session::open(global, output)?;
                let query = at.map(|at| ("at", at));
                let page = session.client.get("/v1/roles", query.as_slice()).await?;
                output.page(&page, &super::role::COLUMNS)?;
            }
            Self::Checkpoint(checkpoint) => checkpoint.run(&Session::open(global, output)?).await?,
            Self::Erase(erase) => erase.run(&Session::open(global, output)?).await?,
            Self::Prove(prove) => prove.run(global, output).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
