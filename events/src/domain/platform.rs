//! What happens to the platform itself: denials and administrative acts. No entity folds them.
//!
//! They lie in `platform/<part>`.

use serde::{Deserialize, Serialize};

use super::killed::Killed;
use crate::id::{CrewId, KeyId, SandboxId, Tenant};

crate::domain_events! {
    /// What happens to the platform itself.
    pub enum Event {
        "access_denied" v 1 => AccessDenied,
        "audit_exported" v 1 => AuditExported,
        "projection_rebuilt" v 1 => ProjectionRebuilt,
        "subject_erased" v 1 => SubjectErased,
        "platform_started" v 1 => Started,
        "platform_stopped" v 1 => Stopped,
        "key_created" v 1 => KeyCreated,
        "settings_changed" v 1 => SettingsChanged,
        "schema_migrated" v 1 => Migrated,
        "sandbox_tampered" v 1 => Tampered,
        "tenant_killed" v 1 => TenantKilled,
    }
}

/// Somebody who was not known wanted something: at most one such event per permission in ten seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessDenied {
    /// What it would have taken, such as `task:read`.
    pub permission: String,
    /// Why it was denied.
    pub reason: String,
    /// How often since the last such event of this permission.
    pub count: u64,
}

/// Events were taken out of the platform as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditExported {
    /// The position of the first.
    pub from: u64,
    /// The position of the last; this event's own if absent.
    pub to: Option<u64>,
    /// In what form: `jsonl`, `cloudevents` or `ocsf`.
    pub format: String,
}

/// The key of a data subject is destroyed, and with it all that it sealed. The subject is not named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectErased {
    /// The key.
    pub key: KeyId,
    /// Why.
    pub reason: String,
    /// How many tasks were about the subject.
    pub tasks: u64,
    /// How many artifacts were its alone, and are deleted.
    pub artifacts: u64,
}

/// A node started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The node.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Whether it had not stopped in good order before.
    pub after_crash: bool,
}

/// A node stopped in good order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The node.
    pub node: String,
}

/// A key or a token was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCreated {
    /// The node that made it.
    pub node: String,
    /// Which: `admin_token`, `checkpoint_key` or `master_key`.
    pub key: String,
    /// What tells it from others, and does not give it away.
    pub fingerprint: String,
}

/// A node is set up otherwise than at its last start, in what matters for security.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChanged {
    /// The node.
    pub node: String,
    /// What was changed.
    pub changed: Vec<SettingChanged>,
}

/// A setting has another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChanged {
    /// The setting.
    pub setting: String,
    /// Its value before; absent if it was not set.
    pub from: Option<String>,
    /// Its value now; absent if it is not set.
    pub to: Option<String>,
}

/// The log was brought to another schema of its tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// The version of the program whose schema it is.
    pub version: String,
}

/// A sandbox is not what it must be, and was killed for it; or somebody else spoke from its socket, and was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tampered {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The agent that it serves; absent while it stands by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What was done.
    pub what: Tampering,
    /// What was seen, for a person.
    pub detail: String,
    /// How often, since the last such event of this sandbox.
    pub count: u64,
}

/// What is done to sandboxes behind the platform's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tampering {
    /// It is less shut off than was asked for.
    Drifted,
    /// Something was executed in it from outside.
    Executed,
    /// It had ended, and somebody started it again.
    Started,
    /// It was to stand still, and somebody had it go on.
    Unpaused,
    /// A process that is not of the sandbox connected to its socket.
    ForeignPeer,
    /// The token that lets a runner in was shown a second time, or in another sandbox's place.
    ReusedToken,
    /// A token was shown at its socket that is not one of its agent, or not any more.
    ForeignToken,
    /// Another link was opened while its own was up.
    SecondLink,
}

/// Every crew of a tenant is to be killed: those that lived then, and none that came later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantKilled {
    /// The tenant.
    pub tenant: Tenant,
    /// Its crews.
    pub crews: Vec<CrewId>,
    /// By whom, and why.
    pub killed: Killed,
}

/// Views are made again from the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRebuilt {
    /// The projection; all of them if absent.
    pub name: Option<String>,
}
