//! Tiles: 256 neighbouring hashes of the tree, kept and served as one (C2SP `tlog-tiles`).

use std::collections::{BTreeSet, HashMap};

use tlog_tiles::{HASH_SIZE, Hash, HashReader, prove_record, prove_tree, sub_tree_index};

use super::tree::Range;
use crate::id::Digest;

/// Hashes in a complete tile.
pub const TILE_HASHES: usize = 256;
/// Bytes of a complete tile.
pub const TILE_BYTES: usize = TILE_HASHES * HASH_SIZE;

/// The binary logarithm of [`TILE_HASHES`].
const HEIGHT: u8 = 8;

/// A tile: at level 0 its hashes are leaves, above that each is the root of a complete tile below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Its level: 0, 1, 2 …
    pub level: u8,
    /// Its number on that level: 0, 1, 2 …
    pub number: u64,
    /// Its hashes, 32 bytes each; fewer than 256 at the tree's right edge.
    pub hashes: Vec<u8>,
}

impl Tile {
    /// The root of the subtree over its hashes.
    pub(super) fn root(&self) -> Digest {
        Digest(tlog_tiles::Tile::subtree_hash(&self.hashes).0)
    }

    /// The positions of the events under its hash at `index`: the first and the last.
    pub fn positions(&self, index: usize) -> (u64, u64) {
        let leaves = 1_u64 << (HEIGHT * self.level);
        let first = (self.number * TILE_HASHES as u64 + index as u64) * leaves;
        (first + 1, first + leaves)
    }

    /// How many hashes a tree with `size` leaves has in this tile.
    pub(super) fn width(&self, size: u64) -> usize {
        let hashes = size.checked_shr(u32::from(HEIGHT) * u32::from(self.level)).unwrap_or(0);
        let here = hashes.saturating_sub(self.number.saturating_mul(TILE_HASHES as u64));
        usize::try_from(here).unwrap_or(TILE_HASHES).min(TILE_HASHES)
    }

    /// The incomplete tile of every level of a tree with `size` leaves, filled with zeros; empty where the level ends
    /// with a complete tile.
    pub(super) fn edge(size: u64) -> impl Iterator<Item = Self> {
        let levels =
            (0..u64::BITS.div_ceil(HEIGHT.into()) as u8).take_while(move |l| size >> (HEIGHT * l) > 0);
        levels.map(move |level| {
            let hashes = size >> (HEIGHT * level);
            let width = usize::try_from(hashes % TILE_HASHES as u64).expect("a tile is small");
            Self { level, number: hashes >> HEIGHT, hashes: vec![0; width * HASH_SIZE] }
        })
    }

    /// The tiles, by level and number, from which can be proven what a tree of `size` leaves has at leaf `index`: on
    /// every level the one above the leaf and the last.
    pub fn above(size: u64, index: u64) -> BTreeSet<(u8, u64)> {
        let levels = (0..8).take_while(|level| size >> (HEIGHT * level) > 0);
        let on_level = |level: u8| {
            let last = (size >> (HEIGHT * level)) - 1;
            let above = (index >> (HEIGHT * level)).min(last);
            [(level, above >> HEIGHT), (level, last >> HEIGHT)]
        };
        levels.flat_map(on_level).collect()
    }
}

/// Tiles at hand.
#[derive(Clone, Debug, Default)]
pub struct Tiles(HashMap<(u8, u64), Vec<u8>>);

impl Tiles {
    /// Adds a tile, or replaces a shorter one.
    pub fn insert(&mut self, tile: Tile) {
        self.0.insert((tile.level, tile.number), tile.hashes);
    }

    /// The hashes of a tile.
    pub fn get(&self, level: u8, number: u64) -> Option<&[u8]> {
        self.0.get(&(level, number)).map(Vec::as_slice)
    }

