//! The command line. Commands talk to a running platform over HTTP; only `up`, `demo` and what works offline do not.
//!
//! Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 denied, 4 not found, 5 unavailable.

mod agent;
mod approval;
mod artifact;
mod audit;
mod crew;
mod demo;
mod doctor;
mod evidence;
mod files;
mod handler;
mod image;
mod key;
mod kill;
mod log;
mod migrate;
mod node;
mod offline;
mod patience;
mod pool;
mod profile;
mod projection;
mod replay;
mod role;
mod secret;
mod session;
mod sse;
mod task;
mod tenant;
mod token;
mod up;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use clap::{Args, Parser, Subcommand};
use events::Tenant;
use events::api::Problem;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::api::Details;
use crate::output::{Format, Output, harmless, heard, inert, remark};

use session::Session;

/// The most bytes of a file that a command reads whole.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Runs supervised, event-sourced crews of AI agents.
#[derive(Debug, Parser)]
#[command(name = "hypercode", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The form of what is printed.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "HYPERCODE_OUTPUT",
        hide_env_values = true
    )]
    output: Format,
    /// The platform to talk to [default: where the platform of the data directory listens].
    #[arg(long, global = true, value_name = "URL", env = "HYPERCODE_SERVER", hide_env_values = true)]
    server: Option<String>,
    /// The tenant that it is about [default: the only one that one's roles name, else `default`].
    #[arg(long, global = true, value_name = "NAME", env = "HYPERCODE_TENANT", hide_env_values = true)]
    tenant: Option<Tenant>,
    /// The file that holds the token to show [default: `admin.token` in the data directory].
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the platform keeps its data.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets any key of the configuration; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Have the example crew report on a source tree: nothing else is needed.
    Demo(demo::Demo),
    /// Run the platform until SIGTERM or Ctrl-C.
    Up(up::Up),
    /// Check manifests without a platform: every fault as FILE:LINE:COLUMN, with what would be right.
    Validate(offline::Validate),
    /// Print the JSON Schema of a kind of manifests, for editors.
    Schema(offline::Schema),
    /// Plan, assemble and steer crews.
    #[command(subcommand)]
    Crew(crew::Crew),
    /// See agents and their logs.
    #[command(subcommand)]
    Agent(agent::Agent),
    /// Give tasks and see what comes of them.
    #[command(subcommand)]
    Task(task::Task),
    /// Apply and see profiles.
    #[command(subcommand)]
    Profile(profile::Profile),
    /// Keep sandboxes warm, ready to be claimed.
    #[command(subcommand)]
    Pool(pool::Pool),
    /// Keep and fetch bytes by their SHA-256.
    #[command(subcommand)]
    Artifact(artifact::Artifact),
    /// See and answer what agents ask of people.
    #[command(subcommand)]
    Approval(approval::Approval),
    /// Read and verify the log of everything that happened.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Show what was: the registry at any moment, the life of an entity, what changed.
    Replay(replay::Replay),
    /// Drive a handler without a platform.
    #[command(subcommand)]
    Handler(handler::Handler),
    /// End agents at once, whatever they are doing.
    #[command(subcommand)]
    Kill(kill::Kill),
    /// Make, see and end tokens.
    #[command(subcommand)]
    Token(token::Token),
    /// Give, see and take roles.
    #[command(subcommand)]
    Role(role::Role),
    /// See the tenants whose crews one may see.
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// See, change and end the keys that sign agents' tokens.
    #[command(subcommand)]
    Key(key::Key),
    /// Give agents secrets that nobody is shown.
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Make images for agents that run in containers.
    #[command(subcommand)]
    Image(image::Image),
    /// See the nodes that share the log.
    #[command(subcommand)]
    Node(node::Node),
    /// See and make again what queries read.
    #[command(subcommand)]
    Projection(projection::Projection),
    /// Carry the log over to another database.
    #[command(subcommand)]
    Log(log::Log),
    /// Bring the log to this program's schema.
    Migrate,
    /// Say what is reachable, which versions, what is missing, and how to mend it.
    Doctor,
    /// Say who one is to the platform, by the token that is shown.
    Whoami,
}

