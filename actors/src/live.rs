//! What handlers say of their tasks to whoever watches at the moment. Nobody keeps it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::TaskId;
use tokio::sync::broadcast;

/// Texts that a slow watcher may be behind; then it misses the oldest.
const BEHIND_MAX: usize = 1_024;

/// The watchers of tasks.
#[derive(Default)]
pub(crate) struct Live(Mutex<HashMap<TaskId, broadcast::Sender<Arc<str>>>>);

impl Live {
    fn watched(&self) -> MutexGuard<'_, HashMap<TaskId, broadcast::Sender<Arc<str>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a task from now on.
    pub(crate) fn watch(&self, task: &TaskId) -> broadcast::Receiver<Arc<str>> {
        let mut watched = self.watched();
        // Those that nobody watches any more are not kept.
        watched.retain(|_, watchers| watchers.receiver_count() > 0);
        watched.entry(task.clone()).or_insert_with(|| broadcast::channel(BEHIND_MAX).0).subscribe()
    }

    /// Tells those who watch the task, if anybody does.
    pub(crate) fn tell(&self, task: &TaskId, text: &str) {
        if let Some(watchers) = self.watched().get(task) {
            // That the last one has just gone is no fault.
            let _ = watchers.send(text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_watches_is_told_and_nothing_is_kept_for_later() {
        let (live, task) = (Live::default(), TaskId::derive(&["t"]));
        live.tell(&task, "unheard");
        let mut watcher = live.watch(&task);
        live.tell(&task, "heard");
        live.tell(&TaskId::derive(&["other"]), "of another");
        assert_eq!(&*watcher.recv().await.expect("it was told"), "heard");
        drop(watcher);
        let _other = live.watch(&TaskId::derive(&["other"]));
        assert_eq!(live.watched().len(), 1, "what nobody watches is forgotten");
    }
}
