//! W3C Trace Context (version 00) of the platform's own spans. What an agent says of traces is data, never a parent.

use std::sync::Arc;

use uuid::Uuid;

/// A new span: in the trace of `parent`, which must be the platform's own, else in a new trace.
pub(crate) fn span(parent: Option<&str>) -> Arc<str> {
    let random = Uuid::new_v4();
    let span = &random.simple().to_string()[16..];
    match parent.and_then(trace_id) {
        Some(trace) => format!("00-{trace}-{span}-01").into(),
        None => format!("00-{}-{span}-01", Uuid::new_v4().simple()).into(),
    }
}

fn trace_id(traceparent: &str) -> Option<&str> {
    let trace = traceparent.strip_prefix("00-")?.get(..32)?;
    trace.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_stays_in_its_trace_or_starts_one() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let child = span(Some(parent));
        assert_eq!(trace_id(&child), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_ne!(&*child, parent);
        for alien in [None, Some(""), Some("00-short"), Some("00-é")] {
            let fresh = span(alien);
            assert_eq!((fresh.len(), fresh.is_ascii()), (55, true));
        }
    }
}
