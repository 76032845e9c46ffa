//! The one task that follows the log, grows the tree and signs checkpoints.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::checkpoint::{Checkpoint, Note};
use super::key::{PublicKey, Signer};
use super::ledger::{Entry, Ledger, LedgerError};
use super::sink::Sink;
use super::tile::{Tile, Tiles};
use super::tree::{Edge, Range};
use crate::chain;
use crate::event::Recorded;
use crate::id::{Position, Timestamp};
use crate::store::{EventStore, Head, ReadError};
use crate::subscription::{self, Subscription};

mod deliver;
mod resume;

/// The tailer's limits.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events that no checkpoint covers yet before one is cut.
    pub checkpoint_events: u64,
    /// How long an event waits for its checkpoint at most, in milliseconds.
    pub checkpoint_ms: u64,
    /// How long the tailer or a sink waits after an error before it tries again, in milliseconds.
    pub retry_ms: u64,
    /// How long the sinks may take with what waits when the tailer is closed, in milliseconds.
    pub close_ms: u64,
    /// How the log is followed.
    pub subscription: subscription::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            checkpoint_events: 1_000,
            checkpoint_ms: 1_000,
            retry_ms: 1_000,
            close_ms: 5_000,
            subscription: subscription::Options::default(),
        }
    }
}

/// Why nothing is signed (any more): what would be signed contradicts what was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fork {
    /// The log has fewer events than were signed.
    #[error("sign a checkpoint: {signed} events were signed, the log has {found}")]
    Shorter {
        /// The size of the newest checkpoint.
        signed: u64,
        /// The log's events.
        found: u64,
    },
    /// The log has another event where one was signed, or a broken chain.
    #[error("sign a checkpoint: the event at position {position} is not the one that was recorded")]
    Other {
        /// Where.
        position: Position,
    },
    /// The ledger's tree is not the one that was signed.
    #[error("sign a checkpoint: the tree of the ledger is not the one that was signed with {signed} events")]
    Tree {
        /// The size of the newest checkpoint.
        signed: u64,
    },
    /// The ledger's newest checkpoint is not signed by a key of the ledger.
    #[error("sign a checkpoint: the newest one in the ledger, of {size} events, has no good signature")]
    Signature {
        /// Its size.
        size: u64,
    },
}

/// Why no checkpoint was cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// It would contradict what was signed.
    #[error(transparent)]
    Fork(#[from] Fork),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The log has no events.
    #[error("cut a checkpoint: the log has no events")]
    Empty,
    /// The tailer was closed.
    #[error("cut a checkpoint: the audit was closed")]
    Closed,
}

/// Where the audit stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The size of the newest checkpoint.
    pub size: u64,
    /// Why nothing is signed any more.
    pub refused: Option<String>,
    /// Why nothing is signed at the moment; it is tried again and again.
    pub delayed: Option<String>,
    /// Each sink's name, and what went wrong with it last.
    pub sinks: BTreeMap<String, Option<String>>,
}

/// What the sinks' tasks follow.
#[derive(Clone, Debug, Default)]
struct Signed {
    size: u64,
    refused: Option<String>,
    delayed: Option<String>,
}

/// What went wrong last with each sink.
type Complaints = Mutex<BTreeMap<String, Option<String>>>;

type Cut = Result<Note, CutError>;

enum Order {
    Cut(oneshot::Sender<Cut>),
    Close,
}

/// A running tailer. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Tailer {
    shared: Arc<Shared>,
}

