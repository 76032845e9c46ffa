//! The platform's HTTP API, for benches whose users come that way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hypercode::api::{self, Service, Token};
use hypercode::client::Client;
use hypercode::http::{self, Limits, Parts};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::rig::Rig;

/// How long answers that are under way may take at the end.
const GRACE: Duration = Duration::from_secs(5);
/// How long a connection may be idle, in milliseconds.
const IDLE_MS: u64 = 3_600_000;

/// The most that the setting allows: no bench asks so often.
const REQUESTS_PER_SECOND: u32 = 1_000_000;

/// A server on a free port of this machine, and a client of it.
pub(crate) struct Door {
    pub(crate) client: Client,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Door {
    pub(crate) async fn open(rig: &Rig) -> Result<Self> {
        let (platform, config) = (&rig.platform, &rig.config);
        let listener = http::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await?;
        let address = listener.local_addr()?;
        let base = format!("http://{address}");
        let token = Token::read_or_create(&config.token_file())?;
        let client = Client::new(&base, token.clone(), None)?;
        // A connection that waited while a pool was filled is used again: it must not be closed just then.
        let limits = Limits { head_ms: IDLE_MS, ..Limits::from(config) };
        let stop = CancellationToken::new();
        let (commands, store) = (Arc::clone(&platform.commands), Arc::clone(&platform.store));
        // What is measured is how fast it answers, not how fast one may ask.
        let bounds = api::Limits { requests_per_second: REQUESTS_PER_SECOND, ..api::Limits::from(config) };
        let service = Arc::new(Service::new(commands, store, token, bounds));
        let parts = Parts { limits: limits.clone(), ..Parts::of(platform, config, service, stop.clone()) };
        let router = http::router(parts);
        let stopped = stop.clone();
        let serving =
            tokio::spawn(async move { http::serve(listener, router, &limits, stopped, GRACE).await });
        Ok(Self { client, address, stop, serving })
    }

    /// Ends the server, which then uses the platform no more.
    pub(crate) async fn close(self) -> Result<()> {
        drop(self.client);
        self.stop.cancel();
        Ok(self.serving.await?)
    }
}
