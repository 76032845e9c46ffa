//! The envelope that all manifests share.

use crate::check;
use crate::decode::crew::crew_spec;
use crate::decode::pool::pool_spec;
use crate::decode::profile::profile_spec;
use crate::decode::{At, Fields, any_of, missing_name, name, texts};
use crate::fault::{Code, Fault, Faults};
use crate::nearest::nearest;
use crate::tree::Node;
use crate::{ApiVersion, Crew, Kind, Manifest, Metadata, Pool, Profile};

/// Reads and checks one document. Gives a manifest if it has no errors.
pub(crate) fn manifest(document: &Node, faults: &mut Faults) -> Option<Manifest> {
    let at = At::root(document);
    let mut fields = Fields::of(&at, faults);
    let api_version = fields.required("apiVersion", api_version);
    let kind = fields.required("kind", kind);
    let metadata = fields.required("metadata", metadata);
    let spec = match kind {
        Some(Kind::Crew) => fields.required("spec", |at, faults| Some(Spec::Crew(crew_spec(at, faults)))),
        Some(Kind::Profile) => {
            fields.required("spec", |at, faults| Some(Spec::Profile(profile_spec(at, faults))))
        }
        Some(Kind::Pool) => {
            // All that a pool is has a default.
            let spec = fields.optional("spec", |at, faults| Some(pool_spec(at, faults)));
            Some(Spec::Pool(spec.unwrap_or_default()))
        }
        // What a manifest of another kind may contain is not known here, so it is not looked into.
        _ => fields.optional("spec", |_, _| None),
    };
    fields.finish();

    let at = at.field("spec");
    match &spec {
        Some(Spec::Crew(spec)) => check::crew(spec, &at, faults),
        Some(Spec::Profile(spec)) => check::profile(spec, &at, faults),
        Some(Spec::Pool(spec)) => check::pool(spec, &at, faults),
        None => {}
    }
    if faults.any_error() {
        return None;
    }
    let (api_version, metadata) = (api_version?, metadata?);
    Some(match spec? {
        Spec::Crew(spec) => Manifest::Crew(Crew { api_version, metadata, spec }),
        Spec::Profile(spec) => Manifest::Profile(Profile { api_version, metadata, spec }),
        Spec::Pool(spec) => Manifest::Pool(Pool { api_version, metadata, spec }),
    })
}

/// What a manifest of any kind is about.
enum Spec {
    Crew(crate::CrewSpec),
    Profile(crate::ProfileSpec),
    Pool(crate::PoolSpec),
}

fn api_version(at: &At<'_>, faults: &mut Faults) -> Option<ApiVersion> {
    let known = ApiVersion::V1.as_str();
    match at.scalar() {
        Some((_, found)) if found == known => Some(ApiVersion::V1),
        _ => at.refuse(Code::UnsupportedVersion, format!("this version reads {known}"), faults),
    }
}

fn kind(at: &At<'_>, faults: &mut Faults) -> Option<Kind> {
    let found = at.scalar().map_or("", |(_, text)| text);
    let supported = || any_of(Kind::ALL.into_iter().filter(|kind| kind.is_supported()).map(Kind::as_str));
    match Kind::ALL.into_iter().find(|kind| kind.as_str() == found) {
        Some(kind) if kind.is_supported() => Some(kind),
        Some(_) => at.refuse(Code::UnsupportedKind, format!("expected {}", supported()), faults),
        None => {
            let fault = at.error(Code::UnknownKind, format!("expected {}", supported()));
            at.report(fault.nearest(nearest(found, Kind::ALL.map(Kind::as_str))), faults);
            None
        }
    }
}

fn metadata(at: &At<'_>, faults: &mut Faults) -> Option<Metadata> {
    let mut fields = Fields::of(at, faults);
    let metadata = Metadata {
        name: fields.required("name", name).unwrap_or_else(missing_name),
        tenant: fields.optional("tenant", name),
        labels: fields
            .optional("labels", texts(Metadata::LABELS_MAX, check_label, Metadata::LABEL_LENGTH_MAX))
            .unwrap_or_default(),
    };
    fields.finish();
    Some(metadata)
}

fn check_label(key: &str) -> Result<(), String> {
    match key.chars().count() {
        1..=Metadata::LABEL_LENGTH_MAX => Ok(()),
        _ => Err(format!("expected a label of 1 to {} characters", Metadata::LABEL_LENGTH_MAX)),
    }
}

/// Reports a manifest whose kind, tenant and name an earlier one in the file has too.
pub(crate) fn report_duplicate(document: &Node, faults: &mut Faults) {
    let at = At::root(document).field("metadata").field("name");
    let fault: Fault = at.error(Code::Duplicate, "expected names that are unique within kind and tenant");
    at.report(fault, faults);
}
