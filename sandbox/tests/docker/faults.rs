//! A daemon that lies, hangs or goes away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hypercode_sandbox::conformance::{
    COUNTING, alive, assert_gone, counts_on, fresh_id, instance, spec, within, written,
};
use hypercode_sandbox::docker::{self, Options};
use hypercode_sandbox::{Docker, Error, Provider, Signal, State, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::support::Place;

const IDLE: &str = "#!/bin/sh\n: >$4\necho yes >ready\nexec tail -f $4\n";

/// What stands between the platform and the daemon.
struct Proxy {
    socket: PathBuf,
    /// Says of every container that it is privileged.
    lies: Arc<AtomicBool>,
    /// Passes nothing on.
    hangs: watch::Sender<bool>,
    /// Counts up to have all connections cut.
    cut: watch::Sender<u32>,
}

impl Proxy {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let lies = Arc::new(AtomicBool::new(false));
        let (hangs, cut) = (watch::Sender::new(false), watch::Sender::new(0));
        let (told, halted, severed) = (Arc::clone(&lies), hangs.subscribe(), cut.subscribe());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (lies, hangs, mut cut) = (Arc::clone(&told), halted.clone(), severed.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(client, &lies, hangs) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { socket, lies, hangs, cut }
    }
}

async fn pass(client: UnixStream, lies: &AtomicBool, mut hangs: watch::Receiver<bool>) {
    let Ok(daemon) = UnixStream::connect(docker::SOCKET).await else { return };
    let ((mut from_client, mut to_client), (mut from_daemon, mut to_daemon)) =
        (client.into_split(), daemon.into_split());
    let there = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_daemon).await;
    };
    let back = async {
        let mut bytes = vec![0; 1 << 20];
        while let Ok(count @ 1..) = from_daemon.read(&mut bytes).await {
            if hangs.wait_for(|hangs| !hangs).await.is_err() {
                return;
            }
            let mut text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if lies.load(Ordering::Relaxed) {
                // As long as the truth, so that the lengths in the answer hold.
                text = text.replace("\"Privileged\":false", "\"Privileged\": true");
            }
            if to_client.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

async fn behind(place: &Place, proxy: &Proxy) -> Docker {
    let mut options = Options { socket: proxy.socket.clone(), ..place.options(&instance()) };
    options.limits.call_ms = 2_000;
    options.limits.start_ms = 20_000;
    options.limits.daemon_ms = 4_000;
    Docker::open(options).await.unwrap()
}

/// T32: a container that is not what was asked for is killed before it may speak.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_drifted_is_killed() {
    let place = Place::new();
    let Some(_) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(hypercode_sandbox::conformance::Factory::scratch(&place));
    let provider = behind(&place, &proxy).await;
    proxy.lies.store(true, Ordering::Relaxed);
    let spec = spec(&place, IDLE);
    let error = provider.create(&spec).await.unwrap_err();
    assert!(error.to_string().contains("`HostConfig.Privileged` is `true`"), "{error}");
    assert_gone(&spec.id, "the one that drifted");
    assert_eq!(provider.find(&spec.id).await.unwrap(), None);
    let again = provider.create(&spec).await;
    assert!(matches!(again, Err(Error::Used { .. })), "{again:?}");
}

/// A daemon that hangs costs a call its time, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_given_up_on() {
    let place = Place::new();
    let Some(_) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(hypercode_sandbox::conformance::Factory::scratch(&place));
    let provider = behind(&place, &proxy).await;
    let spec = spec(&place, IDLE);
    provider.create(&spec).await.unwrap();

    proxy.hangs.send_replace(true);
    let hung = within("an answer", provider.find(&spec.id)).await;
    assert!(matches!(hung, Err(Error::Daemon { .. })), "{hung:?}");
    let hung = within("an answer", provider.destroy(&spec.id)).await;
    assert!(matches!(hung, Err(Error::Daemon { .. })), "{hung:?}");
    proxy.hangs.send_replace(false);
    within("the second try", provider.destroy(&spec.id)).await.unwrap();
    assert_gone(&spec.id, "at the second try");
}

