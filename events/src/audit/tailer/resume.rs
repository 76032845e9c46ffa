//! Going on from what the ledger has: only if the log still has what was signed.

use super::{CutError, Fork, Grown, Work};
use crate::audit::checkpoint::Note;
use crate::audit::key::PublicKey;
use crate::audit::ledger::Entry;
use crate::audit::tile::{Tile, Tiles};
use crate::audit::tree::Edge;
use crate::id::{Digest, Position};
use crate::store::Head;

impl Work {
    /// Takes up the newest checkpoint of the ledger.
    pub(super) async fn resume(&mut self) -> Result<(), CutError> {
        self.due = None;
        self.grown = match self.ledger.newest().await? {
            Some(entry) => self.grown_until(&entry).await?,
            None => Grown::default(),
        };
        let size = self.grown.range.size();
        self.subscription.seek(Position(size));
        self.signed.send_modify(|signed| signed.size = size);
        Ok(())
    }

    async fn grown_until(&self, entry: &Entry) -> Result<Grown, CutError> {
        let size = entry.size;
        let note = Note::parse(&entry.note).map_err(|_| Fork::Signature { size })?;
        self.check_signature(&note).await?;
        let checkpoint = note.checkpoint().clone();
        let tree = Fork::Tree { signed: size };
        let mut tiles = Tiles::default();
        for (level, number) in Tile::above(size, size.saturating_sub(1)) {
            let hashes = self.ledger.tile(level, number).await?.ok_or_else(|| tree.clone())?;
            tiles.insert(Tile { level, number, hashes });
        }
        let edge = Edge::of(size, |tile| tiles.get(tile.level, tile.number).map(<[u8]>::to_vec));
        let (Some(range), Some(edge)) = (tiles.range(size), edge) else { return Err(tree.into()) };
        if (checkpoint.size, checkpoint.root) != (size, range.root()) {
            return Err(tree.into());
        }
        let head = Some(self.signed_head(size, &tiles).await?);
        Ok(Grown { head, range, edge, complete: Vec::new(), newest: Some(checkpoint) })
    }

    async fn check_signature(&self, note: &Note) -> Result<(), CutError> {
        let known = self.ledger.keys().await?;
        let known = known.iter().filter_map(|key| PublicKey::parse(key).ok());
        match known.chain([self.signer.public().clone()]).any(|key| key.check(note)) {
            true => Ok(()),
            false => Err(Fork::Signature { size: note.checkpoint().size }.into()),
        }
    }

    /// The log's event at `size`, if it is the tree's last leaf.
    async fn signed_head(&self, size: u64, tiles: &Tiles) -> Result<Head, CutError> {
        let found = self.store.head().await?.position.0;
        if found < size {
            return Err(Fork::Shorter { signed: size, found }.into());
        }
        let events = self.store.read(Position(size - 1), 1).await?;
        let event = events.first().filter(|event| event.position == Position(size));
        let last = tiles.leaf(size - 1);
        match (event, last) {
            (Some(event), Some(leaf)) if event.hash == leaf => {
                Ok(Head { position: event.position, hash: Digest(leaf.0) })
            }
            _ => Err(Fork::Other { position: Position(size) }.into()),
        }
    }
}
