//! Keeps this node's leases: renews them, claims its share, hands over what is too much, and lets go of what is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use events::api::Problem;
use events::lease::{LeaseError, Leases, SHARDS, Secret, Table};
use events::store::Epoch;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::Core;
use crate::shards::Tenure;
use crate::share::{self, Plan};
use crate::{recovery, takeover};

/// The leases of this node, and what it knows of those of others.
pub(crate) struct Keeper {
    leases: Arc<dyn Leases>,
    table: watch::Sender<Table>,
    /// When the table was read; locked while it is read.
    read_at: tokio::sync::Mutex<Option<Instant>>,
}

/// What a round of keeping the leases led to.
struct Round {
    /// Shards that were taken, to be recovered.
    taken: Vec<Arc<Tenure>>,
    /// The next round begins then.
    next: Instant,
}

impl Keeper {
    pub(crate) fn new(leases: Arc<dyn Leases>) -> Self {
        Self { leases, table: watch::Sender::new(Table::default()), read_at: tokio::sync::Mutex::default() }
    }

    /// Who lives and who holds what, not older than `age` where that can be read; those who ask at once share an answer.
    pub(crate) async fn look(&self, core: &Core, age: Duration) -> watch::Receiver<Table> {
        let mut read_at = self.read_at.lock().await;
        if read_at.is_none_or(|at| at.elapsed() >= age) {
            match self.within(core, self.leases.table()).await {
                Ok(table) => drop(self.table.send_replace(table)),
                Err(error) => tracing::warn!(%error, "whose shards are whose is not read"),
            }
            *read_at = Some(Instant::now());
        }
        self.table.subscribe()
    }

    /// What only the nodes of this log know.
    pub(crate) async fn secret(&self) -> Result<Secret, LeaseError> {
        self.leases.secret().await
    }

    /// Joins the other nodes and takes this one's share of what nobody holds, to be recovered.
    pub(crate) async fn join(&self, core: &Arc<Core>) -> Result<Vec<Arc<Tenure>>, Problem> {
        Ok(self.round(core).await?.taken)
    }

    /// Keeps the leases for as long as the node runs.
    pub(crate) async fn keep(&self, core: Arc<Core>) {
        let leasing = core.options.leasing;
        let mut next = Instant::now() + Duration::from_millis(leasing.renew_every_ms);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = core.shards.doubted() => {}
            }
            next = match self.round(&core).await {
                Ok(round) => {
                    if !round.taken.is_empty() {
                        let worker = Arc::clone(&core);
                        core.spawn_always(async move { recovery::take_up(&worker, round.taken).await });
                    }
                    round.next
                }
                Err(error) => {
                    tracing::warn!(%error, "leases cannot be kept at the moment");
                    Instant::now() + Duration::from_millis(leasing.retry_ms)
                }
            };
        }
    }

    /// Waits no longer than that for the store: nothing may hold up the next renewal.
    async fn within<T>(
        &self,
        core: &Core,
        answer: impl Future<Output = Result<T, LeaseError>>,
    ) -> Result<T, LeaseError> {
        let limit = Duration::from_millis(core.options.leasing.answer_ms);
        let late = |_| Err(LeaseError::Unavailable { reason: "no answer in time".into() });
        tokio::time::timeout(limit, answer).await.unwrap_or_else(late)
    }

    async fn round(&self, core: &Arc<Core>) -> Result<Round, LeaseError> {
        let (node, leasing) = (&core.options.node, core.options.leasing);
        self.renew(core).await?;
        let mut table = self.within(core, self.leases.table()).await?;
        let held = core.shards.epochs();
        // What is not recovered yet is not known to be idle.
        let is_idle = |shard| {
            core.shards.is_open(shard)
                && core.posts.is_idle(shard)
                && core.tallies.is_idle(shard)
                && core.shelves.is_idle(shard)
        };
        let Plan { claim, give, is_short } =
            share::plan(node, &table, &held, leasing.give_shards_max, is_idle);
        self.give(core, &give).await?;
        let claimed = match claim {
            0 => Vec::new(),
            claim => self.within(core, self.leases.claim(node, &held, claim, leasing.lasts())).await?,
        };
        let taken = core.shards.take(&claimed);
        if !claimed.is_empty() || !give.is_empty() {
            // What was taken is to be recovered, whether or not this can be read.
            table = self.within(core, self.leases.table()).await.unwrap_or(table);
        }
        let next = next_round(&table, node, core, is_short);
        self.table.send_replace(table);
        Ok(Round { taken, next })
    }

    /// Renews all leases in one statement, and lets go of those that are another's by now.
    async fn renew(&self, core: &Arc<Core>) -> Result<(), LeaseError> {
        let leasing = core.options.leasing;
        let (asked, held) = (Instant::now(), core.shards.epochs());
        let kept = self.within(core, self.leases.renew(&core.options.node, &held, leasing.lasts())).await?;
        core.shards.extend(asked + leasing.lasts() - Duration::from_millis(leasing.stop_before_ms));
        let kept: HashSet<Epoch> = kept.into_iter().collect();
        let lost: Vec<Epoch> = held.into_iter().filter(|held| !kept.contains(held)).collect();
        let lost = core.shards.lose(&lost);
        if !lost.is_empty() {
            tracing::warn!(
                shards = lost.len(),
                "other nodes have taken shards of this one; their work is let go"
            );
            takeover::let_go(core, &lost);
        }
        Ok(())
    }

    /// Gives shards back in which nothing runs.
    async fn give(&self, core: &Arc<Core>, give: &[Epoch]) -> Result<(), LeaseError> {
        if give.is_empty() {
            return Ok(());
        }
        // First nothing is done in them any more here, then they are free.
        takeover::let_go(core, &core.shards.lose(give));
        tracing::info!(shards = give.len(), "idle shards are given to nodes with fewer");
        self.within(core, self.leases.release(&core.options.node, give)).await
    }

    /// Ends this node's part. Its sandboxes are let go if others take its work over, and left to be adopted by its next
    /// start if it is alone.
    pub(crate) async fn leave(&self, core: &Arc<Core>) {
        let node = &core.options.node;
        let others = self.look(core, Duration::ZERO).await.borrow().live().any(|other| *other.id != **node);
        let lost = core.shards.lose(&core.shards.epochs());
        if others {
            takeover::put_away(core, &lost).await;
        }
        if let Err(error) = self.leases.leave(node).await {
            tracing::warn!(%error, "leases are not given back; others have to wait for their end");
        }
    }
}

