//! Artifacts: which crew may read which, in `state/artifacts.<crew>`, and which a tenant has by somebody's upload, in
//! `platform/artifacts`. No entity folds them: the names that these events reserve are what is asked.

use serde::{Deserialize, Serialize};

use super::message::Party;
use crate::Principal;
use crate::id::{CrewId, Digest, Tenant};
use crate::store::Reservation;

crate::domain_events! {
    /// What happens to artifacts.
    pub enum Event {
        "artifact_granted" v 1 => Granted,
        "artifact_kept" v 1 => Kept,
    }
}

/// Why a crew may read an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// One of its agents put it.
    Put,
    /// The platform gave one of its agents the reference, with a task or as its source.
    Given,
}

/// A crew may read an artifact from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// The crew.
    pub crew: CrewId,
    /// The artifact.
    pub digest: Digest,
    /// Why.
    pub reason: Reason,
    /// The agent that put it, or was given it.
    pub agent: Party,
    /// Its media type, as the agent that put it says.
    pub media_type: Option<String>,
}

/// Somebody put an artifact, who may read it from now on, as may whoever reads all artifacts of the tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The artifact.
    pub digest: Digest,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// The name that is taken while a crew may read an artifact.
pub fn grant(crew: &CrewId, digest: Digest) -> Reservation {
    Reservation { namespace: "artifact_grant".into(), key: format!("{crew}/{digest}").into() }
}

/// The name that is taken while an artifact is a tenant's.
pub fn of_tenant(tenant: &Tenant, digest: Digest) -> Reservation {
    Reservation { namespace: "artifact_tenant".into(), key: format!("{tenant}/{digest}").into() }
}

/// The name that is taken while somebody may read an artifact in a tenant since they put it there.
pub fn of_principal(tenant: &Tenant, principal: &Principal, digest: Digest) -> Reservation {
    Reservation {
        namespace: "artifact_principal".into(),
        key: format!("{tenant}/{principal}/{digest}").into(),
    }
}
