//! Who waits for something to change, by what they wait for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Those who wait. Nothing is kept of what nobody waits for.
#[derive(Default)]
pub(crate) struct Changes(Mutex<HashMap<Arc<str>, Arc<Notify>>>);

/// Somebody who waits, until it is dropped.
pub(crate) struct Waiting<'a> {
    changes: &'a Changes,
    id: &'a str,
    notify: Arc<Notify>,
}

impl Changes {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for changes of `id`.
    pub(crate) fn of<'a>(&'a self, id: &'a str) -> Waiting<'a> {
        let notify = Arc::clone(self.waiting().entry(id.into()).or_default());
        Waiting { changes: self, id, notify }
    }

    /// `id` has changed: wakes who waits for it.
    pub(crate) fn happened(&self, id: &str) {
        if let Some(notify) = self.waiting().get(id) {
            notify.notify_waiters();
        }
    }
}

impl Waiting<'_> {
    /// The next change, once it is enabled.
    pub(crate) fn next(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.changes.waiting();
        // Two handles are the map's and ours: nobody else waits.
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_of_a_wait_that_is_given_up() {
        let changes = Changes::default();
        let other = changes.of("one");
        let given_up = async {
            let waiting = changes.of("one");
            waiting.next().await;
        };
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), given_up).await.is_err());
        assert_eq!(changes.waiting().len(), 1, "somebody still waits");
        {
            let next = other.next();
            tokio::pin!(next);
            next.as_mut().enable();
            changes.happened("one");
            next.await;
        }
        drop(other);
        assert!(changes.waiting().is_empty());
    }
}
