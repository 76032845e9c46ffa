//! The shards that this node holds, and what that allows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::api::{Problem, ProblemKind};
use events::lease::{SHARDS, shard_of};
use events::store::Epoch;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The right to run a shard's entities: from the moment at which its lease was taken until it is lost.
#[derive(Debug)]
pub(crate) struct Tenure {
    /// The shard, and the epoch under which its streams are written.
    pub(crate) epoch: Epoch,
    lost: CancellationToken,
    open: CancellationToken,
}

impl Tenure {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, lost: CancellationToken::new(), open: CancellationToken::new() }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Waits until the shard is lost.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// What was unfinished in the shard is recovered: it takes commands from now on.
    pub(crate) fn open(&self) {
        self.open.cancel();
    }

    /// Waits until the shard takes commands.
    pub(crate) async fn opened(&self) {
        self.open.cancelled().await;
    }
}

#[derive(Debug)]
struct Held {
    tenures: Vec<Option<Arc<Tenure>>>,
    /// From then on others may hold the shards, as far as this node knows.
    until: Option<Instant>,
    /// Lost by an append that was refused, and not let go yet.
    fenced: Vec<Arc<Tenure>>,
}

/// What this node holds.
#[derive(Debug)]
pub(crate) struct Shards {
    held: Mutex<Held>,
    /// Grows whenever a shard is taken.
    taken: AtomicU64,
    doubted: Notify,
}

impl Shards {
    /// No shard is held.
    pub(crate) fn new() -> Self {
        let held = Held { tenures: vec![None; SHARDS], until: None, fenced: Vec::new() };
        Self { held: Mutex::new(held), taken: AtomicU64::new(0), doubted: Notify::new() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenure under which entities of `key`'s shard are in memory here, whether or not anything may be done now.
    pub(crate) fn holding(&self, key: &str) -> Result<Arc<Tenure>, Problem> {
        let shard = shard_of(key);
        let tenure = self.held().tenures[usize::from(shard)].clone();
        let away = || format!("shard {shard} is not this node's; try again");
        tenure.ok_or_else(|| Problem::new(ProblemKind::Unavailable, away()))
    }

    /// The tenure under which `key`'s shard may be acted upon and written now.
    pub(crate) fn tenure(&self, key: &str) -> Result<Arc<Tenure>, Problem> {
        if self.held().until.is_some_and(|until| until <= Instant::now()) {
            let detail = "this node cannot renew its leases and does nothing meanwhile; try again";
            return Err(Problem::new(ProblemKind::Unavailable, detail));
        }
        self.holding(key)
    }

    /// Whether the shard is held, and what was unfinished in it is recovered.
    pub(crate) fn is_open(&self, shard: u8) -> bool {
        let tenures = &self.held().tenures;
        tenures[usize::from(shard)].as_ref().is_some_and(|tenure| tenure.open.is_cancelled())
    }

    /// The leases that are held.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        self.held().tenures.iter().flatten().map(|tenure| tenure.epoch).collect()
    }

    /// Changes whenever a shard is taken: what was read of a shard that was not held may then be out of date.
    pub(crate) fn generation(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Takes note of leases that were taken. Their shards do not take commands yet.
    pub(crate) fn take(&self, epochs: &[Epoch]) -> Vec<Arc<Tenure>> {
        let mut held = self.held();
        let tenures: Vec<_> = epochs.iter().map(|epoch| Arc::new(Tenure::new(*epoch))).collect();
        for tenure in &tenures {
            let before = held.tenures[usize::from(tenure.epoch.shard)].replace(Arc::clone(tenure));
            if let Some(before) = before {
                before.lost.cancel();
            }
        }
        self.taken.fetch_add(1, Ordering::AcqRel);
        tenures
    }

    /// Until when what is held may be acted upon.
    pub(crate) fn extend(&self, until: Instant) {
        self.held().until = Some(until);
    }

    /// Ends the tenures under these leases, and those that an append has shown to be over.
    pub(crate) fn lose(&self, epochs: &[Epoch]) -> Vec<Arc<Tenure>> {
        let mut held = self.held();
        let mut lost = std::mem::take(&mut held.fenced);
        for epoch in epochs {
            let slot = &mut held.tenures[usize::from(epoch.shard)];
            lost.extend(slot.take_if(|tenure| tenure.epoch == *epoch));
        }
        lost.iter().for_each(|tenure| tenure.lost.cancel());
        lost
    }

    /// An append under this lease was refused: it is somebody else's.
    pub(crate) fn fenced(&self, epoch: Epoch) {
        let mut held = self.held();
        let slot = &mut held.tenures[usize::from(epoch.shard)];
        if let Some(tenure) = slot.take_if(|tenure| tenure.epoch == epoch) {
            tracing::warn!(shard = epoch.shard, epoch = epoch.epoch, "another node has taken the shard");
            tenure.lost.cancel();
            held.fenced.push(tenure);
            self.doubted.notify_one();
        }
    }

    /// Waits until an append has shown that a shard is lost.
    pub(crate) async fn doubted(&self) {
        self.doubted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key_of(shard: u8) -> String {
        let found = (0..).map(|number: u32| number.to_string()).find(|key| shard_of(key) == shard);
        found.expect("every shard has keys")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_acted_upon_until_the_lease_may_be_over() {
        let (shards, key, epoch) = (Shards::new(), key_of(7), Epoch { shard: 7, epoch: 3 });
        assert!(shards.tenure(&key).is_err_and(|problem| problem.kind.is_retryable()));
        let generation = shards.generation();
        shards.take(&[epoch]);
        assert_ne!(shards.generation(), generation);
        let tenure = shards.tenure(&key).expect("it is held");
        assert!(tenure.epoch == epoch && !shards.is_open(7), "it is not recovered yet");
        tenure.open();
        assert!(shards.is_open(7) && !shards.is_open(8));
        shards.extend(Instant::now() + Duration::from_secs(9));
        tokio::time::advance(Duration::from_secs(8)).await;
        let tenure = shards.tenure(&key).expect("it is still held");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(shards.tenure(&key).is_err(), "it may be another's by now");
        assert!(shards.holding(&key).is_ok() && !tenure.is_lost(), "or nobody took it");
        shards.extend(Instant::now() + Duration::from_secs(9));
        assert!(Arc::ptr_eq(&tenure, &shards.tenure(&key).expect("nobody took it")));
    }

    #[tokio::test]
    async fn a_lost_shard_is_nobodys_here_and_is_handed_out_once_to_be_let_go() {
        let (shards, key) = (Shards::new(), key_of(9));
        let epochs = [7, 8, 9].map(|shard| Epoch { shard, epoch: 1 });
        let tenures = shards.take(&epochs);
        shards.fenced(Epoch { shard: 9, epoch: 2 });
        assert!(shards.tenure(&key).is_ok(), "another epoch was refused");
        shards.fenced(epochs[2]);
        shards.doubted().await;
        assert!(shards.tenure(&key).is_err() && tenures[2].is_lost());
        assert_eq!(shards.epochs(), epochs[..2]);
        let lost = shards.lose(&[epochs[0], Epoch { shard: 8, epoch: 2 }]);
        assert_eq!(lost.iter().map(|tenure| tenure.epoch.shard).collect::<Vec<_>>(), [9, 7]);
        assert!(shards.lose(&[]).is_empty());
        tokio::time::timeout(Duration::from_secs(1), tenures[0].lost()).await.expect("who waits hears of it");
    }
}
