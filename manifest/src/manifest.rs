//! A whole manifest: its kind, its metadata, and the envelope that is the same for all kinds.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Crew, Name, Pool, Profile};

/// The kinds of manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A team of agents.
    Crew,
    /// A versioned template of an agent.
    Profile,
    /// A warm pool of standby sandboxes.
    Pool,
    /// A gym suite.
    Suite,
    /// A gym scenario.
    Scenario,
}

impl Kind {
    /// Every kind, in the order in which they are listed to people.
    pub const ALL: [Kind; 5] = [Kind::Crew, Kind::Profile, Kind::Pool, Kind::Suite, Kind::Scenario];

    /// The kind as a manifest writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Crew => "Crew",
            Kind::Profile => "Profile",
            Kind::Pool => "Pool",
            Kind::Suite => "Suite",
            Kind::Scenario => "Scenario",
        }
    }

    /// Whether this version reads manifests of the kind; the others are recognised and refused.
    pub const fn is_supported(self) -> bool {
        matches!(self, Kind::Crew | Kind::Profile | Kind::Pool)
    }
}

/// The version of the manifests' form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The only one so far.
    #[default]
    #[serde(rename = "hypercode.dev/v1")]
    V1,
}

impl ApiVersion {
    /// The version as a manifest writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ApiVersion::V1 => "hypercode.dev/v1",
        }
    }
}

/// A manifest of any supported kind. Serialised it is again a manifest, normalised: every default
/// filled in, every quantity in its shortest form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Manifest {
    /// A crew manifest.
    Crew(Crew),
    /// A profile.
    Profile(Profile),
    /// A warm pool.
    Pool(Pool),
}

impl Manifest {
    /// The manifest's kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Manifest::Crew(_) => Kind::Crew,
            Manifest::Profile(_) => Kind::Profile,
            Manifest::Pool(_) => Kind::Pool,
        }
    }

    /// The manifest's metadata.
    pub const fn metadata(&self) -> &Metadata {
        match self {
            Manifest::Crew(crew) => &crew.metadata,
            Manifest::Profile(profile) => &profile.metadata,
            Manifest::Pool(pool) => &pool.metadata,
        }
    }
}

/// What a manifest says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name, unique within kind and tenant.
    pub name: Name,
    /// The tenant that owns the entity; that of the request if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// Free labels to search and group by: at most 64, values at most 256 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Metadata {
    /// The most labels.
    pub const LABELS_MAX: usize = 64;
    /// The most characters in a label's key or value.
    pub const LABEL_LENGTH_MAX: usize = 256;
}
