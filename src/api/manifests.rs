//! Manifests in requests: parsed and checked here, before any command is made of them.

use events::Tenant;
use events::api::{Problem, ProblemKind};
use manifest::{Crew, Fault, Manifest, Profile};
use serde_json::Value;

use super::caller::TENANT;
use super::problem::Refusal;

/// Where a manifest came from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The body itself: faults have places in it.
    Text(&'a [u8]),
    /// A field of the body, whose lines are lost.
    Field(&'a Value),
}

/// The manifests of a body, checked, all faults at once.
pub(crate) fn read(source: Source<'_>, tenant: &Tenant) -> Result<Vec<Manifest>, Refusal> {
    let parsed = match source {
        Source::Text(text) => manifest::parse("body", text),
        Source::Field(value) => manifest::parse("body", value.to_string().as_bytes()),
    };
    if parsed.has_errors() {
        let count = parsed.faults.len();
        let plural = if count == 1 { "" } else { "s" };
        let mut problem =
            Problem::new(ProblemKind::Invalid, format!("the manifest has {count} fault{plural}"));
        problem.faults = parsed
            .faults
            .into_iter()
            .map(|fault| match source {
                Source::Text(_) => fault.to_json(),
                Source::Field(_) => Fault { location: None, ..fault }.to_json(),
            })
            .collect();
        return Err(problem.into());
    }
    for manifest in &parsed.manifests {
        // One that names no tenant is for whichever it is given to.
        let Some(named) = &manifest.metadata().tenant else { continue };
        if named.as_str() != tenant.as_str() {
            let detail = format!(
                "the manifest is for tenant `{named}`, and this request is about `{tenant}`: give the manifest's, by \
                 `--tenant` or the header `{TENANT}`"
            );
            return Err(Problem::new(ProblemKind::Denied, detail).into());
        }
    }
    Ok(parsed.manifests)
}

/// The one crew of these manifests, and the profiles beside it.
pub(crate) fn crew_and_profiles(manifests: Vec<Manifest>) -> Result<(Crew, Vec<Profile>), Refusal> {
    let (mut crews, mut profiles) = (Vec::new(), Vec::new());
    for manifest in manifests {
        match manifest {
            Manifest::Crew(crew) => crews.push(crew),
            Manifest::Profile(profile) => profiles.push(profile),
            Manifest::Pool(pool) => {
                let name = pool.metadata.name;
                return Err(Refusal::invalid(format!("found pool `{name}` beside the crew; apply it first")));
            }
        }
    }
    match (crews.pop(), crews.len()) {
        (Some(crew), 0) => Ok((crew, profiles)),
        (_, others) => {
            let found = if others == 0 { "none" } else { "several" };
            Err(Refusal::invalid(format!("expected one manifest of kind `Crew`, found {found}")))
        }
    }
}
