//! The tree as it grows (RFC 6962 §2.1): what is needed to add leaves, for its root, and for its tiles.

use tlog_tiles::{EMPTY_HASH, Hash, node_hash};

use super::tile::{TILE_BYTES, Tile};
use crate::id::Digest;

/// The hash of an inner node.
pub(super) fn node(left: Digest, right: Digest) -> Digest {
    Digest(node_hash(Hash(left.0), Hash(right.0)).0)
}

/// The fewest hashes from which a tree can grow: those of its complete subtrees, the largest first. There is one
/// for every 1 among the binary digits of the tree's size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    size: u64,
    subtrees: Vec<Digest>,
}

impl Range {
    /// The range of a tree of `size` leaves; `None` if that has another number of complete subtrees.
    pub fn of(size: u64, subtrees: Vec<Digest>) -> Option<Self> {
        (subtrees.len() == size.count_ones() as usize).then_some(Self { size, subtrees })
    }

    /// Its leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its complete subtrees, the largest first.
    pub fn subtrees(&self) -> &[Digest] {
        &self.subtrees
    }

    /// Adds a leaf. As in counting, every trailing 1 of the size carries: two equal subtrees become one.
    pub fn push(&mut self, leaf: Digest) {
        let kept = self.subtrees.len() - self.size.trailing_ones() as usize;
        let hash = self.subtrees.drain(kept..).rev().fold(leaf, |right, left| node(left, right));
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Digest {
        let smallest_first = self.subtrees.iter().rev().copied();
        smallest_first.reduce(|right, left| node(left, right)).unwrap_or(Digest(EMPTY_HASH.0))
    }
}

/// The right edge of a tree in tiles: on every level the tile that is not complete yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<u8>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves; `read` gives the bytes of a tile that is there, or of a longer one.
    /// `None` if a tile is too short.
    pub fn of(size: u64, mut read: impl FnMut(&Tile) -> Option<Vec<u8>>) -> Option<Self> {
        let mut levels = Vec::new();
        for tile in Tile::edge(size) {
            let mut hashes = if tile.hashes.is_empty() { Vec::new() } else { read(&tile)? };
            if hashes.len() < tile.hashes.len() {
                return None;
            }
            hashes.truncate(tile.hashes.len());
            levels.push(hashes);
        }
        Some(Self { size, levels })
    }

    /// Adds a leaf; tiles that it completes are added to `complete`, the lowest first.
    pub fn push(&mut self, leaf: Digest, complete: &mut Vec<Tile>) {
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let hashes = &mut self.levels[level];
            hashes.extend_from_slice(&hash.0);
            if hashes.len() < TILE_BYTES {
                break;
            }
            let tile = Tile {
                level: u8::try_from(level).expect("a tree has at most eight levels of tiles"),
                number: self.size >> (8 * (level + 1)),
                hashes: std::mem::take(hashes),
            };
            hash = tile.root();
            complete.push(tile);
        }
        self.size += 1;
    }

    /// The tiles that are begun and not complete.
    pub fn partial(&self) -> impl Iterator<Item = Tile> {
        let begun = self.levels.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty());
        begun.map(|(level, hashes)| Tile {
            level: u8::try_from(level).expect("a tree has at most eight levels of tiles"),
            number: self.size >> (8 * (level + 1)),
            hashes: hashes.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use tlog_tiles::{HashReader, stored_hashes_for_record_hash, tree_hash};

    use super::*;
    use crate::audit::tile::Tiles;

    struct Stored(Vec<Hash>);

    impl HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
            Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).expect("small")]).collect())
        }
    }

    /// At every size, range and tiles give the root that the reference does; also after a restart from tiles alone.
    #[test]
    fn the_tree_is_that_of_the_reference() {
        let (mut range, mut edge, mut tiles, mut stored) =
            (Range::default(), Edge::default(), Tiles::default(), Stored(Vec::new()));
        assert_eq!(range.root().0, EMPTY_HASH.0);
        for n in 0_u64..70_000 {
            let leaf = Digest::of(&n.to_be_bytes());
            let hashes = stored_hashes_for_record_hash(n, Hash(leaf.0), &stored).expect("hashes");
            stored.0.extend(hashes);
            range.push(leaf);
            let mut complete = Vec::new();
            edge.push(leaf, &mut complete);
            complete.into_iter().for_each(|tile| tiles.insert(tile));
            let size = n + 1;
            if !(size < 600 || size % 9_973 == 0 || [65_535, 65_536, 65_537].contains(&size)) {
                continue;
            }
            edge.partial().for_each(|tile| tiles.insert(tile));
            let expected = tree_hash(size, &stored).expect("root").0;
            assert_eq!(range.root().0, expected, "size {size}");
            assert_eq!(tiles.range(size).expect("range"), range, "size {size}");
            let again = Edge::of(size, |tile| tiles.get(tile.level, tile.number).map(<[u8]>::to_vec));
            assert_eq!(
                again.expect("edge").partial().collect::<Vec<_>>(),
                edge.partial().collect::<Vec<_>>()
            );
        }
    }
}
