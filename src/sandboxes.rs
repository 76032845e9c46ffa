//! The one place where it is chosen what kind of sandbox agents run in.

mod left;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox::{Confinement, Docker, Instance, Isolation, Kept, Kind, Options, Provider, docker};

use crate::config::{self, Config, SandboxKind};
use crate::image;

/// The instance to which canaries belong.
const CANARIES: &str = "00ca4a41";

/// Why no sandboxes can be made as they were asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// A provider cannot be opened, or a setting does not fit it.
    #[error(transparent)]
    Provider(#[from] sandbox::Error),
    /// What agents may read holds what they must not.
    #[error("share `{share}` with agents: `{secret}` is in it, where the platform keeps its secrets")]
    Exposed {
        /// The directory that is shared.
        share: PathBuf,
        /// The platform's own.
        secret: PathBuf,
    },
    /// Sandboxes of the kind cannot be trusted here.
    #[error(
        "use {kind} sandboxes here: {reason}; `hypercode doctor` says more, and `--sandbox process` runs trusted handlers without isolation"
    )]
    Unfit {
        /// The kind.
        kind: Kind,
        /// What a canary found.
        reason: String,
    },
}

/// Where agents run.
pub struct Sandboxes {
    /// Makes them.
    pub provider: Arc<dyn Provider>,
    /// The user that their runners have to this host; `None` = that of this process.
    pub peer_uid: Option<u32>,
    /// Whether their runners come over a network.
    pub has_network: bool,
    /// The program that is the runner in them.
    pub runner: PathBuf,
}

/// Opens the sandboxes of a data directory, of the kind that is configured.
///
/// # Errors
/// When the configured kind cannot be had.
pub async fn open(config: &Config, instance: &Instance) -> Result<Sandboxes, ChoiceError> {
    let sandboxes = match config.sandbox {
        SandboxKind::Docker => containers(config, instance).await?,
        _ => kept(config, instance).await?,
    };
    left::remove(config, instance, sandboxes.provider.kind()).await;
    Ok(sandboxes)
}

/// Opens sandboxes of processes, with namespaces of their own if that is asked for and can be had.
async fn kept(config: &Config, instance: &Instance) -> Result<Sandboxes, ChoiceError> {
    let confinement = match config.sandbox {
        SandboxKind::Docker | SandboxKind::Process => None,
        SandboxKind::Native => match proven(config).await {
            Err(ChoiceError::Unfit { reason, .. }) if config.sandbox_unproven => {
                tracing::error!(
                    reason,
                    "native sandboxes are not proven here; agents are started all the same, as it is set"
                );
                Some(confinement(config)?)
            }
            proven => Some(proven?.0),
        },
        SandboxKind::Auto => match proven(config).await {
            Ok((confinement, _)) => Some(confinement),
            Err(ChoiceError::Unfit { reason, .. }) => {
                tracing::warn!(
                    reason,
                    "agents run as plain processes, isolated from nothing: native sandboxes cannot be used here"
                );
                None
            }
            Err(error) => return Err(error),
        },
    };
    let peer_uid = confinement.as_ref().map(Confinement::uid);
    let options =
        Options { confinement, ..Options::new(config.data_dir.join("sandboxes"), instance.clone()) };
    let provider = Arc::new(Kept::open(options).await?);
    Ok(Sandboxes { provider, peer_uid, has_network: false, runner: own_program()? })
}

fn own_program() -> Result<PathBuf, ChoiceError> {
    std::env::current_exe().map_err(|error| ChoiceError::Unfit {
        kind: Kind::Process,
        reason: format!("failed to find this program: {error}"),
    })
}

/// Opens containers, once a canary has found no way out of one.
async fn containers(config: &Config, instance: &Instance) -> Result<Sandboxes, ChoiceError> {
    let docker = open_docker(config, config.data_dir.join("sandboxes"), instance.clone()).await?;
    let runner = runner(config)?;
    match canary(config, &docker, &runner).await {
        Ok(()) => {}
        Err(reason) if config.sandbox_unproven => {
            tracing::error!(
                reason,
                "a canary got out of a container; agents are started all the same, as it is set"
            );
        }
        Err(reason) => return Err(ChoiceError::Unfit { kind: Kind::Docker, reason }),
    }
    Ok(Sandboxes {
        provider: Arc::new(docker),
        peer_uid: Some(sandbox::docker::UID),
        has_network: has_network(config),
        runner,
    })
}

/// Connects to the daemon that is configured.
async fn connect(config: &Config, root: PathBuf, instance: Instance) -> Result<Docker, ChoiceError> {
    let config::Docker { socket, image, runtime, subnets, .. } = config.docker.clone();
    let link = match config.docker.link {
        config::Link::Socket => docker::Link::Socket,
        config::Link::Tcp => docker::Link::Tcp { subnets, relay: runner(config)? },
    };
    let options = docker::Options { socket, image, runtime, link, ..docker::Options::new(root, instance) };
    Ok(Docker::open(options).await?)
}

/// Connects to the daemon, to be given images.
///
/// # Errors
/// When it cannot be reached.
pub async fn daemon(config: &Config) -> Result<Docker, ChoiceError> {
    connect(config, std::env::temp_dir().join("hypercode-images"), Instance::new(CANARIES)?).await
}

/// Connects to the daemon; the platform's own image is made where it is missing.
async fn open_docker(config: &Config, root: PathBuf, instance: Instance) -> Result<Docker, ChoiceError> {
    let docker = connect(config, root, instance).await?;
    if config.docker.image == docker::Options::IMAGE && docker.image(docker::Options::IMAGE).await?.is_none()
    {
        image::build(&docker, &runner(config)?, image::Base::Minimal).await?;
    }
    Ok(docker)
}

