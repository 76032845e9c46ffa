//! The sandbox of namespaces: the laws of the seam, and what only it can get wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hypercode_sandbox::conformance::{
    COUNTING, Factory, assert_gone, counts_on, instance, spec, within, written,
};
use hypercode_sandbox::{
    Confinement, Error, Instance, Kept, Kind, Level, Options, Provider, Running, Spec, prove,
};
use tempfile::TempDir;

const STUB: &str = env!("CARGO_BIN_EXE_sandbox-stub");

struct Place {
    dir: TempDir,
    control_groups: bool,
}

impl Place {
    fn new(control_groups: bool) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), control_groups }
    }

    fn options(&self, instance: &Instance) -> Options {
        let mut options = Options::new(self.dir.path().join("sandboxes"), instance.clone());
        options.keeper = PathBuf::from(STUB);
        options.control_groups = self.control_groups;
        options.confinement = Some(Confinement::new());
        options
    }
}

#[async_trait]
impl Factory for Place {
    type Provider = Kept;

    async fn open(&self, instance: &Instance) -> Kept {
        Kept::open(self.options(instance)).await.unwrap()
    }

    fn scratch(&self) -> &Path {
        self.dir.path()
    }

    fn work(&self, running: &Running) -> PathBuf {
        let runner = running.runner.unwrap().pid;
        PathBuf::from(format!("/proc/{runner}/root{}", running.work.display()))
    }

    fn socket(&self, spec: &Spec, _: &str) -> PathBuf {
        Path::new("/run/hypercode").join(spec.socket.file_name().unwrap())
    }

    fn may_hold(&self, spec: &Spec, file: &str) -> bool {
        file == "/dev/null" || file.starts_with("/workspace/") || file.contains(spec.id.as_str())
    }
}

/// As most machines have it.
mod with_control_groups {
    use super::Place;
    hypercode_sandbox::sandbox_conformance!(Place::new(true));
}

/// As in a container, where the keeper has nothing but itself.
mod without_control_groups {
    use super::Place;
    hypercode_sandbox::sandbox_conformance!(Place::new(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_finds_no_way_out_of_namespaces_and_several_out_of_processes() {
    let place = Place::new(true);
    let provider = place.open(&instance()).await;
    assert_eq!((provider.kind(), provider.isolation().level), (Kind::Native, Level::Namespaces));
    let link = place.dir.path().join("link");
    std::fs::create_dir(&link).unwrap();
    let hidden = [place.dir.path(), Path::new("/root"), Path::new("/home")];
    prove(&provider, Path::new(STUB), &link, &hidden, false).await.unwrap();
    assert_eq!(provider.list().await.unwrap(), []);

    let open = Kept::open(Options { confinement: None, ..place.options(&instance()) }).await.unwrap();
    let breaches = prove(&open, Path::new(STUB), &link, &hidden, false).await.unwrap_err();
    assert!(breaches.contains("other processes"), "{breaches}");
}

/// A paused sandbox stands still, goes on where it was, and ends while it stands still.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sandbox_stands_still_until_it_goes_on() {
    let place = Place::new(true);
    let provider = place.open(&instance()).await;
    let (spec, other) = (spec(&place, COUNTING), spec(&place, COUNTING));
    let running = provider.create(&spec).await.unwrap();
    let beside = provider.create(&other).await.unwrap();
    let count = async || written(&place, &running, "count").await.trim().parse::<u64>().unwrap();
    count().await;
    match provider.pause(&spec.id).await {
        Err(Error::Unsupported { .. }) => {
            let is_root = nix::unistd::geteuid().is_root();
            assert!(!is_root || std::env::var_os("CI").is_none(), "no control group here can be frozen");
            eprintln!("skipped: no control group here can be frozen");
            provider.destroy(&other.id).await.unwrap();
            return provider.destroy(&spec.id).await.unwrap();
        }
        paused => paused.unwrap(),
    }
    let still = count().await;
    counts_on(&place, &beside).await;
    assert_eq!(count().await, still);
    provider.destroy(&other.id).await.unwrap();
    provider.pause(&spec.id).await.unwrap();
    provider.unpause(&spec.id).await.unwrap();
    within("it goes on", async { while count().await == still {} }).await;
    provider.pause(&spec.id).await.unwrap();
    provider.destroy(&spec.id).await.unwrap();
    assert_gone(&spec.id, "paused");
}
