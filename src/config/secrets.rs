//! What can be set about the secrets that profiles may take.

use std::path::PathBuf;

use super::setting::{Setting, list, number, path};

/// Where profiles may take secrets from, beside those that are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Variables of the platform's environment; a `*` at the end of a name stands for any.
    pub env: Vec<String>,
    /// Directories whose files they may take.
    pub files: Vec<PathBuf>,
    /// The program that fetches secrets from a vault.
    pub command: Option<PathBuf>,
    /// How long it may take, in milliseconds.
    pub command_ms: u64,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { env: Vec::new(), files: Vec::new(), command: None, command_ms: 5_000 }
    }
}

pub(super) const ENV: Setting = Setting {
    key: "secret_env",
    form: "names, several with commas between",
    default: "none",
    meaning: "Variables of the platform's environment that profiles may take as secrets. A `*` at the end of a name stands for any; those that begin with `HYPERCODE_` are never given. See [secrets](secrets.md).",
    set: |config, text| {
        config.secrets.env = list(text);
        Ok(())
    },
};

pub(super) const FILES: Setting = Setting {
    key: "secret_files",
    form: "directories, joined by `:`",
    default: "none",
    meaning: "Directories whose files profiles may take as secrets. What is in the data directory is never given.",
    set: |config, text| {
        config.secrets.files = text.split(':').map(path).collect::<Result<_, _>>()?;
        Ok(())
    },
};

pub(super) const COMMAND: Setting = Setting {
    key: "secret_command",
    form: "file",
    default: "none",
    meaning: "A program that fetches secrets: started without a shell with the key that a profile names as its only argument, it writes the value to standard output.",
    set: |config, text| path(text).map(|file| config.secrets.command = Some(file)),
};

pub(super) const COMMAND_MS: Setting = Setting {
    key: "secret_command_ms",
    form: "milliseconds, 10 to 60000",
    default: "`5000`",
    meaning: "How long that program may take before it is killed and the agent is not started.",
    set: |config, text| number(text, 10, 60_000).map(|ms| config.secrets.command_ms = ms),
};
