//! Denials as events: whoever knocks a thousand times does not fill the log. The next event says how many there were.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::api::Caller;
use events::domain::platform::AccessDenied;
use events::{EventStore, Principal, Tenant};

use crate::acts;

/// Between two events about denials of one permission.
const PAUSE: Duration = Duration::from_secs(10);

/// The denials of each permission since its last event.
#[derive(Debug, Default)]
pub(super) struct Denials {
    permissions: Mutex<HashMap<&'static str, Counted>>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    count: u64,
    told: Instant,
}

impl Denials {
    /// Counts a denial, and has it recorded when it is time.
    pub(super) fn record(&self, store: &Arc<dyn EventStore>, permission: &'static str, reason: &str) {
        let Some(count) = self.count(permission, Instant::now()) else { return };
        let (store, reason) = (Arc::clone(store), reason.to_owned());
        tokio::spawn(async move {
            let denied = AccessDenied { permission: permission.to_owned(), reason, count };
            let caller = Caller {
                tenant: Tenant::default(),
                principal: Principal::system("api"),
                idempotency_key: None,
                traceparent: None,
            };
            if let Err(error) = acts::record(&*store, &caller, "api", denied).await {
                tracing::warn!(%error, permission, "a denial was not recorded");
            }
        });
    }

    /// How many denials the next event is about, if it is time for one.
    fn count(&self, permission: &'static str, now: Instant) -> Option<u64> {
        let mut permissions = self.permissions.lock().unwrap_or_else(PoisonError::into_inner);
        match permissions.get_mut(permission) {
            Some(counted) if now - counted.told < PAUSE => {
                counted.count += 1;
                None
            }
            counted => {
                let count = counted.map_or(0, |counted| counted.count) + 1;
                permissions.insert(permission, Counted { count: 0, told: now });
                Some(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_denial_is_counted_and_few_are_told() {
        let (denials, start) = (Denials::default(), Instant::now());
        assert_eq!(denials.count("task:read", start), Some(1));
        assert_eq!(denials.count("task:read", start), None);
        assert_eq!(denials.count("task:read", start + PAUSE / 2), None);
        assert_eq!(denials.count("crew:read", start), Some(1));
        assert_eq!(denials.count("task:read", start + PAUSE), Some(3));
        assert_eq!(denials.count("task:read", start + PAUSE * 3), Some(1));
    }
}
