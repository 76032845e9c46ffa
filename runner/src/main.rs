//! The runner as a program of its own, for images; elsewhere the `hypercode` binary starts itself as the runner.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypercode_runner::main(std::env::args_os().skip(1))
}
