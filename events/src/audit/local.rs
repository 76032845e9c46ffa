//! A log and its ledger as evidence, read where they lie.

use std::sync::Arc;

use async_trait::async_trait;

use super::checkpoint::{Checkpoint, Note};
use super::key::PublicKey;
use super::ledger::{Ledger, LedgerError};
use super::proof::Proof;
use super::tile::{Tile, Tiles};
use super::verify::{Evidence, Kept, Next, Trust};
use crate::api::{Problem, ProblemKind};
use crate::id::{Digest, Position};
use crate::store::{EventStore, Head, ReadError};

/// Events that are read at once.
const READ_EVENTS: usize = 1_000;
/// Checkpoints that are read at once.
const READ_CHECKPOINTS: usize = 1_000;

/// A store and its ledger. Without a ledger only the chain can be verified.
#[derive(Clone)]
pub struct Local {
    store: Arc<dyn EventStore>,
    ledger: Option<Ledger>,
    cursor: Position,
    head: Head,
    /// Whether something stands before the first event, which was named.
    is_begun: bool,
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        Self::new(ProblemKind::Unavailable, error.to_string())
    }
}

impl Local {
    /// The evidence of `store` and `ledger`, and what it is to be held to: where the log ends now, and every checkpoint
    /// that was cut until now.
    pub async fn new(store: Arc<dyn EventStore>, ledger: Option<Ledger>) -> Result<(Self, Trust), Problem> {
        let mut trust = Trust::default();
        if let Some(ledger) = &ledger {
            // Before the checkpoints: what was given away by now is in the ledger.
            let given = ledger.sinks().await?;
            trust.keys = ledger.keys().await?.iter().filter_map(|key| PublicKey::parse(key).ok()).collect();
            loop {
                let above = trust.checkpoints.last().map_or(0, |kept: &Kept| kept.size);
                let entries = ledger.checkpoints(above, READ_CHECKPOINTS).await?;
                let kept = entries.iter().map(|entry| Kept {
                    place: "in the ledger".to_owned(),
                    size: entry.size,
                    note: Note::parse(&entry.note),
                });
                trust.checkpoints.extend(kept);
                if entries.len() < READ_CHECKPOINTS {
                    break;
                }
            }
            trust.tiles = trust.checkpoints.last().map_or(0, |kept| kept.size);
            for (sink, size) in given.iter().filter(|(_, size)| **size > 0) {
                trust.expect(&[*size], &format!("with the sink `{sink}`"));
            }
        }
        let head = store.head().await?;
        trust.head = Some(head);
        Ok((Self { store, ledger, cursor: Position(0), head, is_begun: false }, trust))
    }

    /// The evidence of the events after `after`, as far as there are any now.
    pub async fn after(
        store: Arc<dyn EventStore>,
        ledger: Option<Ledger>,
        after: Position,
    ) -> Result<Self, Problem> {
        let head = store.head().await?;
        Ok(Self { store, ledger, cursor: after, head, is_begun: false })
    }