/// What ends while the events are not heard is announced when the daemon is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_exit_behind_a_lost_stream_is_announced() {
    let place = Place::new();
    let Some(direct) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(hypercode_sandbox::conformance::Factory::scratch(&place));
    let provider = behind(&place, &proxy).await;
    let mut exits = provider.exits();
    let (killed, removed) = (spec(&place, IDLE), spec(&place, IDLE));
    for spec in [&killed, &removed] {
        let running = provider.create(spec).await.unwrap();
        written(&place, &running, "ready").await;
    }
    proxy.hangs.send_replace(true);
    direct.signal(&killed.id, Target::Runner, Signal::Kill).await.unwrap();
    let _ =
        std::process::Command::new("docker").args(["rm", "--force", removed.id.as_str()]).output().unwrap();
    proxy.cut.send_modify(|count| *count += 1);
    proxy.hangs.send_replace(false);

    let mut seen = [exits.recv().await.unwrap(), within("the other exit", exits.recv()).await.unwrap()];
    seen.sort_by_key(|exit| exit.id == removed.id);
    assert_eq!((&seen[0].id, seen[0].signal), (&killed.id, Some(9)));
    assert_eq!(
        (&seen[1].id, seen[1].signal, seen[1].code),
        (&removed.id, None, None),
        "nobody saw how it ended"
    );
    provider.destroy(&killed.id).await.unwrap();
    provider.destroy(&removed.id).await.unwrap();
    assert!(alive(&removed.id).is_empty());
}

/// A daemon that is not there is named, with the socket at which it was looked for.
#[tokio::test]
async fn a_daemon_that_is_not_there_is_named() {
    let place = Place::new();
    let options = Options { socket: "/nonexistent/docker.sock".into(), ..place.options(&instance()) };
    let error = Docker::open(options).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/docker.sock"), "{error}");
}

/// A platform that was killed between making a container and starting it goes on with the same one.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_never_started_is_started_once() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let first = spec(&place, IDLE);
    let running = provider.create(&first).await.unwrap();
    written(&place, &running, "ready").await;
    provider.destroy(&first.id).await.unwrap();

    let stranger = fresh_id();
    let made = std::process::Command::new("docker")
        .args([
            "create",
            "--name",
            stranger.as_str(),
            "--network",
            "none",
            &place.options(&instance()).image,
            "/bin/true",
        ])
        .output()
        .unwrap();
    assert!(made.status.success());
    let mut theirs = spec(&place, IDLE);
    theirs.id = stranger.clone();
    let refused = provider.create(&theirs).await;
    assert!(matches!(refused, Err(Error::Used { .. })), "a container of nobody's is left alone: {refused:?}");
    assert_eq!(provider.find(&stranger).await.unwrap(), None);
    provider.destroy(&stranger).await.unwrap();
    let left = std::process::Command::new("docker").args(["rm", stranger.as_str()]).output().unwrap();
    assert!(left.status.success(), "it was still there");
}

/// Paused, a sandbox stands still; limits can be raised while it runs.
#[tokio::test(flavor = "multi_thread")]
async fn it_pauses_goes_on_and_grows() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let (spec, other) = (spec(&place, COUNTING), spec(&place, COUNTING));
    let running = provider.create(&spec).await.unwrap();
    let beside = provider.create(&other).await.unwrap();
    written(&place, &running, "count").await;
    provider.pause(&spec.id).await.unwrap();
    provider.pause(&spec.id).await.unwrap();
    let count = written(&place, &running, "count").await;
    counts_on(&place, &beside).await;
    assert_eq!(written(&place, &running, "count").await, count);
    provider.destroy(&other.id).await.unwrap();
    assert!(matches!(provider.find(&spec.id).await.unwrap().unwrap().state, State::Running(Some(_))));
    provider.unpause(&spec.id).await.unwrap();
    within("it goes on", async {
        while written(&place, &running, "count").await == count {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let more = hypercode_sandbox::Resources { memory_bytes: 1 << 30, pids: 512, ..spec.resources };
    provider.update(&spec.id, &more).await.unwrap();
    let cgroup = std::process::Command::new("docker")
        .args([
            "inspect",
            "--format",
            "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}}",
            spec.id.as_str(),
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(cgroup.stdout).unwrap().trim(), "1073741824 1073741824 512");
    provider.pause(&spec.id).await.unwrap();
    provider.destroy(&spec.id).await.unwrap();
    assert_gone(&spec.id, "paused");
    assert!(matches!(provider.pause(&spec.id).await, Err(Error::NotRunning { .. })));
}
