//! What stands between the platform and the daemon, and has the daemon lie, hang or go away.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hypercode_sandbox::Docker;
use hypercode_sandbox::conformance::instance;
use hypercode_sandbox::docker::{self, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::support::Place;

pub(crate) struct Proxy {
    socket: PathBuf,
    faults: Arc<Faults>,
    /// Passes nothing on.
    pub(crate) hangs: watch::Sender<bool>,
    /// Counts up to have all connections cut.
    cut: watch::Sender<u32>,
}

#[derive(Default)]
struct Faults {
    /// Says of every container that it is privileged.
    lies: AtomicBool,
    /// Cuts every connection with a request that holds this text.
    cut_off: Mutex<Option<String>>,
}

impl Proxy {
    pub(crate) fn start(directory: &Path) -> Self {
        let socket = directory.join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let faults = Arc::new(Faults::default());
        let (hangs, cut) = (watch::Sender::new(false), watch::Sender::new(0));
        let (theirs, halted, severed) = (Arc::clone(&faults), hangs.subscribe(), cut.subscribe());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (faults, hangs, mut cut) = (Arc::clone(&theirs), halted.clone(), severed.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(client, faults, hangs) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { socket, faults, hangs, cut }
    }

    /// A provider that knows the daemon by this only.
    pub(crate) async fn provider(&self, place: &Place) -> Docker {
        let mut options = Options { socket: self.socket.clone(), ..place.options(&instance()) };
        options.limits.call_ms = 2_000;
        options.limits.start_ms = 20_000;
        options.limits.daemon_ms = 4_000;
        Docker::open(options).await.unwrap()
    }

    pub(crate) fn lie(&self, lies: bool) {
        self.faults.lies.store(lies, Ordering::Relaxed);
    }

    pub(crate) fn cut_off(&self, request: Option<&str>) {
        *self.faults.cut_off.lock().unwrap() = request.map(str::to_owned);
    }

    /// Cuts all connections that there are.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

async fn pass(client: UnixStream, faults: Arc<Faults>, hangs: watch::Receiver<bool>) {
    let Ok(daemon) = UnixStream::connect(docker::SOCKET).await else { return };
    let ((from_client, to_client), (from_daemon, to_daemon)) = (client.into_split(), daemon.into_split());
    let asked = |text: String| {
        let is_cut_off = faults.cut_off.lock().unwrap().as_ref().is_some_and(|part| text.contains(part));
        (!is_cut_off).then_some(text)
    };
    let answered = |text: String| match faults.lies.load(Ordering::Relaxed) {
        // As long as the truth, so that the lengths in the answer hold.
        true => Some(text.replace("\"Privileged\":false", "\"Privileged\": true")),
        false => Some(text),
    };
    let (_never, never) = watch::channel(false);
    tokio::select! {
        () = each(from_client, to_daemon, never, asked) => {}
        () = each(from_daemon, to_client, hangs, answered) => {}
    }
}

/// Passes on what `change` makes of every piece, until it makes nothing of one.
async fn each(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut hangs: watch::Receiver<bool>,
    change: impl Fn(String) -> Option<String>,
) {
    let mut bytes = vec![0; 1 << 20];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if hangs.wait_for(|hangs| !hangs).await.is_err() {
            return;
        }
        let Some(text) = change(String::from_utf8_lossy(&bytes[..count]).into_owned()) else { return };
        if to.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}
