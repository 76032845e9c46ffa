//! How a runner is started.

use std::{ffi::OsString, path::PathBuf};

use link::limits::ORPHAN_GRACE_MS;

use crate::gateway::Gateway;

/// What the command line says: `--socket PATH|tcp:ADDRESS:PORT --sandbox ID --work DIR [--orphan-grace-ms N]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the gateway is, as far as this sandbox can see it.
    pub gateway: Gateway,
    /// The sandbox's id; for logs only, as the gateway knows a sandbox by the socket.
    pub sandbox: String,
    /// The work directory: the handler's home, with its source, its tasks and its log.
    pub work: PathBuf,
    /// How long to work on without a gateway, until `assign` says otherwise.
    pub orphan_grace_ms: u64,
}

/// Why a command line was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// An argument that is none of ours.
    #[error("read the argument `{0}`: known are --socket, --sandbox, --work and --orphan-grace-ms")]
    Unknown(String),
    /// An argument without its value.
    #[error("find the value of `{0}`")]
    NoValue(&'static str),
    /// An argument that must be there.
    #[error("find `{0}` among the arguments")]
    Missing(&'static str),
    /// A value that is no number of milliseconds.
    #[error("read `{0}` as a number of milliseconds")]
    NotMs(String),
}

impl Options {
    /// Reads the arguments after `argv[0]`.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let (mut gateway, mut sandbox, mut work, mut orphan_grace_ms) = (None, None, None, ORPHAN_GRACE_MS);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = |name| args.next().ok_or(OptionsError::NoValue(name));
            match arg.to_str() {
                Some("--socket") => gateway = Some(Gateway::read(value("--socket")?)),
                Some("--sandbox") => sandbox = Some(value("--sandbox")?.to_string_lossy().into_owned()),
                Some("--work") => work = Some(PathBuf::from(value("--work")?)),
                Some("--orphan-grace-ms") => {
                    let text = value("--orphan-grace-ms")?.to_string_lossy().into_owned();
                    orphan_grace_ms = text.parse().map_err(|_| OptionsError::NotMs(text))?;
                }
                _ => return Err(OptionsError::Unknown(arg.to_string_lossy().into_owned())),
            }
        }
        Ok(Self {
            gateway: gateway.ok_or(OptionsError::Missing("--socket"))?,
            sandbox: sandbox.ok_or(OptionsError::Missing("--sandbox"))?,
            work: work.ok_or(OptionsError::Missing("--work"))?,
            orphan_grace_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionsError> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn reads_what_a_sandbox_gives() {
        let options = parse("--socket /s --sandbox sb_1 --work /w --orphan-grace-ms 50").unwrap();
        assert_eq!((options.sandbox.as_str(), options.orphan_grace_ms), ("sb_1", 50));
        assert_eq!(parse("--socket /s --sandbox a --work /w").unwrap().orphan_grace_ms, ORPHAN_GRACE_MS);
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(parse("--socket /s --sandbox a"), Err(OptionsError::Missing("--work")));
        assert_eq!(parse("--socket"), Err(OptionsError::NoValue("--socket")));
        assert_eq!(parse("--port 1"), Err(OptionsError::Unknown("--port".into())));
        assert_eq!(parse("--orphan-grace-ms soon"), Err(OptionsError::NotMs("soon".into())));
    }
}
