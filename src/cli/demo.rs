//! `hypercode demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::Global;
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
    pub(crate) async fn run(self, global: &Global) -> ExitCode {
        demo::run(Options { path: self.path, chaos: self.chaos, data_dir: global.data_dir.clone() }).await
    }
}
