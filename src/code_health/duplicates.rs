//! Finds equal blocks of code in different places from the fingerprints of their windows.

use std::collections::{BTreeMap, HashMap};

use super::fingerprint::{NOTHING, WINDOW_LINES};
use super::measure::File;

/// How many other places of a window are compared, and how far; more would take too long on generated tables.
const CANDIDATES_MAX: usize = 200;
const BLOCK_WINDOWS_MAX: usize = 5_000;
/// How many places of other blocks are looked at to tell whether a place has been told of.
const RANGES_LOOKED_AT: usize = 16;

/// Where one copy of a block stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Index of the file.
    pub(crate) file: usize,
    /// Its first and last line.
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// Equal lines that stand in two or more places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// How many lines that count it has.
    pub(crate) lines: usize,
    /// At least two, in order.
    pub(crate) places: Vec<Place>,
}

/// All blocks of a tree.
#[derive(Debug, Default)]
pub(crate) struct Duplicates {
    /// Those with the most lines to save first.
    pub(crate) blocks: Vec<Block>,
    /// Lines that count in all files, and how many of them belong to a block.
    pub(crate) lines: usize,
    pub(crate) duplicated: usize,
}

impl Block {
    /// Lines that would go if only one copy stayed.
    pub(crate) fn saving(&self) -> usize {
        self.lines * (self.places.len() - 1)
    }
}

/// A window: index of the file and of the window in it.
type Position = (usize, usize);

struct Finder {
    lines: Vec<Vec<u32>>,
    hashes: Vec<Vec<u64>>,
    places: HashMap<u64, Vec<Position>>,
    /// Windows that belong to a block.
    covered: Vec<Vec<bool>>,
}

/// Finds the blocks of these files. From each window that belongs to no block yet, the longest run of windows that
/// stands elsewhere too makes a block, with all the places that have the whole of it.
pub(crate) fn find(files: &[File]) -> Duplicates {
    let hashes: Vec<Vec<u64>> = files.iter().map(|file| file.windows.hashes()).collect();
    let mut places: HashMap<u64, Vec<Position>> = HashMap::new();
    for (file, hashes) in hashes.iter().enumerate() {
        for (window, hash) in hashes.iter().enumerate().filter(|(_, hash)| **hash != NOTHING) {
            places.entry(*hash).or_default().push((file, window));
        }
    }
    places.retain(|_, positions| positions.len() > 1);
    let covered = hashes.iter().map(|hashes| vec![false; hashes.len()]).collect();
    let lines = files.iter().map(|file| file.windows.lines()).collect();
    let mut finder = Finder { lines, hashes, places, covered };
    let blocks = finder.blocks();
    finder.summary(blocks)
}

impl Finder {
    fn blocks(&mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        for file in 0..self.hashes.len() {
            let mut window = 0;
            while window < self.hashes[file].len() {
                match self.longest(file, window) {
                    Some((length, positions)) => {
                        blocks.push(self.block(length, &positions));
                        window += length;
                    }
                    None => window += 1,
                }
            }
        }
        blocks
    }

    /// The longest run from this window on that stands elsewhere, and all places of the whole run.
    fn longest(&self, file: usize, window: usize) -> Option<(usize, Vec<Position>)> {
        if self.covered[file][window] {
            return None;
        }
        let here = (file, window);
        let others = self.places.get(&self.hashes[file][window])?.iter().filter(|there| **there != here);
        let runs: Vec<(usize, Position)> =
            others.take(CANDIDATES_MAX).map(|there| (self.run(here, *there), *there)).collect();
        let length = runs.iter().map(|(length, _)| *length).max().filter(|length| *length > 0)?;
        let mut positions = vec![here];
        positions.extend(runs.into_iter().filter(|(run, _)| *run == length).map(|(_, there)| there));
        positions.sort_unstable();
        // Copies in one file must not share lines.
        let mut apart: Vec<Position> = Vec::new();
        for (file, window) in positions {
            let overlaps =
                apart.last().is_some_and(|(f, w)| *f == file && *w + length + WINDOW_LINES > window + 1);
            if !overlaps {
                apart.push((file, window));
            }
        }
        (apart.len() > 1).then_some((length, apart))
    }

    /// How many windows agree from both places on, without overlapping.
    fn run(&self, a: Position, b: Position) -> usize {
        let apart =
            if a.0 == b.0 { (a.1.abs_diff(b.1) + 1).saturating_sub(WINDOW_LINES) } else { BLOCK_WINDOWS_MAX };
        let (a, b) = (&self.hashes[a.0][a.1..], &self.hashes[b.0][b.1..]);
        let pairs = a.iter().zip(b).take(apart.min(BLOCK_WINDOWS_MAX));
        pairs.take_while(|(a, b)| a == b && **a != NOTHING).count()
    }

    fn block(&mut self, length: usize, positions: &[Position]) -> Block {
        let lines = length + WINDOW_LINES - 1;
        let mut places = Vec::with_capacity(positions.len());
        for (file, window) in positions {
            self.covered[*file][*window..*window + length].fill(true);
            let line = |at: usize| self.lines[*file].get(at).copied().unwrap_or_default();
            places.push(Place { file: *file, first: line(*window), last: line(*window + lines - 1) });
        }
        Block { lines, places }
    }

