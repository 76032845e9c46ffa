//! Where profiles may take secrets from: what the operator lets them, and what their tenant has stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::{Resolved, Unresolved};
use events::Tenant;
use link::limits::SECRET_BYTES_MAX;
use manifest::SecretSource;
use tokio::io::AsyncReadExt as _;

use super::Stored;
use super::command::Vault;
use crate::config::Config;

/// The platform's own variables, which no profile may take.
const OWN: &str = "HYPERCODE_";

/// Where secrets are. A profile says which it wants; what it may have is the operator's to say, for whoever may apply
/// profiles need not be one who may read what the platform can.
pub(crate) struct Sources {
    stored: Arc<Stored>,
    /// Names of variables; a `*` at the end stands for any.
    env: Vec<String>,
    /// Directories of files.
    files: Vec<PathBuf>,
    /// What no agent may have, wherever it lies.
    own: Vec<PathBuf>,
    vault: Option<Vault>,
}

impl Sources {
    /// The sources that this configuration allows.
    pub(crate) fn new(config: &Config, stored: Arc<Stored>) -> Self {
        let own = [Some(config.data_dir.clone()), Some(config.master_key_file()), config.tls_key.clone()];
        let secrets = &config.secrets;
        Self {
            stored,
            env: secrets.env.clone(),
            files: secrets.files.clone(),
            own: own.into_iter().flatten().collect(),
            vault: secrets.command.clone().map(|program| Vault::new(program, secrets.command_ms)),
        }
    }

    fn variable(&self, name: &str) -> Result<String, Unresolved> {
        let admits =
            |rule: &String| rule.strip_suffix('*').map_or(rule == name, |start| name.starts_with(start));
        if name.starts_with(OWN) || !self.env.iter().any(admits) {
            return refused(
                "profiles may not take this variable: name it in the platform's setting `secret_env`",
            );
        }
        let value = std::env::var_os(name).ok_or_else(|| {
            Unresolved("it is not set where the platform runs: set it, and start the platform again".into())
        })?;
        value.into_string().map_err(|_| Unresolved("it is not UTF-8 text: keep it as base64".into()))
    }

    async fn file(&self, path: &str) -> Result<String, Unresolved> {
        let failed = |error: std::io::Error| Unresolved(format!("it cannot be read: {error}"));
        // Whoever may not have it does not hear whether it is there.
        let denied =
            "profiles may not take this file: name its directory in the platform's setting `secret_files`";
        let Ok(real) = tokio::fs::canonicalize(path).await else {
            return refused(if self.admits(Path::new(path)).await {
                "there is no such file"
            } else {
                denied
            });
        };
        if !self.admits(&real).await {
            return refused(denied);
        }
        let file = tokio::fs::File::open(&real).await.map_err(failed)?;
        if !file.metadata().await.map_err(failed)?.is_file() {
            return refused("it is not a plain file");
        }
        let mut bytes = Vec::new();
        file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
        String::from_utf8(bytes).map_err(|_| Unresolved("it is not UTF-8 text: keep it as base64".into()))
    }

    /// Whether a path without links is in a directory of secrets, and not the platform's own.
    async fn admits(&self, path: &Path) -> bool {
        is_below(path, &self.files).await && !is_below(path, &self.own).await
    }
}

async fn is_below(path: &Path, directories: &[PathBuf]) -> bool {
    for directory in directories {
        if tokio::fs::canonicalize(directory).await.is_ok_and(|directory| path.starts_with(directory)) {
            return true;
        }
    }
    false
}

fn refused<T>(reason: &str) -> Result<T, Unresolved> {
    Err(Unresolved(reason.to_owned()))
}

#[async_trait::async_trait]
impl actors::Secrets for Sources {
    async fn resolve(&self, tenant: &Tenant, source: &SecretSource) -> Result<Resolved, Unresolved> {
        let text = match source {
            SecretSource::Env(name) => self.variable(name)?,
            SecretSource::File(path) => self.file(path).await?,
            SecretSource::VaultCommand(key) => match &self.vault {
                Some(vault) => vault.ask(tenant, key).await?,
                None => {
                    return refused(
                        "the platform has no command for it: name one in its setting `secret_command`",
                    );
                }
            },
            SecretSource::Stored(name) => return self.stored.value(tenant, name).await,
        };
        // Editors and commands end a text with a line's end.
        let value = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
        Ok(Resolved { value: link::Secret::new(value), version: None })
    }
}
