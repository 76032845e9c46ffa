//! The kinds of sandboxes that are measured, and the end of all that a bench leaves in them.

use std::fmt;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use hypercode::config::{Config, SandboxKind};
use sandbox::docker::{SOCKET, image};
use sandbox::{Instance, Kept, Options, Provider as _};

use crate::Result;
use crate::bare::docker::Daemon;

/// Names the image of a bench's containers to the platforms that it starts beside itself.
pub(crate) const IMAGE_VARIABLE: &str = "HYPERCODE_BENCH_IMAGE";
/// The label that says whose containers a platform's are.
const INSTANCE: &str = "hypercode.instance";
/// How long it may take to remove what a bench left.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// Plain processes.
    Process,
    /// Processes in namespaces of their own.
    Native,
    /// Docker containers.
    Docker,
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Native => "native",
            Self::Docker => "docker",
        })
    }
}

impl Sandbox {
    /// Those that can be had here.
    pub(crate) fn all() -> Vec<Self> {
        let can_be_had = |kind: &Self| *kind != Self::Docker || UnixStream::connect(SOCKET).is_ok();
        let (here, missing) = Self::value_variants().iter().copied().partition(can_be_had);
        let missing: Vec<Self> = missing;
        for kind in missing {
            eprintln!("no {kind} sandboxes are measured: no daemon answers at {SOCKET}");
        }
        here
    }

    /// `plain` of the kinds that take milliseconds to start, `slow` of containers.
    pub(crate) fn either<T>(self, plain: T, slow: T) -> T {
        if self == Self::Docker { slow } else { plain }
    }

    /// The platform's word for it.
    pub(crate) fn kind(self) -> SandboxKind {
        match self {
            Self::Process => SandboxKind::Process,
            Self::Native => SandboxKind::Native,
            Self::Docker => SandboxKind::Docker,
        }
    }
}

/// The image that this run's containers are made of.
pub(crate) fn image() -> String {
    std::env::var(IMAGE_VARIABLE).unwrap_or_else(|_| format!("hypercode/bench:{}", std::process::id()))
}

/// Makes the image: what this program is linked with, and nothing else.
pub(crate) async fn build_image() -> Result<()> {
    let mut files = image::Files::new();
    files.libraries(&std::env::current_exe()?)?;
    let docker = hypercode::sandboxes::daemon(&Config::default()).await?;
    docker.import(&image(), files, &["WORKDIR /app"]).await?;
    Ok(())
}

/// Removes what the platforms of a bench's directory left running, however the bench ended, and the containers and the
/// image of this run.
pub(crate) async fn clean(directory: &Path, kinds: &[Sandbox]) -> Result<()> {
    let cleaned = async {
        for data in homes(directory) {
            clean_home(&data).await?;
        }
        if kinds.contains(&Sandbox::Docker) {
            let daemon = Daemon::connect().await?;
            daemon.remove_own().await?;
            daemon.remove_image(&image()).await?;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, cleaned).await.map_err(|_| "what the bench left is not removed in time")?
}

/// The platforms' data directories: one below the bench's directory, or below one of its own.
fn homes(directory: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let places = std::iter::once(directory.to_owned()).chain(below);
    places.map(|place| place.join("data")).filter(|data| data.join("instance").exists()).collect()
}

async fn clean_home(data: &Path) -> Result<()> {
    let instance = fs::read_to_string(data.join("instance"))?;
    let kinds = fs::read_to_string(data.join("sandbox.kinds")).unwrap_or_default();
    if kinds.contains("kept") {
        let kept = Kept::open(Options::new(data.join("sandboxes"), Instance::new(instance.trim())?)).await?;
        for found in kept.list().await? {
            kept.destroy(&found.id).await?;
        }
    }
    if kinds.contains("docker") {
        Daemon::connect().await?.remove_all(&format!("{INSTANCE}={}", instance.trim())).await?;
    }
    Ok(())
}
