//! Measures the platform against the limits of the machine that it runs on.
//!
//! Every bench measures the raw limit and the platform in turn, in the same run, since a disk's speed moves from
//! minute to minute: only the ratios last.

mod append;
mod bare;
mod claim;
mod density;
mod lag;
mod life;
mod load;
mod machine;
mod message;
mod peers;
mod place;
mod recover;
mod relay;
mod replay;
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
use events::store::postgres::server::Server;

use crate::place::{Kind, Place};
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
    /// Which stores are measured, where a bench is about a store; all without it.
    #[arg(long, value_name = "STORE")]
    store: Vec<Kind>,
    /// How many events the log of `replay` has.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
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
    /// Views of a log that is appended to.
    Lag,
    /// A long log that is verified, signed, shown as it was and viewed anew.
    Replay,
    /// Event stores of others, which it installs below `target`.
    Peers,
    /// Memory of many agents, and the start of an empty platform.
    Density,
}

impl Name {
    fn title(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it is about a store, and so measured on each.
    fn is_about_stores(self) -> bool {
        matches!(self, Self::Append | Self::Load | Self::Task | Self::Message | Self::Lag | Self::Replay)
    }
}

/// Where and how long a bench measures.
struct Setup {
    /// Empty, and removed afterwards.
    directory: PathBuf,
    /// The server that was started for this bench, if it is to measure Postgres.
    server: Option<Server>,
    seconds: u64,
    /// How many events a long log has.
    events: u64,
    /// How long the disk took just before.
    fsync: Samples,
}

impl Setup {
    /// A place of its own for a log.
    async fn place(&self, name: &str) -> Place {
        let database = match &self.server {
            Some(server) => Some(server.database().await),
            None => None,
        };
        Place { directory: self.directory.join(name), database }
    }
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
        for store in stores(*name, &args.store) {
            let title = match store {
                Some(Kind::Postgres) => format!("{}, on Postgres", name.title()),
                Some(Kind::Sqlite) => format!("{}, on SQLite", name.title()),
                None => name.title(),
            };
            eprintln!("measuring {title} …");
            let place = tempfile::tempdir_in(&directory)?;
            let server = (store == Some(Kind::Postgres)).then(Server::of_its_own);
            let disk = if server.is_some() { std::env::temp_dir() } else { place.path().to_owned() };
            let fsync = machine::fsync_probe(&disk)?;
            let directory = place.path().to_owned();
            let setup = Setup { directory, server, seconds: args.seconds, events: args.events, fsync };
            let table = runtime.block_on(measure(*name, &setup))?;
            println!("\n## {title}\n\n{table}");
            missed += table.missed();
        }
    }
    println!("{missed} goals missed");
    Ok(())
}

/// On which stores a bench is measured; once on none in particular, if it is not about them.
fn stores(name: Name, chosen: &[Kind]) -> Vec<Option<Kind>> {
    match (name, chosen) {
        (Name::Peers, _) => vec![Some(Kind::Postgres)],
        (name, _) if !name.is_about_stores() => vec![None],
        (_, []) => Kind::value_variants().iter().copied().map(Some).collect(),
        (_, chosen) => chosen.iter().copied().map(Some).collect(),
    }
}

/// Runs one bench.
async fn measure(name: Name, setup: &Setup) -> Result<Table> {
    let mut table = match name {
        Name::Append => append::run(setup).await?,
        Name::Load => load::run(setup).await?,
        Name::Task => task::run(setup).await?,
        Name::Message => message::run(setup).await?,
        Name::Start => Box::pin(start::run(setup)).await?,
        Name::Claim => Box::pin(claim::run(setup)).await?,
        Name::Recover => Box::pin(recover::run(setup)).await?,
        Name::Restart => restart::run(setup).await?,
        Name::Relay => relay::run(setup).await?,
        Name::Lag => lag::run(setup).await?,
        Name::Replay => Box::pin(replay::run(setup)).await?,
        Name::Peers => peers::run(setup).await?,
        Name::Density => density::run(setup).await?,
    };
    if let Some(server) = &setup.server {
        table.note(machine::server(&server.database().await).await?);
    }
    let (p50, p99) = (time(setup.fsync.p50()), time(setup.fsync.p99()));
    table.note(format!("fdatasync of 8 KiB just before: p50 {p50}, p99 {p99}"));
    Ok(table)
}
