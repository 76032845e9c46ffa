//! Denials as events: whoever knocks a thousand times does not fill the log. The next event says how many there were.
//!
//! Strangers are counted together, people whom we know each for themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::api::Caller;
use events::domain::platform::AccessDenied;
use events::{EventStore, Position, Principal, Tenant};

use crate::acts;

/// Between two events about denials of one permission to the same.
const PAUSE: Duration = Duration::from_secs(10);
/// Denials of how many kinds are counted at a time.
const KINDS_MAX: usize = 10_000;

/// Who was denied what in which tenant; nobody in particular where it was a stranger.
type Kind = (Option<(Tenant, Principal)>, &'static str);

/// The denials of each kind since its last event.
#[derive(Debug, Default)]
pub(super) struct Denials {
    kinds: Mutex<HashMap<Kind, Counted>>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    count: u64,
    told: Instant,
    position: Option<Position>,
}

impl Denials {
    /// Counts a stranger's denial, and has it recorded when it is time: a stranger does not wait for it.
    pub(super) fn of_stranger(&self, store: &Arc<dyn EventStore>, permission: &'static str, reason: &str) {
        let Some(count) = self.count(&(None, permission), Instant::now()) else { return };
        let (store, reason) = (Arc::clone(store), reason.to_owned());
        tokio::spawn(async move {
            let denied = AccessDenied { permission: permission.to_owned(), reason, count };
            record(&*store, Tenant::default(), Principal::system("api"), denied).await;
        });
    }

    /// Counts a denial of somebody who is known, and records it when it is time. The position of the event that tells
    /// of it, or of the last one like it.
    pub(super) async fn of(
        &self,
        store: &dyn EventStore,
        tenant: &Tenant,
        principal: &Principal,
        permission: &'static str,
        reason: &str,
    ) -> Option<Position> {
        let kind = (Some((tenant.clone(), principal.clone())), permission);
        let Some(count) = self.count(&kind, Instant::now()) else {
            return self.kinds().get(&kind).and_then(|counted| counted.position);
        };
        let denied = AccessDenied { permission: permission.to_owned(), reason: reason.to_owned(), count };
        let position = record(store, tenant.clone(), principal.clone(), denied).await;
        if let Some(counted) = self.kinds().get_mut(&kind) {
            counted.position = position;
        }
        position
    }

    /// How many denials the next event is about, if it is time for one.
    fn count(&self, kind: &Kind, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds();
        match kinds.get_mut(kind) {
            Some(counted) if now - counted.told < PAUSE => {
                counted.count += 1;
                None
            }
            counted => {
                let count = counted.map_or(0, |counted| counted.count) + 1;
                if kinds.len() >= KINDS_MAX {
                    kinds.retain(|_, counted| now - counted.told < PAUSE);
                }
                kinds.insert(kind.clone(), Counted { count: 0, told: now, position: None });
                Some(count)
            }
        }
    }

    fn kinds(&self) -> std::sync::MutexGuard<'_, HashMap<Kind, Counted>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn record(
    store: &dyn EventStore,
    tenant: Tenant,
    principal: Principal,
    denied: AccessDenied,
) -> Option<Position> {
    let caller = Caller { tenant, principal, idempotency_key: None, traceparent: None };
    match acts::record(store, &caller, "api", denied).await {
        Ok(appended) => Some(appended.position),
        Err(error) => {
            tracing::warn!(%error, "a denial was not recorded");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_denial_is_counted_and_few_are_told() {
        let (denials, start) = (Denials::default(), Instant::now());
        let (task, crew) = ((None, "task:read"), (None, "crew:read"));
        assert_eq!(denials.count(&task, start), Some(1));
        assert_eq!(denials.count(&task, start), None);
        assert_eq!(denials.count(&task, start + PAUSE / 2), None);
        assert_eq!(denials.count(&crew, start), Some(1));
        assert_eq!(
            denials.count(&(Some((Tenant::default(), Principal::user("eve"))), "crew:read"), start),
            Some(1)
        );
        assert_eq!(denials.count(&task, start + PAUSE), Some(3));
        assert_eq!(denials.count(&task, start + PAUSE * 3), Some(1));
    }
}