/// How a command ends: with an exit code of its own, or with a problem, whose class has one.
type Outcome = Result<ExitCode, Problem>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs a command line, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too.
            let code = if error.use_stderr() { 2 } else { 0 };
            return heard(error.print())
                .map_or_else(|problem| fail(&problem, Format::Table), |()| code.into());
        }
    };
    // A built-in handler is a small program of its own, and needs no runtime.
    if let Command::Handler(handler::Handler::CodeHealth { role }) = &cli.command {
        return crate::code_health::run(role);
    }
    let format = cli.global.output;
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            remark(format_args!("hypercode: start the runtime's threads: {error}"));
            return ExitCode::from(5);
        }
    };
    let outcome = runtime.block_on(cli.command.run(&cli.global));
    // A read of standard input cannot be interrupted, and must not keep the program.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|problem| fail(&problem, format))
}

fn fail(problem: &Problem, format: Format) -> ExitCode {
    report(problem, format);
    ExitCode::from(problem.kind.exit_code())
}

/// The runtime, whose threads are tried first: where one cannot be started, tokio would panic, or wait for ever.
fn runtime() -> io::Result<Runtime> {
    let threads = thread::available_parallelism()?.get();
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let _all_at_once = gate.lock();
        for _ in 0..threads {
            thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()))?;
        }
        io::Result::Ok(())
    })?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

impl Command {
    async fn run(self, global: &Global) -> Outcome {
        let output = Output::stdout(global.output);
        match self {
            Self::Demo(demo) => Box::pin(demo.run(global, output)).await,
            Self::Up(up) => Box::pin(up.run(global)).await,
            Self::Projection(projection) => projection.run(&Session::open(global, output)?).await,
            Self::Validate(validate) => validate.run(output),
            Self::Schema(schema) => schema.run(output),
            Self::Handler(handler) => handler.run(output).await,
            Self::Audit(audit) => audit.run(global, output).await,
            Self::Replay(replay) => replay.run(global, output).await,
            Self::Crew(crew) => crew.run(&Session::open(global, output)?).await,
            Self::Agent(agent) => agent.run(&Session::open(global, output)?).await,
            Self::Task(task) => task.run(&Session::open(global, output)?).await,
            Self::Profile(profile) => profile.run(&Session::open(global, output)?).await,
            Self::Pool(pool) => pool.run(&Session::open(global, output)?).await,
            Self::Artifact(artifact) => artifact.run(&Session::open(global, output)?).await,
            Self::Approval(approval) => approval.run(&Session::open(global, output)?).await,
            Self::Log(log) => log.run(output).await,
            Self::Token(token) => token.run(&Session::open(global, output)?).await,
            Self::Role(role) => role.run(&Session::open(global, output)?).await,
            Self::Tenant(tenant) => tenant.run(&Session::open(global, output)?).await,
            Self::Kill(kill) => kill.run(&Session::open(global, output)?).await,
            Self::Key(key) => key.run(&Session::open(global, output)?).await,
            Self::Secret(secret) => secret.run(&Session::open(global, output)?).await,
            Self::Migrate => migrate::run(global, output).await,
            Self::Node(node) => node.run(&Session::open(global, output)?).await,
            Self::Image(image) => Box::pin(image.run(global, output)).await,
            Self::Doctor => Box::pin(doctor::run(global, output)).await,
            Self::Whoami => {
                let session = Session::open(global, output)?;
                output.details(&session.client.get("/v1/whoami", &[]).await?)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Says on standard error what went wrong: as problem details where the output is for programs.
fn report(problem: &Problem, format: Format) {
    match format {
        Format::Table => {
            remark(format_args!("hypercode: {}", harmless(&problem.detail)));
            for fault in &problem.faults {
                let line = fault["message"].as_str().map_or_else(|| fault.to_string(), str::to_owned);
                remark(format_args!("  {}", harmless(&line)));
            }
            if let Some(position) = problem.position {
                remark(format_args!("  recorded at position {position}"));
            }
        }
        Format::Json | Format::Yaml => {
            let details = serde_json::to_value(Details::from(problem.clone())).unwrap_or(Value::Null);
            remark(inert(&details.to_string()));
        }
    }
}

#[cfg(test)]
mod tests;
