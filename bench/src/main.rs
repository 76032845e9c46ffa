//! Measures the platform against the limits of the machine that it runs on.
//!
//! Every bench measures the raw limit and the platform in turn, in the same run, since a disk's speed moves from
//! minute to minute: only the ratios last.

mod append;
mod bare;
mod claim;
mod density;
mod door;
mod lag;
mod life;
mod load;
mod machine;
mod message;
mod peers;
mod place;
mod pools;
mod recover;
mod relay;
mod replay;
mod restart;
mod rig;
mod samples;
mod sandboxes;
mod security;
mod start;
mod steps;
mod sweep;
mod table;
mod task;
mod worker;

use std::error::Error;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use events::store::postgres::server::Server;
use tokio::signal::unix::{SignalKind, signal};

use crate::place::{Kind, Place};
use crate::samples::Samples;
use crate::sandboxes::Sandbox;
use crate::table::{Table, time};

/// Where files are written unless it is said otherwise.
const DIRECTORY: &str = "target/bench";
/// Agents of a crew, where crews are assembled.
const ASSEMBLED: usize = 5;
/// How long what was stopped may take to end.
const REST: Duration = Duration::from_secs(10);

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
    /// Where the files are written; must be on the disk that is to be measured [default: `target/bench`, and for Postgres
    /// the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long each measurement runs, in seconds.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Which stores are measured, where a bench is about a store; all without it.
    #[arg(long, value_name = "STORE")]
    store: Vec<Kind>,
    /// Which sandboxes are measured, where a bench is about sandboxes; all that can be had without it.
    #[arg(long, value_name = "KIND")]
    sandbox: Vec<Sandbox>,
    /// Where `sweep` writes its table and its plot.
    #[arg(long, value_name = "DIR", default_value = "docs")]
    plots: PathBuf,
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
    /// Agents that start, from warm pools and cold.
    Claim,
    /// Crews of five that start, from warm pools and cold.
    Assemble,
    /// Claims that come more and more often, until the pool drains.
    Sweep,
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
    /// Memory of many agents and of sandboxes, and the start of an empty platform.
    Density,
    /// Requests, messages and tokens that are checked, beside what is not.
    Security,
}

