//! Measures the platform against the limits of the machine that it runs on.
//!
//! Every bench measures the raw limit and the platform in turn, in the same run, since a disk's speed moves from
//! minute to minute: only the ratios last.

mod append;
mod bare;
mod claim;
mod density;
mod load;
mod machine;
mod message;
mod recover;
mod relay;
mod restart;
mod rig;
mod samples;
mod start;
mod table;
mod task;
mod worker;

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::samples::Samples;
use crate::table::{Table, time};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The one that the platform's binary has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the platform against the limits of the machine that it runs on.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version, arg_required_else_help = true)]
struct Args {
    /// What to measure.
    #[arg(required = true)]
    names: Vec<Name>,
    /// Where the files are written; must be on the disk that is to be measured.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
    /// How long each measurement runs, in seconds.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Appends to the log by many callers at once.
    Append,
    /// Reads of a long stream and of the whole log.
    Load,
    /// Tasks, from the command to their durable end.
    Task,
    /// Messages, from agent to agent.
    Message,
    /// Agents, from the command to their being ready.
    Start,
    /// Agents that start, from a warm pool and cold.
    Claim,
    /// An agent's process is killed.
    Recover,
    /// The platform is killed.
    Restart,
    /// A log that is published to JetStream.
    Relay,
    /// Memory of many agents, and the start of an empty platform.
    Density,
}

/// Where and how long a bench measures.
struct Setup {
    /// Empty, and removed afterwards.
    directory: PathBuf,
    seconds: u64,
    /// How long the disk took just before.
    fsync: Samples,
}

/// By the name or the first word with which it is started, this program is also the small programs that a platform
/// starts beside itself, the handler of the benches, or a platform that is there to be killed.
fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().and_then(|name| Path::new(name).file_name()?.to_str());
    let outcome = match (name, args.get(1).and_then(|word| word.to_str())) {
        (Some(sandbox::Runner::ARGV0), _) => return runner::main(args.into_iter().skip(1)),
        (Some(sandbox::Options::KEEPER), _) => return sandbox::keeper_main(args),
        (Some(sandbox::CANARY), _) => return sandbox::canary_main(args),
        (_, Some("worker")) => return worker::serve(),
        (_, Some("platform")) => runtime().and_then(|runtime| {
            let directory = args.get(2).ok_or("the platform needs a directory")?;
            runtime.block_on(restart::serve(directory.into()))
        }),
        _ => run(&Args::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.dir)?;
    let directory = args.dir.canonicalize()?;
    println!("{}", machine::describe(&directory));
    let runtime = runtime()?;
    let mut missed = 0;
    for name in &args.names {
        let table = runtime.block_on(measure(*name, &directory, args.seconds))?;
        println!("{table}");
        missed += table.missed();
    }
    println!("{missed} goals missed");
    Ok(())
}

/// Runs one bench in a directory of its own.
async fn measure(name: Name, directory: &Path, seconds: u64) -> Result<Table> {
    let title = name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    eprintln!("measuring {title} …");
    let place = tempfile::tempdir_in(directory)?;
    let fsync = machine::fsync_probe(place.path())?;
    println!("\n## {title}\n");
    let probe =
        format!("fdatasync of 8 KiB just before: p50 {}, p99 {}", time(fsync.p50()), time(fsync.p99()));
    let setup = Setup { directory: place.path().to_owned(), seconds, fsync };
    let mut table = match name {
        Name::Append => append::run(&setup).await?,
        Name::Load => load::run(&setup).await?,
        Name::Task => task::run(&setup).await?,
        Name::Message => message::run(&setup).await?,
        Name::Start => start::run(&setup).await?,
        Name::Claim => claim::run(&setup).await?,
        Name::Recover => recover::run(&setup).await?,
        Name::Restart => restart::run(&setup).await?,
        Name::Relay => relay::run(&setup).await?,
        Name::Density => density::run(&setup).await?,
    };
    table.note(probe);
    Ok(table)
}
