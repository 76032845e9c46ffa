//! What happens to the platform itself: denials and administrative acts. No entity folds them.
//!
//! They lie in `platform/<part>`.

use serde::{Deserialize, Serialize};

use crate::id::KeyId;

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

/// Views are made again from the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRebuilt {
    /// The projection; all of them if absent.
    pub name: Option<String>,
}
