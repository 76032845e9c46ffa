//! `hypercode demo`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, Outcome, session};
use crate::config::Config;
use crate::demo::{self, Options};

/// What `demo` takes.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The source tree to report on.
    #[arg(long, value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// Kill an analyst in the middle of its task, and see it recover.
    #[arg(long)]
    chaos: bool,
}

impl Demo {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        // The demo brings a directory of its own, and no other setting than where the log is and how other nodes of it
        // are reached.
        let Config { database_url, nats, .. } = session::config(global, Vec::new())?;
        let config = Config { database_url, nats, ..Config::default() };
        let (path, chaos, data_dir) = (self.path, self.chaos, global.data_dir.clone());
        Ok(demo::run(Options { path, chaos, data_dir, config }).await)
    }
}