    fn summary(&self, mut blocks: Vec<Block>) -> Duplicates {
        blocks.sort_by(|a, b| b.saving().cmp(&a.saving()).then_with(|| a.places.cmp(&b.places)));
        let blocks = without_overlaps(blocks);
        let duplicated = |covered: &Vec<bool>| {
            let mut until = 0;
            let mut count = 0;
            for at in (0..covered.len()).filter(|at| covered[*at]) {
                count += at + WINDOW_LINES - until.max(at);
                until = at + WINDOW_LINES;
            }
            count
        };
        Duplicates {
            blocks,
            lines: self.lines.iter().map(Vec::len).sum(),
            duplicated: self.covered.iter().map(duplicated).sum(),
        }
    }
}

/// Keeps a block unless better ones before it already take half of the lines of each of its places.
fn without_overlaps(blocks: Vec<Block>) -> Vec<Block> {
    let mut taken: HashMap<usize, BTreeMap<u32, u32>> = HashMap::new();
    let mut kept = Vec::with_capacity(blocks.len());
    for block in blocks {
        let told = |place: &Place| {
            let ranges = taken.get(&place.file);
            // Ranges of one file may overlap a little; the last few that begin before the end decide.
            let before = ranges
                .into_iter()
                .flat_map(|ranges| ranges.range(..=place.last).rev().take(RANGES_LOOKED_AT));
            let shared = before
                .map(|(first, last)| (*last).min(place.last).saturating_sub((*first).max(place.first) - 1));
            let most = shared.max().unwrap_or(0);
            most * 2 > place.last - place.first
        };
        if block.places.iter().all(told) {
            continue;
        }
        for place in &block.places {
            let last = taken.entry(place.file).or_default().entry(place.first).or_insert(place.last);
            *last = place.last.max(*last);
        }
        kept.push(block);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code_health::measure::measure;

    fn lines(prefix: &str, count: usize) -> String {
        (0..count).map(|n| format!("{prefix}({n});\n")).collect()
    }

    fn duplicates(files: &[(&str, String)]) -> Duplicates {
        let files: Vec<File> = files.iter().map(|(path, text)| measure(path, text.as_bytes())).collect();
        find(&files)
    }

    fn place(file: usize, first: u32, last: u32) -> Place {
        Place { file, first, last }
    }

    #[test]
    fn a_block_is_found_whole_and_once_in_every_file() {
        let shared = lines("shared", 10);
        let found = duplicates(&[
            ("a.rs", format!("{}{shared}{}", lines("a", 3), lines("x", 4))),
            ("b.rs", format!("// note\n\n{shared}{}", lines("b", 9))),
            ("c.rs", lines("c", 30)),
        ]);
        let expected = Block { lines: 10, places: vec![place(0, 4, 13), place(1, 3, 12)] };
        assert_eq!(found.blocks, [expected]);
        assert_eq!((found.duplicated, found.lines), (20, 66));
    }

    #[test]
    fn a_shorter_copy_is_a_block_of_its_own() {
        let shared = lines("shared", 20);
        let tail = lines("shared", 20).lines().skip(10).map(|line| format!("{line}\n")).collect::<String>();
        let found = duplicates(&[("a.rs", shared.clone()), ("b.rs", shared), ("c.rs", tail)]);
        assert_eq!(found.blocks.len(), 2);
        assert_eq!(found.blocks[0].places, [place(0, 1, 20), place(1, 1, 20)]);
        assert_eq!(found.blocks[1].places, [place(0, 11, 20), place(1, 11, 20), place(2, 1, 10)]);
    }

    #[test]
    fn a_block_inside_better_ones_is_told_once() {
        let shared = lines("shared", 12);
        let head = shared.lines().take(7).map(|line| format!("{line}\n")).collect::<String>();
        let mut files: Vec<(String, String)> = (0..6).map(|n| (format!("a{n}.rs"), shared.clone())).collect();
        files.push(("b.rs".to_owned(), format!("{head}{}", lines("b", 5))));
        let files: Vec<(&str, String)> =
            files.iter().map(|(path, text)| (path.as_str(), text.clone())).collect();
        let blocks = duplicates(&files).blocks;
        assert_eq!(blocks.iter().map(|block| block.places.len()).collect::<Vec<_>>(), [6, 7]);
        let alike = vec![
            Block { lines: 40, places: vec![place(0, 1, 40), place(1, 1, 40)] },
            Block { lines: 10, places: vec![place(0, 5, 14), place(1, 5, 14)] },
            Block { lines: 10, places: vec![place(0, 35, 60), place(1, 35, 60)] },
        ];
        assert_eq!(without_overlaps(alike.clone()), [alike[0].clone(), alike[2].clone()]);
    }

    #[test]
    fn copies_in_one_file_do_not_overlap_and_short_ones_are_none() {
        let found = duplicates(&[("a.rs", lines("x", 8).repeat(3))]);
        assert!(
            found.blocks.iter().all(|block| block.places.windows(2).all(|pair| pair[0].last < pair[1].first))
        );
        assert!(!found.blocks.is_empty());
        let short = lines("s", 5);
        assert!(
            duplicates(&[("a.rs", short.clone() + "a();\n"), ("b.rs", short + "b();\n")]).blocks.is_empty()
        );
    }
}
