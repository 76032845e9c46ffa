//! Profiles: versioned templates of agents.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Problem;
use crate::domain::{Context, Decider};
use crate::id::{Digest, EntityKind, Tenant};

#[cfg(test)]
mod tests;

crate::domain_events! {
    /// What happens to a profile.
    pub enum Event {
        "profile_applied" v 1 => Applied,
    }
}

/// A new version of the profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Its tenant.
    pub tenant: Tenant,
    /// Its name, unique in the tenant.
    pub name: String,
    /// 1, 2, 3 …
    pub version: u32,
    /// The digest of the specification, the bundle and the image: what a gym certifies.
    pub digest: Digest,
    /// The specification as checked, in its normal form.
    pub spec: Value,
    /// The packed source, if the profile has one.
    pub bundle: Option<Digest>,
    /// What the specification's image stood for when it was applied, by its content: `sha256:…`. Absent where it names
    /// none, or sandboxes are made without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A profile as its events left it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Its newest version; `None` before the first.
    pub current: Option<Applied>,
}

/// What may be asked of a profile.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Make this the newest version, unless it already is.
    Apply {
        /// The tenant.
        tenant: Tenant,
        /// The name.
        name: String,
        /// The checked specification.
        spec: Value,
        /// The packed source.
        bundle: Option<Digest>,
        /// What its image stands for.
        image: Option<String>,
    },
}

/// Why a profile refuses: it never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        match rejection {}
    }
}

/// The entity `profile`; its stream's id is `<tenant>.<name>`.
pub struct Profile;

/// The digest that names one version of a profile: specification, bundle and what its image stands for.
pub fn digest(spec: &Value, bundle: Option<Digest>, image: Option<&str>) -> Digest {
    let mut bytes = spec.to_string().into_bytes();
    bytes.push(0);
    bytes.extend_from_slice(&bundle.unwrap_or(Digest::ZERO).0);
    bytes.extend_from_slice(image.unwrap_or_default().as_bytes());
    Digest::of(&bytes)
}

impl Decider for Profile {
    const KIND: EntityKind = EntityKind::Profile;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = ();
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, _: &Context) -> Result<Vec<Event>, Rejection> {
        let Command::Apply { tenant, name, spec, bundle, image } = command;
        let digest = digest(spec, *bundle, image.as_deref());
        if state.current.as_ref().is_some_and(|current| current.digest == digest) {
            return Ok(Vec::new());
        }
        let version = state.current.as_ref().map_or(0, |current| current.version) + 1;
        let applied = Applied {
            tenant: tenant.clone(),
            name: name.clone(),
            version,
            digest,
            spec: spec.clone(),
            bundle: *bundle,
            image: image.clone(),
        };
        Ok(vec![applied.into()])
    }

    fn evolve(_: State, event: &Event) -> State {
        let Event::Applied(applied) = event;
        State { current: Some(applied.clone()) }
    }

    fn obligations(_: &State) -> Vec<()> {
        Vec::new()
    }
}
