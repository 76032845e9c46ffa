//! Checks of a profile across its fields.

use std::collections::BTreeSet;

use crate::decode::At;
use crate::fault::{Code, Fault, Faults, quoted};
use crate::{ProfileSpec, Protocol};

pub(crate) fn profile(spec: &ProfileSpec, at: &At<'_>, faults: &mut Faults) {
    if !faults.any_below("spec.handler.protocol") {
        carrier_fields(spec, &at.field("handler"), faults);
    }
    let models = spec.models.iter().map(|model| model.name.as_str());
    repeated(models, &at.field("models"), "name", faults);
    let servers = spec.tools.iter().map(|server| server.server.as_str());
    repeated(servers, &at.field("tools"), "server", faults);
    let secrets = spec.secrets.iter().map(|secret| secret.name.as_str());
    repeated(secrets, &at.field("secrets"), "name", faults);
    for (index, secret) in spec.secrets.iter().enumerate() {
        if spec.env.contains_key(&secret.name) {
            let at = at.field("secrets").item(index).field("name");
            at.report(at.error(Code::Conflict, "spec.env sets the same variable"), faults);
        }
    }
    let doors = [
        ("models", spec.models.is_empty(), "there is no model door yet: the agent's calls of it fail"),
        ("tools", spec.tools.is_empty(), "there is no tool door yet: the agent's calls of it fail"),
    ];
    for (field, _, expected) in doors.into_iter().filter(|(_, is_empty, _)| !is_empty) {
        let at = at.field(field);
        at.report(Fault::warning(Code::NotHeld, &at.path, expected), faults);
    }
    for (index, server) in spec.tools.iter().enumerate() {
        for (ordinal, tool) in server.approve.iter().enumerate() {
            if server.allow.contains(tool) {
                let at = at.field("tools").item(index).field("approve").item(ordinal);
                at.report(at.error(Code::Conflict, "the same tool is in allow"), faults);
            }
        }
    }
}

/// Reports fields that mean something to another carrier only.
fn carrier_fields(spec: &ProfileSpec, at: &At<'_>, faults: &mut Faults) {
    let handler = &spec.handler;
    let given = [
        ("stdin", handler.stdin.is_some(), Protocol::Exec),
        ("stdout", handler.stdout.is_some(), Protocol::Exec),
        ("response", handler.response.is_some(), Protocol::Http),
        ("port", handler.port.is_some(), Protocol::Http),
    ];
    for (field, _, wanted) in
        given.into_iter().filter(|(_, given, wanted)| *given && *wanted != handler.protocol)
    {
        let (wanted, actual) = (wanted.as_str(), handler.protocol.as_str());
        let expected = format!("`{field}` belongs to protocol {wanted}, but the protocol is {actual}");
        let at = at.field(field);
        at.report(at.error(Code::Conflict, expected), faults);
    }
}

/// Reports entries of a list whose field has a value that an earlier entry has too.
pub(super) fn repeated<'a>(
    values: impl Iterator<Item = &'a str>,
    at: &At<'_>,
    field: &str,
    faults: &mut Faults,
) {
    let mut seen = BTreeSet::new();
    for (index, value) in values.enumerate().filter(|(_, value)| !value.is_empty()) {
        if !seen.insert(value) {
            let at = at.item(index).field(field);
            let fault = Fault::error(Code::Duplicate, &at.path, format!("expected each {field} once"));
            at.report(fault.found(quoted(value)), faults);
        }
    }
}
