//! `hypercode up`: the platform in the foreground, until SIGTERM or Ctrl-C.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use events::api::{Problem, ProblemKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{Global, Outcome, session};
use crate::api::{self, Service, Token};
use crate::bus;
use crate::config::{Config, LogFormat};
use crate::http::{self, Parts};
use crate::issuers::Issuers;
use crate::platform::Platform;

#[derive(Debug, Args)]
pub(super) struct Up {
    /// Where the HTTP API listens: a loopback address, or any with `tls_cert` and `tls_key`; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// What kind of sandbox agents run in.
    #[arg(long, value_name = "KIND")]
    sandbox: Option<String>,
    /// The NATS server on which events are published and commands taken.
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
}

impl Up {
    pub(super) async fn run(self, global: &Global) -> Outcome {
        let own = [("listen", self.listen), ("sandbox", self.sandbox), ("nats_url", self.nats_url)];
        let flags = own.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let config = session::config(global, flags.collect())?;
        log_to_stderr(&config)?;
        let signals = Signals::new().map_err(unavailable)?;
        let listener = http::bind(config.listen, config.tls()).await.map_err(unavailable)?;
        let platform = Arc::new(Platform::start(&config).await.map_err(unavailable)?);
        let outcome = serve(&config, listener, &platform, signals).await;
        if let Some(platform) = Arc::into_inner(platform) {
            platform.shutdown().await;
        }
        outcome.map(|()| ExitCode::SUCCESS)
    }
}

async fn serve(
    config: &Config,
    listener: http::Listener,
    platform: &Arc<Platform>,
    signals: Signals,
) -> Result<(), Problem> {
    let url = listener.url().map_err(unavailable)?;
    let is_first = !config.token_file().exists();
    let token = Token::read_or_create(&config.token_file()).map_err(unavailable)?;
    if is_first {
        platform.made_token(&token).await?;
    }
    std::fs::write(config.address_file(), format!("{}\n", url.trim_start_matches("http://")))
        .map_err(unavailable)?;
    let stop = CancellationToken::new();
    let (commands, store) = (Arc::clone(&platform.commands), Arc::clone(&platform.store));
    let mut service = Service::new(commands, store, token, api::Limits::from(config))
        .with_eraser(Arc::clone(&platform.eraser))
        .with_keyring(Arc::clone(&platform.keyring))
        .with_secrets(Arc::clone(&platform.secrets));
    if let Some(file) = &config.issuers_file {
        service = service.with_issuers(Issuers::load(file, config.tls_ca.as_deref()).map_err(unavailable)?);
    }
    let service = Arc::new(service);
    let joined = platform.bus.as_ref().map(|bus| join(config, bus, platform, Arc::clone(&service)));
    let mut parts = Parts::of(platform, config, service, stop.clone());
    let joins = joined.iter().map(|joined| Arc::clone(joined) as Arc<dyn http::Dependency>);
    parts.dependencies.extend(joins);
    let limits = parts.limits.clone();
    let router = http::router(parts);
    let said = crate::output::print(&format!(
        "hypercode {} listens on {url}\ndata in {}, admin token in {}",
        env!("CARGO_PKG_VERSION"),
        config.data_dir.display(),
        config.token_file().display()
    ));
    if let Err(problem) = said {
        // The platform works on where nobody hears of it.
        tracing::warn!(%problem, "where it listens could not be said");
    }
    let grace = Duration::from_millis(config.drain_ms);
    let serving = http::serve(listener, router, &limits, stop.clone(), grace);
    let stopping = async {
        signals.wait().await;
        tracing::info!("stopping");
        stop.cancel();
    };
    let leaving = async {
        stop.cancelled().await;
        if let Some(joined) = &joined {
            joined.leave().await;
        }
    };
    tokio::join!(serving, stopping, leaving);
    Ok(())
}

/// Joins the configured bus; that it cannot be reached yet is no fault.
fn join(config: &Config, bus: &nats::Nats, platform: &Platform, service: Arc<Service>) -> Arc<bus::Joined> {
    let parts = bus::Parts {
        service,
        store: Arc::clone(&platform.store),
        node: platform.node.clone(),
        relay: nats::relay::Options { replicas: config.nats.replicas, ..nats::relay::Options::default() },
        limits: bus::Limits { drain_ms: config.drain_ms, ..bus::Limits::default() },
    };
    bus::Joined::join(bus, parts)
}

/// The signals that end the platform in good order.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Catches them from now on, so that none is lost while the platform starts.
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn log_to_stderr(config: &Config) -> Result<(), Problem> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        Problem::new(ProblemKind::Invalid, format!("read the setting `log`: `{}`: {error}", config.log))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        // It would be said on standard error, where a full disk or a closed pipe makes it a panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let started = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| Problem::new(ProblemKind::Internal, format!("start the log: {error}")))
}

fn unavailable(error: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Unavailable, error.to_string())
}
