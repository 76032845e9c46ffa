//! `hypercode demo`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, Outcome, session};
use crate::config::Config;
use crate::demo::{self, Options};
use crate::output::Output;

/// What `demo` takes.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The source tree to report on.
    #[arg(long, value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// Kill an analyst in the middle of its task, and see it recover.
    #[arg(long)]
    chaos: bool,
    /// What kind of sandbox agents run in.
    #[arg(long, value_name = "KIND")]
    sandbox: Option<String>,
}

impl Demo {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Outcome {
        let flags = self.sandbox.into_iter().map(|kind| ("sandbox".to_owned(), kind)).collect();
        // The demo brings a directory of its own, and no other setting than where the log is, how other nodes of it are
        // reached, and where agents run: there they may read the tree.
        let Config { database_url, nats, sandbox, sandbox_image, sandbox_unproven, docker, .. } =
            session::config(global, flags)?;
        let sandbox_shares = vec![self.path.clone()];
        let config = Config {
            database_url,
            nats,
            sandbox,
            sandbox_shares,
            sandbox_image,
            sandbox_unproven,
            docker,
            ..Config::default()
        };
        let (path, chaos, data_dir) = (self.path, self.chaos, global.data_dir.clone());
        Ok(Box::pin(demo::run(Options { path, chaos, data_dir, config, output })).await)
    }
}