    async fn read(&mut self, limit: u64) -> Result<Next, Problem> {
        let wanted = self.head.position.0.saturating_sub(self.cursor.0).min(limit);
        if wanted == 0 {
            return self.beyond().await;
        }
        let limit = usize::try_from(wanted).unwrap_or(READ_EVENTS);
        let read = match self.is_begun {
            false => self.store.read(self.cursor, limit).await,
            true => self.store.read_counted(self.cursor, limit).await,
        };
        match read {
            Ok(events) if events.is_empty() => Ok(Next::End),
            Ok(events) => Ok(Next::Events(events)),
            Err(ReadError::Damaged { position, reason }) => {
                self.is_begun |= position == Position(0);
                Ok(Next::Damaged { position, reason: reason.as_ref().to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What stands behind the log's end: nothing, unless the end has moved meanwhile or somebody put it there.
    async fn beyond(&self) -> Result<Next, Problem> {
        let events = self.store.read(self.cursor, 1).await.unwrap_or_default();
        let is_still = self.store.head().await? == self.head;
        Ok(if is_still && !events.is_empty() { Next::Events(events) } else { Next::End })
    }

    /// The proof of the event at `position` under the checkpoint `note`.
    ///
    /// # Errors
    /// `not_found` if the log or the checkpoint does not have the event, `unavailable` if tiles are missing, `failed` if the
    /// event or the tree is not what was signed.
    pub async fn prove(
        store: &dyn EventStore,
        ledger: &Ledger,
        position: Position,
        note: Note,
    ) -> Result<Proof, Problem> {
        let size = note.checkpoint().size;
        let nothing = || {
            let detail = format!("the newest checkpoint has {size} events, none at position {position}");
            Problem::new(ProblemKind::NotFound, detail)
        };
        let index = position.0.checked_sub(1).filter(|index| *index < size).ok_or_else(nothing)?;
        let events = store.read(Position(index.saturating_sub(1)), 2).await?;
        let event = events.iter().find(|event| event.position == position).cloned().ok_or_else(nothing)?;
        let before = events.iter().find(|event| event.position.next() == position);
        let previous = before.map_or(Digest::ZERO, |event| event.hash);
        let tiles = tiles(ledger, size, index).await?;
        let hashes = tiles.inclusion(size, index).ok_or_else(|| incomplete(size))?;
        let proof = Proof { event, previous, hashes, note };
        let refused =
            |error| Problem::new(ProblemKind::Failed, format!("{error}; run `hypercode audit verify`"));
        proof.check_content().map_err(refused)?;
        Ok(proof)
    }
}

/// The proof that the tree of `new` begins with its first `old` leaves.
///
/// # Errors
/// When the ledger cannot be read, or tiles are missing in it.
pub async fn consistency(ledger: &Ledger, new: &Checkpoint, old: u64) -> Result<Vec<Digest>, Problem> {
    if old == 0 || old == new.size {
        return Ok(Vec::new());
    }
    let tiles = tiles(ledger, new.size, old - 1).await?;
    tiles.consistency(new.size, old).ok_or_else(|| incomplete(new.size))
}

/// The tiles of the ledger that prove what the tree of `size` leaves has at `index`.
pub(super) async fn tiles(ledger: &Ledger, size: u64, index: u64) -> Result<Tiles, Problem> {
    let mut tiles = Tiles::default();
    for (level, number) in Tile::above(size, index) {
        if let Some(hashes) = ledger.tile(level, number).await? {
            tiles.insert(Tile { level, number, hashes });
        }
    }
    Ok(tiles)
}

fn incomplete(size: u64) -> Problem {
    let detail = format!("the ledger does not have the tree of {size} events; run `hypercode audit verify`");
    Problem::new(ProblemKind::Unavailable, detail)
}

#[async_trait]
impl Evidence for Local {
    async fn next(&mut self) -> Result<Next, Problem> {
        let mut next = self.read(READ_EVENTS as u64).await?;
        if let Next::Damaged { position, .. } = &next
            && position.0 > self.cursor.0 + 1
        {
            // What stands before it is to be verified first.
            next = self.read(position.0 - self.cursor.0 - 1).await?;
        }
        if let Next::Events(events) = &next {
            self.cursor = events.last().map_or(self.cursor, |last| last.position);
        }
        Ok(next)
    }

    async fn tile(&mut self, level: u8, number: u64) -> Result<Option<Vec<u8>>, Problem> {
        match &self.ledger {
            Some(ledger) => Ok(ledger.tile(level, number).await?),
            None => Ok(None),
        }
    }

    async fn signed(&mut self) -> Result<u64, Problem> {
        match &self.ledger {
            Some(ledger) => Ok(ledger.newest().await?.map_or(0, |newest| newest.size)),
            None => Ok(0),
        }
    }

    async fn surplus(&mut self) -> Result<Option<(i64, i64)>, Problem> {
        match &self.ledger {
            Some(ledger) => Ok(ledger.surplus().await?),
            None => Ok(None),
        }
    }
}
