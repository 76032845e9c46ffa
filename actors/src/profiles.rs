//! Versions of profiles, as agents are started from them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use events::api::{Problem, ProblemKind};
use events::domain::DomainEvent;
use events::domain::profile::{Applied, Event};
use events::{Digest, EntityKind, EventStore, StreamId, Tenant, Version};
use manifest::ProfileSpec;

/// Versions kept in memory.
const CACHED_MAX: usize = 1_024;
/// Events read at a time.
const BATCH_EVENTS: usize = 100;

/// One version of a profile, as it was checked.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) spec: ProfileSpec,
    pub(crate) bundle: Option<Digest>,
    /// What its image stood for when it was applied, where that could be told.
    pub(crate) image: Option<String>,
}

/// What a profile wants a sandbox to be that was made before anybody claimed it; what it does not name is the pool's to
/// choose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    pub(crate) image: Option<&'a str>,
    pub(crate) runtime: Option<&'a str>,
}

impl Wish<'_> {
    /// Whether a sandbox of this image and runtime will do.
    pub(crate) fn is_met(self, image: Option<&str>, runtime: Option<&str>) -> bool {
        let will_do = |wanted: Option<&str>, found| wanted.is_none_or(|wanted| found == Some(wanted));
        will_do(self.image, image) && will_do(self.runtime, runtime)
    }
}

/// Versions of profiles by their digest.
#[derive(Default)]
pub(crate) struct Profiles(Mutex<HashMap<Digest, Arc<Checked>>>);

/// The id of a profile's entity.
pub(crate) fn entity_id(tenant: &Tenant, name: &str) -> String {
    format!("{tenant}.{name}")
}

/// Reads a stored specification.
pub(crate) fn parse(applied: &Applied) -> Result<Checked, Problem> {
    let spec = serde_json::from_value(applied.spec.clone()).map_err(|error| {
        let detail =
            format!("profile `{}` version {} cannot be read: {error}", applied.name, applied.version);
        Problem::new(ProblemKind::Internal, detail)
    })?;
    Ok(Checked { spec, bundle: applied.bundle, image: applied.image.clone() })
}

impl Checked {
    /// What its agents' sandboxes are made of: what its image stood for, or its name where that could not be told.
    pub(crate) fn image(&self) -> Option<&str> {
        self.image.as_deref().or(self.spec.image.as_deref())
    }

    /// What its agents' sandboxes must be, where it says so.
    pub(crate) fn wish(&self) -> Wish<'_> {
        Wish { image: self.image(), runtime: self.spec.runtime_class.as_deref() }
    }
}

impl Profiles {
    /// The version with this digest of the profile `name`.
    pub(crate) async fn get(
        &self,
        store: &dyn EventStore,
        tenant: &Tenant,
        name: &str,
        digest: Digest,
    ) -> Result<Arc<Checked>, Problem> {
        if let Some(version) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&digest) {
            return Ok(Arc::clone(version));
        }
        let stream = StreamId::new(EntityKind::Profile, entity_id(tenant, name));
        let mut after = Version(0);
        loop {
            let batch = store.read_stream(&stream, after, BATCH_EVENTS).await?;
            let Some(last) = batch.last() else {
                let detail = format!("profile `{name}` has no version with digest {digest}");
                return Err(Problem::new(ProblemKind::NotFound, detail));
            };
            after = last.version;
            for event in &batch {
                let decoded = Event::decode(&event.kind, event.schema, &event.payload).map_err(|error| {
                    Problem::new(ProblemKind::Internal, format!("load {stream}: {error}"))
                })?;
                let Event::Applied(applied) = decoded;
                if applied.digest == digest {
                    let version = Arc::new(parse(&applied)?);
                    let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    if cached.len() >= CACHED_MAX {
                        cached.clear();
                    }
                    cached.insert(digest, Arc::clone(&version));
                    return Ok(version);
                }
            }
        }
    }
}
