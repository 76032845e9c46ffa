//! Who asks, and under which key: from headers, whose names are the same at every door.

use std::sync::Arc;

use events::api::{Caller, Problem};
use events::{Principal, Tenant};

use super::problem::Refusal;
use super::token::bearer;

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
    key: Result<Option<Arc<str>>, Refusal>,
    traceparent: Option<Arc<str>>,
}

impl Shown {
    /// What these headers show; a key has so many bytes at most.
    pub(super) fn by(headers: &dyn Headers, key_bytes_max: usize) -> Self {
        let traceparent = headers.header("traceparent").filter(|text| is_traceparent(text));
        Self {
            bearer: bearer(headers).map(str::to_owned),
            key: idempotency_key(headers, key_bytes_max),
            traceparent: traceparent.map(Arc::from),
        }
    }

    /// The caller that this makes of a principal.
    pub(super) fn caller(self, principal: Principal) -> Result<Caller, Refusal> {
        let Self { key, traceparent, .. } = self;
        Ok(Caller { tenant: Tenant::default(), principal, idempotency_key: key?, traceparent })
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
