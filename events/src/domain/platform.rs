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

/// Views are made again from the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRebuilt {
    /// The projection; all of them if absent.
    pub name: Option<String>,
}