/// Whether containers have networks of their own.
fn has_network(config: &Config) -> bool {
    config.docker.link == config::Link::Tcp
}

/// The program that is put into containers.
pub(crate) fn runner(config: &Config) -> Result<PathBuf, ChoiceError> {
    config.docker.runner.clone().map_or_else(own_program, Ok)
}

/// Has a canary look for a way out of a container.
async fn canary(config: &Config, docker: &Docker, runner: &Path) -> Result<(), String> {
    let cage = tempfile::Builder::new().prefix("hypercode-canary-").tempdir();
    let cage = cage.map_err(|error| format!("failed to make a temporary directory: {error}"))?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let hidden = [Some(config.data_dir.clone()), home].into_iter().flatten();
    let hidden: Vec<PathBuf> = hidden.filter(|path| path.is_absolute() && path != Path::new("/")).collect();
    let hidden: Vec<&Path> = hidden.iter().map(PathBuf::as_path).collect();
    sandbox::prove(docker, runner, cage.path(), &hidden, has_network(config)).await
}

/// What a container holds agents to, once a canary has found no way out of one.
///
/// # Errors
/// When it has, or the daemon cannot be used.
pub async fn proven_containers(config: &Config) -> Result<(String, Isolation), ChoiceError> {
    let root = tempfile::Builder::new().prefix("hypercode-doctor-").tempdir();
    let unfit = |reason: String| ChoiceError::Unfit { kind: Kind::Docker, reason };
    let root = root.map_err(|error| unfit(format!("failed to make a temporary directory: {error}")))?;
    let docker = open_docker(config, root.path().to_owned(), Instance::new(CANARIES)?).await?;
    canary(config, &docker, &runner(config)?).await.map_err(unfit)?;
    Ok((docker.version().await?, docker.isolation()))
}

/// What native sandboxes are confined to, and what that holds, once a canary has found no way out of it.
///
/// # Errors
/// When it has, or cannot be started, or a setting is not right.
pub async fn proven(config: &Config) -> Result<(Confinement, Isolation), ChoiceError> {
    let confinement = confinement(config)?;
    let unfit = |reason: String| ChoiceError::Unfit { kind: Kind::Native, reason };
    let cage = tempfile::Builder::new().prefix("hypercode-canary-").tempdir();
    let cage = cage.map_err(|error| unfit(format!("failed to make a temporary directory: {error}")))?;
    let program =
        std::env::current_exe().map_err(|error| unfit(format!("failed to find this program: {error}")))?;
    let link = cage.path().join("link");
    std::fs::create_dir(&link).map_err(|error| unfit(format!("failed to make a directory: {error}")))?;
    let options = Options::new(cage.path().join("sandboxes"), Instance::new(CANARIES)?);
    let provider = Kept::open(Options { confinement: Some(confinement.clone()), ..options }).await?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let hidden = [Some(config.data_dir.clone()), home, Some("/root".into()), Some("/home".into())];
    let hidden: Vec<PathBuf> =
        hidden.into_iter().flatten().filter(|path| is_hidden(&confinement, path)).collect();
    let hidden: Vec<&Path> = hidden.iter().map(PathBuf::as_path).collect();
    sandbox::prove(&provider, &program, &link, &hidden, false).await.map_err(unfit)?;
    Ok((confinement, provider.isolation()))
}

/// Whether this path of the host must not be seen: it is there, and none that every sandbox has or is shown.
fn is_hidden(confinement: &Confinement, path: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path != Path::new("/") && !confinement.shows(&path))
}

fn confinement(config: &Config) -> Result<Confinement, ChoiceError> {
    let mut confinement = Confinement::new();
    for share in &config.sandbox_shares {
        confinement.share(share)?;
        let within = |path: &Path| match (path.canonicalize(), share.canonicalize()) {
            (Ok(path), Ok(share)) => path.starts_with(share),
            _ => false,
        };
        let secrets = [Some(&config.data_dir), config.run_dir.as_ref()];
        if let Some(secret) = secrets.into_iter().flatten().find(|path| within(path)) {
            return Err(ChoiceError::Exposed { share: share.clone(), secret: secret.clone() });
        }
    }
    if let Some(image) = &config.sandbox_image {
        confinement.unpacked_image(image)?;
    }
    Ok(confinement)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program of this test is no canary, so that nothing is proven.
    #[tokio::test]
    async fn native_sandboxes_that_are_not_proven_are_used_only_where_that_is_set() {
        let home = tempfile::tempdir().unwrap();
        let mut config =
            Config { data_dir: home.path().to_owned(), sandbox: SandboxKind::Native, ..Config::default() };
        let instance = Instance::new("00c0ffee").unwrap();
        let refused = open(&config, &instance).await.err();
        assert!(matches!(refused, Some(ChoiceError::Unfit { kind: Kind::Native, .. })), "{refused:?}");
        config.sandbox_unproven = true;
        assert_eq!(open(&config, &instance).await.unwrap().provider.kind(), Kind::Native);
    }

    #[tokio::test]
    async fn what_holds_the_platforms_secrets_is_not_shared() {
        let home = tempfile::tempdir().unwrap();
        let data_dir = home.path().join("data");
        std::fs::create_dir(&data_dir).unwrap();
        let config = Config { data_dir, sandbox_shares: vec![home.path().to_owned()], ..Config::default() };
        assert!(matches!(confinement(&config), Err(ChoiceError::Exposed { .. })));
        let missing = Config { sandbox_shares: vec!["/nonexistent".into()], ..Config::default() };
        assert!(matches!(confinement(&missing), Err(ChoiceError::Provider(_))));
    }
}