    /// The leaf at `index`.
    pub fn leaf(&self, index: u64) -> Option<Digest> {
        let at = usize::try_from(index % TILE_HASHES as u64).expect("a tile is small") * HASH_SIZE;
        let hash = self.get(0, index >> HEIGHT)?.get(at..at + HASH_SIZE)?;
        hash.try_into().map(Digest).ok()
    }

    /// The complete subtrees of the tree with `size` leaves; `None` if a tile is missing.
    pub fn range(&self, size: u64) -> Option<Range> {
        let subtrees = self.read_hashes(&sub_tree_index(0, size, Vec::new())).ok()?;
        Range::of(size, subtrees.into_iter().map(|hash| Digest(hash.0)).collect())
    }

    /// The way from leaf `index` to the root of the tree with `size` leaves (RFC 6962 §2.1.1).
    pub(super) fn inclusion(&self, size: u64, index: u64) -> Option<Vec<Digest>> {
        let proof = prove_record(size, index, self).ok()?;
        Some(proof.into_iter().map(|hash| Digest(hash.0)).collect())
    }

    /// The proof that the tree of `new` leaves begins with that of `old`, from 1 to `new` (RFC 6962 §2.1.2).
    pub fn consistency(&self, new: u64, old: u64) -> Option<Vec<Digest>> {
        let proof = prove_tree(new, old, self).ok()?;
        Some(proof.into_iter().map(|hash| Digest(hash.0)).collect())
    }
}

impl HashReader for Tiles {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let read = |index: &u64| {
            let tile = tlog_tiles::Tile::from_index(HEIGHT, *index);
            let hashes = self.get(tile.level(), tile.level_index());
            tile.hash_at_index(hashes.ok_or(tlog_tiles::Error::IndexesNotInTree)?, *index)
        };
        indexes.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use tlog_tiles::{check_record, check_tree};

    use super::*;
    use crate::audit::tree::Edge;

    fn leaf(n: u64) -> Digest {
        Digest::of(&n.to_be_bytes())
    }

    /// Only the tiles that [`Tile::above`] names are needed for a proof, and the reference accepts it.
    #[test]
    fn few_tiles_prove_any_leaf_and_any_growth() {
        let sizes = [1, 2, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, 65_800, 66_000];
        let (mut edge, mut tiles, mut roots) = (Edge::default(), Tiles::default(), vec![Range::default()]);
        for n in 0..66_000 {
            let mut complete = Vec::new();
            edge.push(leaf(n), &mut complete);
            complete.into_iter().for_each(|tile| tiles.insert(tile));
            let mut range = roots.last().expect("a range").clone();
            range.push(leaf(n));
            roots.push(range);
            let size = n + 1;
            if !sizes.contains(&size) {
                continue;
            }
            edge.partial().for_each(|tile| tiles.insert(tile));
            let root = |size: u64| Hash(roots[usize::try_from(size).expect("small")].root().0);
            for index in [0, 1, 254, 255, 256, 300, 511, 512, 65_535, 65_536, size - 1] {
                if index >= size {
                    continue;
                }
                let mut few = Tiles::default();
                for (level, number) in Tile::above(size, index) {
                    let hashes = tiles.get(level, number).expect("a tile").to_vec();
                    few.insert(Tile { level, number, hashes });
                }
                let proof = few.inclusion(size, index).expect("enough tiles");
                let proof = proof.into_iter().map(|hash| Hash(hash.0)).collect();
                check_record(&proof, size, root(size), index, Hash(leaf(index).0)).expect("included");
                let old = index + 1;
                let proof = few.consistency(size, old).expect("enough tiles");
                let proof = proof.into_iter().map(|hash| Hash(hash.0)).collect();
                check_tree(&proof, size, root(size), old, root(old)).expect("consistent");
            }
        }
    }

    #[test]
    fn a_hash_of_a_tile_stands_for_positions() {
        let tile = Tile { level: 1, number: 0, hashes: Vec::new() };
        assert_eq!(tile.positions(0), (1, 256));
        assert_eq!(Tile { level: 0, number: 2, ..tile }.positions(3), (516, 516));
    }
}
