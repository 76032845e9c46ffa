//! The one place where it is chosen what kind of sandbox agents run in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox::{Confinement, Instance, Isolation, Kept, Options, Provider};

use crate::config::{Config, SandboxKind};

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
    /// Sandboxes of namespaces cannot be trusted here.
    #[error(
        "use native sandboxes here: {reason}; `hypercode doctor` says more, and `--sandbox process` runs trusted handlers without isolation"
    )]
    Unfit {
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
}

/// Opens the sandboxes of a data directory, of the kind that is configured.
///
/// # Errors
/// When the configured kind cannot be had.
pub async fn open(config: &Config, instance: &Instance) -> Result<Sandboxes, ChoiceError> {
    let confinement = match config.sandbox {
        SandboxKind::Process => None,
        SandboxKind::Native => Some(proven(config).await?.0),
        SandboxKind::Auto => match proven(config).await {
            Ok((confinement, _)) => Some(confinement),
            Err(ChoiceError::Unfit { reason }) => {
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
    Ok(Sandboxes { provider: Arc::new(Kept::open(options).await?), peer_uid })
}

/// What native sandboxes are confined to, and what that holds, once a canary has found no way out of it.
///
/// # Errors
/// When it has, or cannot be started, or a setting is not right.
pub async fn proven(config: &Config) -> Result<(Confinement, Isolation), ChoiceError> {
    let confinement = confinement(config)?;
    let unfit = |reason: String| ChoiceError::Unfit { reason };
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
    sandbox::prove(&provider, &program, &link, &hidden).await.map_err(unfit)?;
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
