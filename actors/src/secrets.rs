//! The secrets of an incarnation: read when it is about to be assigned, never earlier, recorded, and given to it alone.

use std::sync::Arc;

use async_trait::async_trait;
use events::domain::agent::{Command, Requested, SecretResolved};
use events::{CommandId, Incarnation, Tenant};
use link::limits::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, SECRETS_BYTES_MAX};
use manifest::SecretSource;

use crate::core::Core;
use crate::profiles::Checked;

const PART: &str = "secrets";

/// A secret's value.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The value.
    pub value: link::Secret,
    /// Which of its values it is, where they are counted.
    pub version: Option<u32>,
}

/// Why there is no value: what happened where, and what to do; never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unresolved(pub String);

/// Where secrets are.
#[async_trait]
pub trait Secrets: Send + Sync + 'static {
    /// What the secret is now, for an agent of this tenant. Ends in bounded time.
    async fn resolve(&self, tenant: &Tenant, source: &SecretSource) -> Result<Resolved, Unresolved>;
}

/// Reads the secrets of an incarnation, and records that it gets them. Without one of them it does not start.
pub(crate) async fn resolve(
    core: &Arc<Core>,
    requested: &Requested,
    incarnation: Incarnation,
    checked: &Checked,
) -> Result<Vec<link::AssignedSecret>, String> {
    let (mut assigned, mut resolved) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for secret in &checked.spec.secrets {
        let failed = |reason: &dyn std::fmt::Display| {
            let (profile, kind) = (&requested.profile, secret.from.kind());
            let (name, reference) = (&secret.name, secret.from.reference());
            format!("secret `{name}` of profile `{profile}` cannot be given ({kind} `{reference}`): {reason}")
        };
        let found = core.secrets.resolve(&requested.tenant, &secret.from).await;
        let Resolved { value, version } = found.map_err(|unresolved| failed(&unresolved))?;
        bytes += value.expose().len();
        check(value.expose(), bytes).map_err(|reason| failed(&reason))?;
        resolved.push(SecretResolved {
            incarnation,
            name: secret.name.clone(),
            source: secret.from.kind().to_owned(),
            reference: secret.from.reference().to_owned(),
            version,
        });
        let form = match secret.form {
            manifest::SecretForm::Env => link::SecretForm::Env,
            manifest::SecretForm::File => link::SecretForm::File,
        };
        assigned.push(link::AssignedSecret { name: secret.name.clone(), value, form, path: None });
    }
    if !resolved.is_empty() {
        record(core, requested, incarnation, resolved).await?;
    }
    Ok(assigned)
}

/// It is in the log before it is in the sandbox.
async fn record(
    core: &Arc<Core>,
    requested: &Requested,
    incarnation: Incarnation,
    resolved: Vec<SecretResolved>,
) -> Result<(), String> {
    let (id, life) = (requested.agent.as_str(), incarnation.to_string());
    // What is read again after a restart of the platform may be newer.
    let versions = format!("{:?}", resolved.iter().map(|secret| secret.version).collect::<Vec<_>>());
    let command_id = CommandId::derive(&["secrets", id, &life, &versions]);
    let command = Command::GiveSecrets { incarnation, resolved };
    let meta = core.system_meta(&requested.tenant, PART);
    let answer = core.command(&core.agents, id, command, command_id, meta).await;
    answer
        .map(drop)
        .map_err(|problem| format!("that it gets its secrets cannot be recorded: {}", problem.detail))
}

/// Whether a value can be given, and be kept out of what the agent writes; `bytes` are those of all up to it.
fn check(value: &str, bytes: usize) -> Result<(), String> {
    match value.len() {
        0..SECRET_BYTES_MIN => Err(format!(
            "it has less than {SECRET_BYTES_MIN} bytes, too few to be masked in what the agent writes"
        )),
        _ if value.contains('\0') => {
            Err("it has a byte 0 in it, which no environment can hold: keep it as base64".to_owned())
        }
        SECRET_BYTES_MAX.. => Err(format!("it has {SECRET_BYTES_MAX} bytes or more")),
        _ if bytes > SECRETS_BYTES_MAX => {
            Err(format!("with it the profile's secrets have more than {SECRETS_BYTES_MAX} bytes together"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_masked_or_carried_is_refused() {
        assert_eq!(check("hunter", 6), Ok(()));
        let long = "x".repeat(SECRET_BYTES_MAX);
        for (value, bytes) in [("", 0), ("hunte", 5), ("hunter\0", 7), (&long, long.len())] {
            let reason = check(value, bytes).expect_err(value);
            assert!(value.is_empty() || !reason.contains(value), "{reason}");
        }
        assert!(check("hunter", SECRETS_BYTES_MAX + 1).is_err());
    }
}
