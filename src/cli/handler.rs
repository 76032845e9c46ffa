//! `hypercode handler`: handlers without a platform.

mod answers;
mod check;
mod driver;

use std::process::ExitCode;

use clap::Subcommand;

use super::Outcome;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(super) enum Handler {
    /// Drive a handler of protocol `stdio` through its methods, and say what is wrong.
    Check(check::Check),
    /// Serve a role of the example crew on standard input and output.
    #[command(hide = true)]
    CodeHealth {
        /// The role.
        role: String,
    },
}

impl Handler {
    pub(super) async fn run(self, output: Output) -> Outcome {
        match self {
            Self::Check(check) => {
                let is_right = check.run(output).await?;
                Ok(ExitCode::from(u8::from(!is_right)))
            }
            Self::CodeHealth { .. } => unreachable!("served before there is a runtime"),
        }
    }
}
