//! The developer's commands: `cargo xtask ci | test | tools | bench | soak | fuzz`.

mod ci;
mod fuzz;
mod image;
mod matrix;
mod steps;
mod style;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::steps::{Failed, cargo};

/// The developer's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All that must hold before a change goes in: format, lints, style, documents, dependencies and tests.
    Ci,
    /// Run every test of the workspace; installs the test runner where it is missing.
    Test {
        /// Handed to the test runner, such as the name of a test.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Install the programs that the tests start, below `target/tools`; `test` does it by itself.
    Tools,
    /// Build the program so that it runs in any container, and the images of this host's files.
    Image,
    /// Measure, and say how far from the machine's limits it is; without names, what there is to measure.
    Bench {
        /// What to measure, and the measuring program's options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Give parsers what nobody would write, for longer than the tests do; what fails is kept in the target's corpus.
    Fuzz {
        /// How long each target is tried.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The only target to try, such as `manifest`.
        target: Option<String>,
    },
    /// Kill the platform at many random moments, and check after each that nothing was lost; then have many agents follow
    /// each other through a pool, in every kind of sandbox, and check that none meets anything of another.
    Soak {
        /// How often it is killed.
        #[arg(long, default_value_t = 1_000)]
        moments: u32,
        /// How many agents follow each other.
        #[arg(long, default_value_t = 1_000)]
        cycles: u32,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Ci => ci::run(),
        Command::Test { args } => test::run(&args),
        Command::Tools => tools::run(),
        Command::Image => image::run(),
        Command::Bench { args } => bench(&args),
        Command::Fuzz { seconds, target } => fuzz::run(target.as_deref(), seconds),
        Command::Soak { moments, cycles } => test::soak(moments, cycles),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("error: {failed}");
            ExitCode::FAILURE
        }
    }
}

/// The benches are a program of their own, built as what ships is built.
fn bench(args: &[String]) -> Result<(), Failed> {
    cargo(["run", "--release", "--quiet", "--package", "hypercode-bench", "--"]).args(args).run()
}
