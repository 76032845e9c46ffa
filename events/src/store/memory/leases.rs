//! Leases in memory, by tokio's clock, which a test may pause and advance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Memory;
use crate::id::{Digest, Timestamp};
use crate::lease::{Lease, LeaseError, Leases, Node, NodeState, SHARDS, Secret, Table};
use crate::store::Epoch;

#[derive(Clone, Debug)]
struct Holding {
    holder: Arc<str>,
    until: Instant,
}

#[derive(Debug)]
struct Known {
    joined: Instant,
    seen: Instant,
    /// `None` once it has left.
    until: Option<Instant>,
}

/// What is written down of leases and nodes; the epochs are with the log.
#[derive(Debug)]
pub(super) struct Book {
    opened: Instant,
    holdings: Vec<Option<Holding>>,
    nodes: BTreeMap<Arc<str>, Known>,
}

impl Book {
    pub(super) fn new() -> Self {
        Self { opened: Instant::now(), holdings: vec![None; SHARDS], nodes: BTreeMap::new() }
    }

    fn greet(&mut self, node: &str, now: Instant, ttl: Duration) {
        let known = self.nodes.entry(node.into()).or_insert(Known { joined: now, seen: now, until: None });
        if known.until.is_none_or(|until| until <= now) {
            known.joined = now;
        }
        (known.seen, known.until) = (now, Some(now + ttl));
    }

    fn is_held(&self, shard: usize, node: &str) -> bool {
        self.holdings[shard].as_ref().is_some_and(|holding| *holding.holder == *node)
    }

    /// When, since the store was made: what counts as its wall clock.
    fn timestamp(&self, at: Instant) -> Timestamp {
        let micros = at.saturating_duration_since(self.opened).as_micros();
        Timestamp(i64::try_from(micros).unwrap_or(i64::MAX).saturating_add(1))
    }

    fn node(&self, id: &Arc<str>, known: &Known, now: Instant) -> Node {
        let state = match known.until {
            None => NodeState::Left,
            Some(until) if until > now => NodeState::Live,
            Some(_) => NodeState::Silent,
        };
        let (joined_at, seen_at) = (self.timestamp(known.joined), self.timestamp(known.seen));
        Node { id: Arc::clone(id), state, joined_at, seen_at }
    }
}

impl Memory {
    fn usable(&self) -> Result<(), LeaseError> {
        match self.faults.plan().down {
            true => Err(LeaseError::Unavailable { reason: "a fault was asked for".into() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Leases for Memory {
    async fn renew(&self, node: &str, held: &[Epoch], ttl: Duration) -> Result<Vec<Epoch>, LeaseError> {
        self.usable()?;
        let (mut log, now) = (self.log(), Instant::now());
        let epochs = log.known.epochs;
        let book = &mut log.leases;
        book.greet(node, now, ttl);
        let mut kept = held.to_vec();
        kept.sort_by_key(|held| held.shard);
        kept.retain(|held| {
            let shard = usize::from(held.shard);
            let own = book.is_held(shard, node) && epochs[shard] == held.epoch;
            if let Some(holding) = book.holdings[shard].as_mut().filter(|_| own) {
                holding.until = now + ttl;
            }
            own
        });
        Ok(kept)
    }

    async fn claim(
        &self,
        node: &str,
        held: &[Epoch],
        most: usize,
        ttl: Duration,
    ) -> Result<Vec<Epoch>, LeaseError> {
        self.usable()?;
        let (mut log, now) = (self.log(), Instant::now());
        let book = &log.leases;
        let is_free = |shard: &usize| {
            let known = held.iter().any(|held| usize::from(held.shard) == *shard);
            let over = book.holdings[*shard].as_ref().is_none_or(|holding| holding.until <= now);
            !known && (over || book.is_held(*shard, node))
        };
        let mut free: Vec<usize> = (0..SHARDS).filter(is_free).collect();
        free.sort_by_key(|&shard| (!book.is_held(shard, node), shard));
        free.truncate(most);
        free.sort_unstable();
        let mut taken = Vec::with_capacity(free.len());
        for shard in free {
            log.leases.holdings[shard] = Some(Holding { holder: node.into(), until: now + ttl });
            log.known.epochs[shard] += 1;
            let epoch = log.known.epochs[shard];
            taken.push(Epoch { shard: u8::try_from(shard).expect("there are 256 shards"), epoch });
        }
        Ok(taken)
    }

    async fn release(&self, node: &str, leases: &[Epoch]) -> Result<(), LeaseError> {
        self.usable()?;
        let (mut log, now) = (self.log(), Instant::now());
        let epochs = log.known.epochs;
        for Epoch { shard, epoch } in leases {
            let shard = usize::from(*shard);
            let own = log.leases.is_held(shard, node) && epochs[shard] == *epoch;
            if let Some(holding) = log.leases.holdings[shard].as_mut().filter(|_| own) {
                holding.until = now;
            }
        }
        Ok(())
    }

    async fn leave(&self, node: &str) -> Result<(), LeaseError> {
        self.usable()?;
        let (mut log, now) = (self.log(), Instant::now());
        let book = &mut log.leases;
        for holding in book.holdings.iter_mut().flatten().filter(|holding| *holding.holder == *node) {
            holding.until = now;
        }
        if let Some(known) = book.nodes.get_mut(node) {
            known.until = None;
        }
        Ok(())
    }

    /// No other process can hear what is sent within this one.
    async fn secret(&self) -> Result<Secret, LeaseError> {
        self.usable()?;
        Ok(Secret(Digest::of(b"memory").0))
    }

    async fn table(&self) -> Result<Table, LeaseError> {
        self.usable()?;
        let (log, now) = (self.log(), Instant::now());
        let book = &log.leases;
        let lease = |shard: usize| {
            let holding = book.holdings[shard].as_ref().filter(|holding| holding.until > now);
            Lease {
                shard: u8::try_from(shard).expect("there are 256 shards"),
                epoch: log.known.epochs[shard],
                holder: holding.map(|holding| Arc::clone(&holding.holder)),
                lasts: holding.map(|holding| holding.until - now).unwrap_or_default(),
            }
        };
        let nodes = book.nodes.iter().map(|(id, known)| book.node(id, known, now)).collect();
        Ok(Table { nodes, leases: (0..SHARDS).map(lease).collect() })
    }
}
