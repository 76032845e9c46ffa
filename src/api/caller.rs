//! Who asks, about which tenant, and under which key: from headers, whose names are the same at every door.

use std::sync::Arc;

use events::Tenant;
use events::api::{Caller, Problem};
use identity::Scope;
use manifest::Name;

use super::problem::Refusal;
use super::token::bearer;
use crate::access::Identity;

/// The header that names the tenant which a request is about.
pub(crate) const TENANT: &str = "x-hypercode-tenant";

/// The headers of a request; one that is not text is as good as none.
pub(crate) trait Headers {
    /// The value under a name, whatever its case.
    fn header(&self, name: &str) -> Option<&str>;
    /// Whether the name is there, be it with a value that is not text.
    fn has(&self, name: &str) -> bool;
}

/// What the headers of a request show, taken out of them at once.
pub(super) struct Shown {
    /// The bearer token.
    pub(super) bearer: Result<String, Problem>,
    /// The tenant that the request is about, if it names one.
    pub(super) tenant: Option<Result<Tenant, Refusal>>,
    key: Result<Option<Arc<str>>, Refusal>,
    traceparent: Option<Arc<str>>,
}

impl Shown {
    /// What these headers show; a key has so many bytes at most.
    pub(super) fn by(headers: &dyn Headers, key_bytes_max: usize) -> Self {
        let traceparent = headers.header("traceparent").filter(|text| is_traceparent(text));
        Self {
            bearer: bearer(headers).map(str::to_owned),
            tenant: tenant(headers),
            key: idempotency_key(headers, key_bytes_max),
            traceparent: traceparent.map(Arc::from),
        }
    }

    /// The caller that this makes of somebody, in this tenant.
    pub(super) fn caller(self, identity: &Identity, tenant: Tenant) -> Result<Caller, Refusal> {
        let Self { key, traceparent, .. } = self;
        let principal = identity.principal.clone();
        Ok(Caller { tenant, principal, idempotency_key: key?, traceparent })
    }
}

/// What a request is about: the tenant that it names; else the only one that the roles of who asks name, else `default`.
/// Beside it, how far that reaches: whoever names no tenant, and whose roles name none, asks about the platform.
pub(super) fn place(named: Option<Tenant>, identity: &Identity) -> (Tenant, Scope) {
    if let Some(tenant) = named {
        return (tenant.clone(), Scope::Tenant(tenant));
    }
    let tenant = identity.only_tenant().cloned().unwrap_or_default();
    let is_at_platform = identity.grants.iter().all(|grant| grant.scope.is_platform());
    let at = if is_at_platform { Scope::Platform } else { Scope::Tenant(tenant.clone()) };
    (tenant, at)
}

fn tenant(headers: &dyn Headers) -> Option<Result<Tenant, Refusal>> {
    let named = headers.header(TENANT).map(|text| text.parse::<Name>().ok()?.as_str().parse().ok());
    match named {
        Some(Some(tenant)) => Some(Ok(tenant)),
        None if !headers.has(TENANT) => None,
        _ => Some(Err(Refusal::invalid(format!("`{TENANT}`: expected {}", Name::EXPECTED)))),
    }
}

fn idempotency_key(headers: &dyn Headers, most: usize) -> Result<Option<Arc<str>>, Refusal> {
    const NAME: &str = "Idempotency-Key";
    let legal = |key: &&str| (1..=most).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    match headers.header(NAME).filter(legal) {
        Some(key) => Ok(Some(key.into())),
        None if !headers.has(NAME) => Ok(None),
        None => Err(Refusal::invalid(format!("`{NAME}` has 1 to {most} visible ASCII characters"))),
    }
}

/// Whether the text is a trace context of version 00 (W3C Trace Context §3.2). One that is not is passed over, as the
/// standard asks.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2)
        && trace.bytes().any(|b| b != b'0') && span.bytes().any(|b| b != b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trace_context_is_passed_on() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00-4bf9-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
