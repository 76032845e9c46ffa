//! Plain counters, in the text format of Prometheus (exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

#[derive(Clone, Copy, Default)]
struct Count {
    requests: u64,
    seconds: f64,
}

/// What was answered so far, by route and status: as many entries as there are routes and statuses.
#[derive(Default)]
pub(super) struct Metrics {
    counts: Mutex<BTreeMap<(&'static str, u16), Count>>,
}

impl Metrics {
    pub(super) fn count(&self, route: &'static str, status: StatusCode, took: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((route, status.as_u16())).or_default();
        count.requests += 1;
        count.seconds += took.as_secs_f64();
    }

    /// The counters, this one of requests at all doors among them, and these gauges: name, meaning, value.
    pub(super) fn render(&self, gauges: &[(&str, &str, u64)], limited: u64) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = String::new();
        for (name, help, value) in gauges {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        let name = "hypercode_requests_limited_total";
        let help = "Requests at all doors that were refused because there were too many.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {limited}");
        let requests = "hypercode_http_requests_total";
        let _ = writeln!(text, "# HELP {requests} Requests answered.\n# TYPE {requests} counter");
        for ((route, status), count) in &counts {
            let _ = writeln!(text, "{requests}{{route=\"{route}\",status=\"{status}\"}} {}", count.requests);
        }
        let seconds = "hypercode_http_request_seconds_total";
        let _ = writeln!(text, "# HELP {seconds} Time until the answers began.\n# TYPE {seconds} counter");
        for ((route, status), count) in &counts {
            let _ = writeln!(text, "{seconds}{{route=\"{route}\",status=\"{status}\"}} {:.6}", count.seconds);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_in_the_text_format() {
        let metrics = Metrics::default();
        metrics.count("listCrews", StatusCode::OK, Duration::from_millis(250));
        metrics.count("listCrews", StatusCode::OK, Duration::from_millis(250));
        let text = metrics.render(&[("hypercode_log_position", "The log's end.", 7)], 3);
        assert!(text.contains("\nhypercode_requests_limited_total 3\n"));
        assert!(text.starts_with(
            "# HELP hypercode_log_position The log's end.\n# TYPE hypercode_log_position gauge\n"
        ));
        assert!(text.contains("\nhypercode_log_position 7\n"));
        assert!(text.contains("\nhypercode_http_requests_total{route=\"listCrews\",status=\"200\"} 2\n"));
        assert!(text.ends_with("seconds_total{route=\"listCrews\",status=\"200\"} 0.500000\n"));
    }
}