/// In time to renew; sooner where a lease of another runs out before, or a share is not complete.
fn next_round(table: &Table, node: &str, core: &Core, is_short: bool) -> Instant {
    let leasing = core.options.leasing;
    let others = table.leases.iter().filter(|lease| lease.holder.as_deref().is_some_and(|it| it != node));
    let over = others.map(|lease| lease.lasts).min().unwrap_or(Duration::MAX);
    let retry = Duration::from_millis(leasing.retry_ms);
    let short = if is_short { retry } else { Duration::MAX };
    let wait = Duration::from_millis(leasing.renew_every_ms).min(short).min(over.max(retry / 10));
    Instant::now() + wait
}

/// How this node keeps its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leasing {
    /// The lease time: the shards of a node that dies are another's within so long of its death.
    pub ttl_ms: u64,
    /// What of that is left to whoever takes over: a lease that is not renewed ends so long before.
    pub takeover_ms: u64,
    /// How often leases are renewed.
    pub renew_every_ms: u64,
    /// So long before its leases may be over, a node that could not renew them takes no commands and writes nothing.
    pub stop_before_ms: u64,
    /// How long an answer about leases is waited for.
    pub answer_ms: u64,
    /// How soon leases that could not be kept, or a share that is not complete, are looked at again.
    pub retry_ms: u64,
    /// Most shards that are handed over at a time.
    pub give_shards_max: usize,
}

impl Default for Leasing {
    fn default() -> Self {
        Self {
            ttl_ms: 10_000,
            takeover_ms: 2_000,
            renew_every_ms: 2_000,
            stop_before_ms: 1_000,
            answer_ms: 2_000,
            retry_ms: 500,
            give_shards_max: SHARDS / 8,
        }
    }
}

impl Leasing {
    /// For a log that no other process can open: its leases never run out.
    pub fn alone() -> Self {
        const CENTURY_MS: u64 = 100 * 365 * 24 * 60 * 60 * 1_000;
        Self { ttl_ms: CENTURY_MS, renew_every_ms: CENTURY_MS / 100, ..Self::default() }
    }

    /// How long a lease lasts that is not renewed.
    fn lasts(&self) -> Duration {
        Duration::from_millis(self.ttl_ms.saturating_sub(self.takeover_ms))
    }
}
