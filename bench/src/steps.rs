//! How far the agents of a crew are, by the log: it tells of nothing that is not durable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use events::{EntityKind, EventStore, Recorded};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::Result;

/// Events read at a time.
const READ_EVENTS: usize = 1_000;
/// How long the log may say nothing before it is read all the same.
const HINT: Duration = Duration::from_millis(200);
/// How long a step is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// When the last of a crew's agents had its sandbox, and when the last was ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) claimed: Instant,
    pub(crate) ready: Instant,
}

#[derive(Default)]
struct Inner {
    /// The crew of each agent.
    crews: HashMap<Arc<str>, String>,
    claimed: HashMap<String, Vec<Instant>>,
    ready: HashMap<String, Vec<Instant>>,
}

/// Follows a log from where it ends now.
pub(crate) struct Steps {
    inner: Arc<Mutex<Inner>>,
    moved: Arc<Notify>,
    follower: JoinHandle<()>,
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Steps {
    pub(crate) async fn follow(store: &Arc<dyn EventStore>) -> Result<Self> {
        let (inner, moved) = (Arc::<Mutex<Inner>>::default(), Arc::<Notify>::default());
        let (told, ring) = (Arc::clone(&inner), Arc::clone(&moved));
        let (store, mut position) = (Arc::clone(store), store.head().await?.position);
        let follower = tokio::spawn(async move {
            let mut head = store.watch();
            loop {
                let events = store.read(position, READ_EVENTS).await.unwrap_or_default();
                let now = Instant::now();
                for event in &events {
                    position = event.position;
                    lock(&told).take(event, now);
                }
                if events.is_empty() {
                    // The hint may be missed, so the log is read again all the same.
                    let _ = tokio::time::timeout(HINT, head.changed()).await;
                } else {
                    ring.notify_waiters();
                }
            }
        });
        Ok(Self { inner, moved, follower })
    }

    /// Waits until so many agents of the crew are ready.
    pub(crate) async fn of(&self, crew: &str, agents: usize) -> Result<Seen> {
        let look = async {
            loop {
                let moved = self.moved.notified();
                if let Some(seen) = lock(&self.inner).seen(crew, agents) {
                    return seen;
                }
                moved.await;
            }
        };
        Ok(tokio::time::timeout(PATIENCE, look).await.map_err(|_| "the log does not tell of the crew")?)
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn take(&mut self, event: &Recorded, now: Instant) {
        if event.stream.kind != EntityKind::Agent {
            return;
        }
        let steps = match &*event.kind {
            "agent_requested" => {
                let payload: Value = serde_json::from_str(&event.payload).unwrap_or_default();
                let crew = payload["crew"].as_str().unwrap_or_default().to_owned();
                self.crews.insert(Arc::clone(&event.stream.id), crew);
                return;
            }
            "sandbox_claimed" => &mut self.claimed,
            "agent_ready" => &mut self.ready,
            _ => return,
        };
        if let Some(crew) = self.crews.get(&event.stream.id) {
            steps.entry(crew.clone()).or_default().push(now);
        }
    }

    fn seen(&self, crew: &str, agents: usize) -> Option<Seen> {
        let last = |steps: &HashMap<String, Vec<Instant>>| steps.get(crew)?.get(agents - 1).copied();
        Some(Seen { claimed: last(&self.claimed)?, ready: last(&self.ready)? })
    }
}