struct Shared {
    orders: mpsc::Sender<Order>,
    signed: watch::Receiver<Signed>,
    complaints: Arc<Complaints>,
    ledger: Ledger,
    key: PublicKey,
    origin: String,
    sinks: Vec<Arc<dyn Sink>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Tailer {
    /// Goes on after the newest checkpoint of `ledger`. What contradicts it is refused, not signed: [`Standing`] says so.
    ///
    /// # Errors
    /// When log or ledger cannot be read.
    pub async fn start(
        store: Arc<dyn EventStore>,
        ledger: Ledger,
        signer: Signer,
        sinks: Vec<Arc<dyn Sink>>,
        options: Options,
    ) -> Result<Self, CutError> {
        let (orders, ordered) = mpsc::channel(16);
        let (sender, signed) = watch::channel(Signed::default());
        let complaints = Arc::new(Complaints::default());
        let (key, origin) = (signer.public().clone(), signer.origin().to_owned());
        let mut work = Work {
            subscription: Subscription::after(Arc::clone(&store), Position(0), options.subscription),
            store,
            ledger: ledger.clone(),
            signer,
            options,
            orders: ordered,
            signed: sender,
            complaints: Arc::clone(&complaints),
            sinks: sinks.clone(),
            grown: Grown::default(),
            is_stale: false,
            due: None,
        };
        match work.resume().await {
            Ok(()) => {}
            Err(CutError::Fork(fork)) => work.refuse(&fork),
            Err(error) => return Err(error),
        }
        let task = Mutex::new(Some(tokio::spawn(work.run())));
        Ok(Self { shared: Arc::new(Shared { orders, signed, complaints, ledger, key, origin, sinks, task }) })
    }

    /// Cuts a checkpoint now, over everything that the log had when this was called; the newest one if it has it all.
    pub async fn cut(&self) -> Cut {
        let (reply, answer) = oneshot::channel();
        self.shared.orders.send(Order::Cut(reply)).await.map_err(|_| CutError::Closed)?;
        answer.await.unwrap_or(Err(CutError::Closed))
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        let Signed { size, refused, delayed } = self.shared.signed.borrow().clone();
        let sinks = self.shared.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Standing { size, refused, delayed, sinks }
    }

    /// The newest checkpoint of these sizes that each witness has cosigned.
    pub async fn cosigned(&self, sizes: RangeInclusive<u64>) -> Vec<Note> {
        let cosigned = self.shared.sinks.iter().map(|sink| sink.cosigned(&sizes));
        futures_util::future::join_all(cosigned).await.into_iter().flatten().collect()
    }

    /// What it keeps.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// What its signatures are checked with.
    pub fn key(&self) -> &PublicKey {
        &self.shared.key
    }

    /// Which log it signs for.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// Cuts a last checkpoint, gives the sinks what waits, and ends.
    pub async fn close(&self) {
        // One that has ended already takes no orders.
        let _ = self.shared.orders.send(Order::Close).await;
        let task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the audit's tailer ended badly");
        }
        self.shared.ledger.close().await;
    }
}

/// What the tree has become, and what of it the ledger does not have yet.
#[derive(Default)]
struct Grown {
    head: Option<Head>,
    range: Range,
    edge: Edge,
    complete: Vec<Tile>,
    newest: Option<Checkpoint>,
}

impl Grown {
    fn head(&self) -> Head {
        self.head.unwrap_or(Head::EMPTY)
    }

    fn uncovered(&self) -> u64 {
        self.range.size() - self.newest.as_ref().map_or(0, |newest| newest.size)
    }

    /// Adds an event, whose place in the chain is checked again: nothing is signed that was only believed.
    fn push(&mut self, event: &Recorded) -> Result<(), Fork> {
        let mut chain = chain::Verifier::after(self.head());
        chain.check(event).map_err(|_| Fork::Other { position: chain.head().position.next() })?;
        self.head = Some(chain.head());
        self.range.push(event.hash);
        self.edge.push(event.hash, &mut self.complete);
        Ok(())
    }

    fn fresh(&self) -> Vec<Tile> {
        self.complete.iter().cloned().chain(self.edge.partial()).collect()
    }
}

struct Work {
    store: Arc<dyn EventStore>,
    subscription: Subscription,
    ledger: Ledger,
    signer: Signer,
    options: Options,
    orders: mpsc::Receiver<Order>,
    signed: watch::Sender<Signed>,
    complaints: Arc<Complaints>,
    sinks: Vec<Arc<dyn Sink>>,
    grown: Grown,
    /// Whether what is in memory may be something else than what the ledger has.
    is_stale: bool,
    /// When the oldest event that no checkpoint covers is to be covered.
    due: Option<Instant>,
}

