//! The posts: which sandbox serves which incarnation, and what was sent to it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::lease::shard_of;
use events::{AgentId, CrewId, Incarnation, SandboxId, TaskId, Tenant};
use tokio::sync::Notify;

/// A sandbox and the incarnation that it serves, once and for ever (SB-1).
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) tenant: Tenant,
    pub(crate) crew: CrewId,
    pub(crate) agent: AgentId,
    pub(crate) incarnation: Incarnation,
    /// What the runner is told when it links for the first time.
    pub(crate) assign: Arc<link::Assign>,
    /// Whether only the attempt's timeout counts: the carrier sends no frames while it works.
    pub(crate) timeout_only: bool,
}

struct Entry {
    post: Post,
    /// Whether the runner has linked and its handler is up.
    ready: bool,
    /// Attempts that were handed to this link, by task and fence.
    sent: HashSet<(TaskId, u64)>,
    settled: Arc<Notify>,
}

/// The posts of this node.
#[derive(Default)]
pub(crate) struct Posts(Mutex<BTreeMap<SandboxId, Entry>>);

impl Posts {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets up a post; false if it is there already.
    pub(crate) fn add(&self, sandbox: &SandboxId, post: Post) -> bool {
        let mut entries = self.entries();
        if entries.contains_key(sandbox) {
            return false;
        }
        let entry = Entry { post, ready: false, sent: HashSet::new(), settled: Arc::new(Notify::new()) };
        entries.insert(sandbox.clone(), entry);
        true
    }

    pub(crate) fn get(&self, sandbox: &SandboxId) -> Option<Post> {
        self.entries().get(sandbox).map(|entry| entry.post.clone())
    }

    pub(crate) fn remove(&self, sandbox: &SandboxId) -> Option<Post> {
        let entry = self.entries().remove(sandbox)?;
        entry.settled.notify_waiters();
        Some(entry.post)
    }

    /// The runner linked (again): what it says it holds was sent, everything else was not.
    pub(crate) fn linked(&self, sandbox: &SandboxId, held: impl IntoIterator<Item = (TaskId, u64)>) {
        if let Some(entry) = self.entries().get_mut(sandbox) {
            entry.ready = false;
            entry.sent = held.into_iter().collect();
        }
    }

    /// The handler is up, and has its secrets: they are not kept any longer.
    pub(crate) fn set_ready(&self, sandbox: &SandboxId) {
        if let Some(entry) = self.entries().get_mut(sandbox) {
            if !entry.post.assign.secrets.is_empty() {
                Arc::make_mut(&mut entry.post.assign).secrets.clear();
            }
            entry.ready = true;
            entry.settled.notify_waiters();
        }
    }

    /// The link is gone; nothing can be sent for now.
    pub(crate) fn unlinked(&self, sandbox: &SandboxId) {
        if let Some(entry) = self.entries().get_mut(sandbox) {
            entry.ready = false;
        }
    }

    /// Whether the attempt is to be sent now; notes that it is.
    pub(crate) fn take_send(&self, sandbox: &SandboxId, task: &TaskId, fence: u64) -> bool {
        let mut entries = self.entries();
        entries.get_mut(sandbox).is_some_and(|entry| entry.ready && entry.sent.insert((task.clone(), fence)))
    }

    /// The attempt was not sent after all, or has ended; whether it was.
    pub(crate) fn forget_send(&self, sandbox: &SandboxId, task: &TaskId, fence: u64) -> bool {
        let mut entries = self.entries();
        entries.get_mut(sandbox).is_some_and(|entry| entry.sent.remove(&(task.clone(), fence)))
    }

    /// Waits until the handler is up or the post is gone; true if it is up.
    pub(crate) async fn settled(&self, sandbox: &SandboxId) -> bool {
        loop {
            let notify = match self.entries().get(sandbox) {
                None => return false,
                Some(entry) if entry.ready => return true,
                Some(entry) => Arc::clone(&entry.settled),
            };
            let notified = notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            // It may have settled between the look and the wait.
            match self.entries().get(sandbox) {
                None => return false,
                Some(entry) if entry.ready => return true,
                Some(_) => {}
            }
            notified.await;
        }
    }

    /// The sandboxes whose handler is up.
    pub(crate) fn ready(&self) -> Vec<SandboxId> {
        let entries = self.entries();
        entries.iter().filter(|(_, entry)| entry.ready).map(|(sandbox, _)| sandbox.clone()).collect()
    }

    /// Every sandbox that has a post.
    pub(crate) fn sandboxes(&self) -> Vec<SandboxId> {
        self.sandboxes_where(|_| true)
    }

    /// The sandboxes that serve agents of these crews.
    pub(crate) fn sandboxes_where(&self, wanted: impl Fn(&CrewId) -> bool) -> Vec<SandboxId> {
        let entries = self.entries();
        let served = entries.iter().filter(|(_, entry)| wanted(&entry.post.crew));
        served.map(|(sandbox, _)| sandbox.clone()).collect()
    }

    /// The crew of an agent that is served here.
    pub(crate) fn crew_of(&self, agent: &AgentId) -> Option<CrewId> {
        let entries = self.entries();
        let post = entries.values().map(|entry| &entry.post).find(|post| post.agent == *agent);
        post.map(|post| post.crew.clone())
    }

    /// Whether no sandbox serves an agent of the shard.
    pub(crate) fn is_idle(&self, shard: u8) -> bool {
        !self.entries().values().any(|entry| shard_of(entry.post.crew.as_str()) == shard)
    }
}
