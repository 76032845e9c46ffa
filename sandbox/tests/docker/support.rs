//! The daemon, an image with a shell and Python, and a place for each test.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

use async_trait::async_trait;
use hypercode_sandbox::conformance::Factory;
use hypercode_sandbox::docker::{self, Link, Options, Subnets, image};
use hypercode_sandbox::{Docker, Instance, Running, Spec};
use tempfile::TempDir;

/// What the stand-ins for the runner are run with. It stays for the next run.
const IMAGE: &str = "hypercode-tests/python:2";
/// What is the relay, and the canary.
pub(crate) const STUB: &str = env!("CARGO_BIN_EXE_sandbox-stub");

/// A place of one test. The daemon is everybody's, so its instances are its own.
pub(crate) struct Place {
    dir: TempDir,
    salt: u32,
    link: Link,
    opened: Mutex<HashSet<Instance>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(Link::Socket)
    }

    /// One whose sandboxes come to the platform over TCP.
    pub(crate) fn over_tcp() -> Self {
        Self::with(Link::Tcp { subnets: Subnets::DEFAULT, relay: STUB.into() })
    }

    fn with(link: Link) -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        Self {
            dir: tempfile::tempdir().unwrap(),
            salt: now ^ std::process::id().rotate_left(16),
            link,
            opened: Mutex::default(),
        }
    }

    pub(crate) fn options(&self, instance: &Instance) -> Options {
        let number = u32::from_str_radix(instance.as_str(), 16).unwrap() ^ self.salt;
        let own = Instance::new(format!("{number:08x}")).unwrap();
        self.opened.lock().unwrap().insert(own.clone());
        let mut options = Options::new(self.dir.path().join("sandboxes"), own);
        options.image = IMAGE.to_owned();
        options.link = self.link.clone();
        options
    }

    /// A provider over the daemon of this host; `None`, and a line, where there is none outside of CI.
    pub(crate) async fn provider(&self, instance: &Instance) -> Option<Docker> {
        if !self.is_available() {
            return None;
        }
        let provider = Docker::open(self.options(instance)).await.unwrap();
        with_image(&provider).await;
        Some(provider)
    }
}

/// What the command line of Docker answers.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a test that failed left behind is nobody else's to remove.
impl Drop for Place {
    fn drop(&mut self) {
        for instance in self.opened.lock().unwrap().iter() {
            let filter = format!("label=hypercode.instance={instance}");
            let left = Command::new("docker")
                .args(["ps", "--all", "--quiet", "--filter", &filter])
                .output()
                .unwrap();
            let left = String::from_utf8(left.stdout).unwrap();
            if !left.trim().is_empty() {
                Command::new("docker")
                    .args(["rm", "--force", "--volumes"])
                    .args(left.split_whitespace())
                    .output()
                    .unwrap();
            }
            if self.link != Link::Socket {
                Command::new("docker")
                    .args(["network", "prune", "--force", "--filter", &filter])
                    .output()
                    .unwrap();
            }
        }
    }
}

/// Makes the image where it is missing, one test at a time.
pub(crate) async fn with_image(provider: &Docker) {
    if provider.image(IMAGE).await.unwrap().is_some() {
        return;
    }
    let lock = File::create(std::env::temp_dir().join("hypercode-tests-image.lock")).unwrap();
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
    if provider.image(IMAGE).await.unwrap().is_none() {
        let mut files = image::python().unwrap();
        files.libraries(Path::new(STUB)).unwrap();
        provider.import(IMAGE, files, &[]).await.unwrap();
    }
    drop(lock);
}

#[async_trait]
impl Factory for Place {
    type Provider = Docker;

    fn is_available(&self) -> bool {
        let is_there = std::os::unix::net::UnixStream::connect(docker::SOCKET).is_ok();
        assert!(
            is_there || std::env::var_os("CI").is_none(),
            "no Docker daemon listens at {}",
            docker::SOCKET
        );
        if !is_there {
            eprintln!("skipped: no Docker daemon listens at {}", docker::SOCKET);
        }
        is_there
    }

    async fn open(&self, instance: &Instance) -> Docker {
        self.provider(instance).await.unwrap()
    }

    fn scratch(&self) -> &Path {
        self.dir.path()
    }

    fn work(&self, running: &Running) -> PathBuf {
        let runner = running.runner.map_or(0, |runner| runner.pid);
        let work = running.work.strip_prefix("/").unwrap();
        Path::new("/proc").join(runner.to_string()).join("root").join(work)
    }

    fn socket(&self, spec: &Spec, told: &str) -> PathBuf {
        match self.link {
            Link::Socket => Path::new("/run/hypercode").join(spec.socket.file_name().unwrap()),
            Link::Tcp { .. } => {
                assert!(told.starts_with("tcp:10.81.") && told.ends_with(":7400"), "{told}");
                told.into()
            }
        }
    }

    fn may_hold(&self, _: &Spec, file: &str) -> bool {
        // The daemon's log, the script and the test's own files.
        file == "/dev/null" || ["pipe:", "/hypercode/", "/workspace/"].iter().any(|own| file.starts_with(own))
    }

    fn many(&self) -> usize {
        match self.link {
            Link::Socket => 20,
            Link::Tcp { .. } => 5,
        }
    }
}
