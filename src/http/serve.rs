//! Listening, and stopping without dropping what is being answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use crate::tls::{Files, Shown, TlsError};

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others than this machine could reach it.
    #[error(
        "listen on `{0}`: others than this machine could reach it and read tokens on their way; set `tls_cert` and `tls_key`, or listen on a loopback address"
    )]
    NotLoopback(SocketAddr),
    /// The certificate cannot be shown.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refused.
    #[error(
        "listen on `{address}`: {error}; is another platform running there? choose another address with `--listen`"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// Where the API is listened for, and whether in TLS.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// The address with the port that it has.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The URL under which the API is found at its own address.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.local_addr()?))
    }
}

/// Listens on a loopback address, or on any with a certificate; port 0 takes a free one.
pub async fn bind(address: SocketAddr, certificate: Option<Files>) -> Result<Listener, ServeError> {
    if certificate.is_none() && !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    let tls = certificate.map(|files| Shown::read(files).map(Shown::acceptor)).transpose()?;
    let tcp = TcpListener::bind(address).await.map_err(|error| ServeError::Bind { address, error })?;
    Ok(Listener { tcp, tls })
}

/// Serves until `stop`, then lets what is being answered go on for at most `grace`.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: &Limits,
    stop: CancellationToken,
    grace: Duration,
) {
    let Listener { tcp, tls } = listener;
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    let head = Duration::from_millis(limits.head_ms);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head);
    let answering = Answering { builder, router, stop: stop.clone(), grace };
    while let Some((stream, slot)) = accept(&tcp, &slots, &stop).await {
        let (answering, tls) = (answering.clone(), tls.clone());
        connections.spawn(async move {
            let _slot = slot;
            let Some(tls) = tls else { return answering.on(stream).await };
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(head, tls.accept(stream)) => shaken,
                () = answering.stop.cancelled() => return,
            };
            // Who speaks no TLS, or takes too long to, is told so by the protocol alone.
            if let Ok(Ok(stream)) = shaken {
                answering.on(stream).await;
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// What every connection is answered with.
#[derive(Clone)]
struct Answering {
    builder: http1::Builder,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
}

impl Answering {
    async fn on(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = TowerToHyperService::new(self.router.clone());
        let mut connection = std::pin::pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        // What a client does to its connection is its own affair: there is nobody to tell.
        let _ = tokio::time::timeout(self.grace, connection).await;
    }
}

/// The next connection and its slot; `None` once it is time to stop.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let next = async {
        let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, slot),
                // Out of file descriptors, or the peer is gone already: neither is a reason to spin.
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        next = next => Some(next),
        () = stop.cancelled() => None,
    }
}