impl Work {
    async fn run(mut self) {
        let deliveries = self.start_deliveries();
        loop {
            let is_refused = self.signed.borrow().refused.is_some();
            let due = self.due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            let step = tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None | Some(Order::Close) => break,
                    Some(Order::Cut(reply)) => {
                        let cut = self.cut_all().await;
                        let failed = cut.as_ref().err().cloned();
                        // A caller that went away wants no answer.
                        let _ = reply.send(cut);
                        failed.filter(|error| !matches!(error, CutError::Empty)).map_or(Ok(()), Err)
                    }
                },
                () = tokio::time::sleep_until(due), if self.due.is_some() && !is_refused => self.cut_due().await,
                events = self.subscription.next(), if !is_refused => self.take(events).await,
            };
            self.settle(step).await;
        }
        match self.cut_all().await {
            Ok(_) | Err(CutError::Empty) => {}
            Err(error) => tracing::warn!(%error, "no last checkpoint was cut"),
        }
        let Self { signed, options, .. } = self;
        drop(signed);
        deliver::finish(deliveries, options.close_ms).await;
    }

    /// After an error everything goes on from what the ledger has.
    async fn settle(&mut self, step: Result<(), CutError>) {
        let delayed = match &step {
            Ok(()) | Err(CutError::Fork(_)) => None,
            Err(error) => Some(error.to_string()),
        };
        self.signed.send_if_modified(|signed| {
            let is_news = signed.delayed != delayed;
            signed.delayed = delayed;
            is_news
        });
        match step {
            Ok(()) => {}
            Err(CutError::Fork(fork)) => self.refuse(&fork),
            Err(error) => {
                tracing::warn!(%error, "the audit stands still for a moment");
                let retry = Duration::from_millis(self.options.retry_ms);
                tokio::time::sleep(retry).await;
                self.is_stale = true;
                match self.refresh().await {
                    Ok(()) => {}
                    Err(CutError::Fork(fork)) => self.refuse(&fork),
                    Err(_) => self.due = Some(Instant::now() + retry),
                }
            }
        }
    }

    /// Begins again with what the ledger has, if what is in memory may be something else.
    async fn refresh(&mut self) -> Result<(), CutError> {
        if self.is_stale {
            self.resume().await?;
            self.is_stale = false;
        }
        Ok(())
    }

    async fn cut_due(&mut self) -> Result<(), CutError> {
        self.refresh().await?;
        self.cut().await
    }

    fn refuse(&mut self, fork: &Fork) {
        tracing::error!(%fork, "no checkpoint is signed any more");
        self.due = None;
        self.signed.send_modify(|signed| signed.refused = Some(fork.to_string()));
    }

    async fn take(&mut self, events: Result<Vec<Recorded>, ReadError>) -> Result<(), CutError> {
        if self.is_stale {
            // They are read again, from where the ledger ends.
            return self.refresh().await;
        }
        for event in events? {
            self.grown.push(&event)?;
            self.due
                .get_or_insert_with(|| Instant::now() + Duration::from_millis(self.options.checkpoint_ms));
            if self.grown.uncovered() >= self.options.checkpoint_events {
                self.cut().await?;
            }
        }
        Ok(())
    }

    /// Reads on to the log's end, and cuts a checkpoint over all of it.
    async fn cut_all(&mut self) -> Cut {
        if self.signed.borrow().refused.is_some() {
            self.is_stale = true;
            self.refresh().await?;
            self.signed.send_modify(|signed| signed.refused = None);
        }
        self.refresh().await?;
        let head = self.store.head().await?;
        while self.grown.head().position < head.position {
            let next = self.subscription.next().await;
            self.take(next).await?;
        }
        self.cut().await?;
        let entry = self.ledger.newest().await?.ok_or(CutError::Empty)?;
        Note::parse(&entry.note).map_err(|_| Fork::Signature { size: entry.size }.into())
    }

    /// Signs what the tree is now, if that is more than the newest checkpoint has.
    async fn cut(&mut self) -> Result<(), CutError> {
        self.due = None;
        if self.grown.uncovered() == 0 {
            return Ok(());
        }
        self.check_consistency().await?;
        let (origin, root) = (self.signer.origin().to_owned(), self.grown.range.root());
        let checkpoint = Checkpoint { origin, size: self.grown.range.size(), root };
        let note = self.signer.sign(&checkpoint);
        let (size, cut_at) = (checkpoint.size, Timestamp::now());
        let entry = Entry { size, note: note.as_str().to_owned(), cut_at };
        self.ledger.record(&self.grown.fresh(), &entry, self.signer.public()).await?;
        self.grown.complete.clear();
        self.grown.newest = Some(checkpoint);
        self.signed.send_modify(|signed| signed.size = size);
        Ok(())
    }

    /// Proves, from what the ledger has, that the tree begins with the one that was signed last.
    async fn check_consistency(&self) -> Result<(), CutError> {
        let Some(old) = &self.grown.newest else { return Ok(()) };
        let (new, root) = (self.grown.range.size(), self.grown.range.root());
        let mut tiles = Tiles::default();
        for (level, number) in Tile::above(new, old.size - 1) {
            if let Some(hashes) = self.ledger.tile(level, number).await? {
                tiles.insert(Tile { level, number, hashes });
            }
        }
        self.grown.fresh().into_iter().for_each(|tile| tiles.insert(tile));
        let proof = tiles.consistency(new, old.size).unwrap_or_default();
        match super::proof::is_consistent(&proof, (new, root), (old.size, old.root)) {
            true => Ok(()),
            false => Err(Fork::Tree { signed: old.size }.into()),
        }
    }
}