impl Name {
    fn title(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it is about a store, and so measured on each.
    fn is_about_stores(self) -> bool {
        matches!(self, Self::Append | Self::Load | Self::Task | Self::Message | Self::Lag | Self::Replay)
    }

    /// Whether it measures one kind of sandbox at a time.
    fn is_of_one_kind(self) -> bool {
        matches!(self, Self::Claim | Self::Assemble | Self::Recover | Self::Restart)
    }
}

/// Where and how long a bench measures.
struct Setup {
    /// Empty, and removed afterwards.
    directory: PathBuf,
    /// Where the log is: that, or where the server has its files.
    disk: PathBuf,
    /// The server that was started for this bench, if it is to measure Postgres.
    server: Option<Server>,
    /// The kinds of sandboxes to measure: one where the bench takes one at a time.
    sandboxes: Vec<Sandbox>,
    /// Where plots are written.
    plots: PathBuf,
    seconds: u64,
    /// How many events a long log has.
    events: u64,
    /// How long the disk took just before.
    fsync: Samples,
}

impl Setup {
    /// How long the disk took just before, in words.
    fn fsync_note(&self) -> String {
        let (p50, p99) = (time(self.fsync.p50()), time(self.fsync.p99()));
        format!("fdatasync of 8 KiB just before: p50 {p50}, p99 {p99}")
    }

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
        (_, Some("hello")) => args
            .get(2)
            .ok_or_else(|| "it needs a socket".into())
            .and_then(|socket| bare::start::hello(socket.as_ref())),
        (_, Some("platform")) => runtime().and_then(|runtime| {
            let directory = args.get(2).ok_or("the platform needs a directory")?;
            let kind = args.get(3).and_then(|kind| kind.to_str()).ok_or("it needs a kind of sandbox")?;
            runtime.block_on(restart::serve(directory.into(), kind))
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
    let directory = args.dir.clone().unwrap_or_else(|| DIRECTORY.into());
    std::fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    println!("{}", machine::describe(&directory));
    let mut missed = 0;
    for name in &args.names {
        for variant in variants(*name, args) {
            eprintln!("measuring {} …", variant.title);
            let table = measured(*name, &variant, args, &directory)?;
            println!("\n## {}\n\n{table}", variant.title);
            missed += table.missed();
        }
    }
    println!("{missed} goals missed");
    Ok(())
}

/// What a bench is measured on.
struct Variant {
    title: String,
    store: Option<Kind>,
    sandboxes: Vec<Sandbox>,
}

/// Every variant of a bench that is asked for.
fn variants(name: Name, args: &Args) -> Vec<Variant> {
    let title = name.title();
    let on = |store: &Kind| Variant {
        title: match store {
            Kind::Postgres => format!("{title}, on Postgres"),
            Kind::Sqlite => format!("{title}, on SQLite"),
        },
        store: Some(*store),
        sandboxes: Vec::new(),
    };
    let kinds = || if args.sandbox.is_empty() { Sandbox::all() } else { args.sandbox.clone() };
    let of =
        |kind: Sandbox| Variant { title: format!("{title}, {kind}"), store: None, sandboxes: vec![kind] };
    match name {
        Name::Peers => vec![on(&Kind::Postgres)],
        name if name.is_about_stores() && args.store.is_empty() => {
            Kind::value_variants().iter().map(on).collect()
        }
        name if name.is_about_stores() => args.store.iter().map(on).collect(),
        name if name.is_of_one_kind() => kinds().into_iter().map(of).collect(),
        Name::Sweep | Name::Density => vec![Variant { title, store: None, sandboxes: kinds() }],
        _ => vec![Variant { title, store: None, sandboxes: Vec::new() }],
    }
}

/// Runs one bench, and removes what it leaves, however it ends.
fn measured(name: Name, variant: &Variant, args: &Args, directory: &Path) -> Result<Table> {
    let place = tempfile::tempdir_in(directory)?;
    let files = server_files(args, directory)?;
    let server = (variant.store == Some(Kind::Postgres)).then(|| match &files {
        Some(files) => Server::of_its_own_in(files.path().join("server")),
        None => Server::of_its_own(),
    });
    let disk = match (&server, &files) {
        (Some(_), None) => std::env::temp_dir(),
        (Some(_), Some(_)) => directory.to_owned(),
        _ => place.path().to_owned(),
    };
    let fsync = machine::fsync_probe(&disk)?;
    let setup = Setup {
        directory: place.path().to_owned(),
        disk,
        server,
        sandboxes: variant.sandboxes.clone(),
        plots: args.plots.clone(),
        seconds: args.seconds,
        events: args.events,
        fsync,
    };
    let running = runtime()?;
    let outcome = running.block_on(async {
        tokio::select! {
            table = measure(name, &setup) => table,
            error = interrupted() => Err(error),
        }
    });
    // Whatever still runs of a bench that did not come to its end makes nothing any more.
    running.shutdown_timeout(REST);
    let cleaned = runtime()?.block_on(sandboxes::clean(place.path(), &setup.sandboxes));
    outcome.and_then(|table| cleaned.map(|()| table))
}

/// A directory for the files of a server where one is asked for: the server may have a user of its own.
fn server_files(args: &Args, directory: &Path) -> Result<Option<tempfile::TempDir>> {
    if args.dir.is_none() {
        return Ok(None);
    }
    let files = tempfile::Builder::new().prefix("pg-").tempdir_in(directory)?;
    std::fs::set_permissions(files.path(), std::fs::Permissions::from_mode(0o1777))?;
    Ok(Some(files))
}

/// Waits until somebody wants the bench to end.
async fn interrupted() -> Box<dyn Error + Send + Sync> {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
    "it was interrupted; what it had started is removed".into()
}

/// Runs one bench.
async fn measure(name: Name, setup: &Setup) -> Result<Table> {
    if setup.sandboxes.contains(&Sandbox::Docker) {
        sandboxes::build_image().await?;
    }
    let kind = setup.sandboxes.first().copied().unwrap_or(Sandbox::Process);
    let mut table = match name {
        Name::Append => append::run(setup).await?,
        Name::Load => load::run(setup).await?,
        Name::Task => task::run(setup).await?,
        Name::Message => message::run(setup).await?,
        Name::Start => Box::pin(start::run(setup)).await?,
        Name::Claim => Box::pin(claim::run(setup, kind, 1)).await?,
        Name::Assemble => Box::pin(claim::run(setup, kind, ASSEMBLED)).await?,
        Name::Sweep => Box::pin(sweep::run(setup)).await?,
        Name::Recover => Box::pin(recover::run(setup, kind)).await?,
        Name::Restart => Box::pin(restart::run(setup, kind)).await?,
        Name::Relay => relay::run(setup).await?,
        Name::Lag => lag::run(setup).await?,
        Name::Replay => Box::pin(replay::run(setup)).await?,
        Name::Peers => peers::run(setup).await?,
        Name::Density => Box::pin(density::run(setup)).await?,
        Name::Security => Box::pin(security::run(setup)).await?,
    };
    if let Some(server) = &setup.server {
        table.note(machine::server(&server.database().await, &setup.disk).await?);
    }
    table.note(setup.fsync_note());
    Ok(table)
}
