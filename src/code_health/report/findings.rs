//! What deserves a look, with a score that says how much.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{code, count, number, quoted};
use crate::code_health::duplicates::{Block, Duplicates};
use crate::code_health::functions::Function;
use crate::code_health::marks::Word;
use crate::code_health::measure::{File, LINE_CHARS_MAX};

/// A function longer than this, in lines, is a finding.
pub(super) const FUNCTION_LINES_MAX: u32 = 60;
/// A function nested deeper than this is a finding.
pub(super) const FUNCTION_DEPTH_MAX: u32 = 4;
/// A file with more lines of code is a finding.
pub(super) const FILE_CODE_MAX: u32 = 600;
/// Long lines beyond this many in a file raise its score no further.
const LONG_LINES_COUNTED_MAX: u32 = 20;

/// Tenths of a point: scores are added and compared as integers, so that no rounding can change an order.
pub(super) type Tenths = u64;

/// One thing that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) score: Tenths,
    /// Index of the file where it is told.
    pub(super) file: usize,
    pub(super) line: u32,
    pub(super) what: String,
    pub(super) sort: Sort,
    /// The file of each place, the first included: they share the score.
    pub(super) files: Vec<usize>,
}

/// Sorts of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    Function,
    Duplicate,
    Size,
    Mark,
    Layout,
}

impl Sort {
    pub(super) fn title(self, many: bool) -> &'static str {
        match (self, many) {
            (Self::Function, false) => "long or nested function",
            (Self::Function, true) => "long or nested functions",
            (Self::Duplicate, false) => "duplicated block",
            (Self::Duplicate, true) => "duplicated blocks",
            (Self::Size, _) => "its size",
            (Self::Mark, false) => "note for later",
            (Self::Mark, true) => "notes for later",
            (Self::Layout, _) => "layout",
        }
    }
}

/// All findings of a tree.
pub(super) struct Findings {
    /// By score, the greatest first; equal ones by place.
    pub(super) ranked: Vec<Finding>,
}

impl Findings {
    pub(super) fn of(files: &[File], duplicates: &Duplicates) -> Self {
        let mut ranked = Vec::new();
        for (index, file) in files.iter().enumerate().filter(|(_, file)| file.is_own_code()) {
            ranked.extend(file.functions.iter().filter_map(|f| function(index, file, f)));
            ranked.extend(size(index, file));
            ranked.extend(layout(index, file));
            ranked.extend(marks(index, file));
        }
        ranked.extend(duplicates.blocks.iter().map(|block| duplicate(files, block)));
        ranked.retain(|finding| finding.score > 0);
        ranked.sort_by(|a, b| {
            (b.score, a.file, a.line, a.sort, &a.what).cmp(&(a.score, b.file, b.line, b.sort, &b.what))
        });
        Self { ranked }
    }

    /// The sum of the scores of each file that has findings, with their number by sort; the greatest sum first.
    pub(super) fn by_file(&self) -> Vec<(usize, Tenths, BTreeMap<Sort, u64>)> {
        let mut sums: BTreeMap<usize, (Tenths, BTreeMap<Sort, u64>)> = BTreeMap::new();
        for finding in &self.ranked {
            for file in &finding.files {
                let (sum, _) = sums.entry(*file).or_default();
                *sum += finding.score / finding.files.len() as Tenths;
            }
            let distinct: BTreeSet<usize> = finding.files.iter().copied().collect();
            for file in distinct {
                let (_, sorts) = sums.entry(file).or_default();
                *sorts.entry(finding.sort).or_default() += 1;
            }
        }
        let mut files: Vec<_> = sums.into_iter().map(|(file, (sum, sorts))| (file, sum, sorts)).collect();
        files.sort_by_key(|(file, sum, _)| (std::cmp::Reverse(*sum), *file));
        files
    }
}

/// Tests may be longer and repeat more than what they test.
fn weigh(score: Tenths, test: bool) -> Tenths {
    if test { score / 2 } else { score }
}

fn function(index: usize, file: &File, function: &Function) -> Option<Finding> {
    let length = u64::from(function.lines.saturating_sub(FUNCTION_LINES_MAX));
    let depth = u64::from(function.depth.saturating_sub(FUNCTION_DEPTH_MAX));
    let name = code(&function.name);
    let what = match (length > 0, depth > 0) {
        (false, false) => return None,
        (true, false) => format!("{name} is {} lines long", number(function.lines)),
        (false, true) => format!("{name} is nested {} deep", function.depth),
        (true, true) => {
            format!("{name} is {} lines long and nested {} deep", number(function.lines), function.depth)
        }
    };
    let score = weigh(length + 30 * depth, file.test || function.test);
    Some(Finding { score, file: index, line: function.line, what, sort: Sort::Function, files: vec![index] })
}

fn size(index: usize, file: &File) -> Option<Finding> {
    let over = u64::from(file.code.saturating_sub(FILE_CODE_MAX));
    let what = format!("the file has {} lines of code", number(file.code));
    (over > 0).then(|| Finding {
        score: weigh(over / 6, file.test),
        file: index,
        line: 1,
        what,
        sort: Sort::Size,
        files: vec![index],
    })
}

fn layout(index: usize, file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |score, line, what| {
        let score = weigh(score, file.test);
        found.push(Finding { score, file: index, line, what, sort: Sort::Layout, files: vec![index] });
    };
    if let Some(mixed) = &file.mixed_indentation {
        let what = format!(
            "indented by tabulators ({}) and by spaces ({})",
            count(mixed.tabs.into(), "line", "lines"),
            count(mixed.spaces.into(), "line", "lines"),
        );
        add(20, mixed.line, what);
    }
    if let Some(long) = &file.long_lines {
        let lines = count(long.count.into(), "line", "lines");
        let what =
            format!("{lines} over {LINE_CHARS_MAX} characters, the widest {} here", number(long.chars));
        add(u64::from(long.count.min(LONG_LINES_COUNTED_MAX)) * 25 / 10, long.line, what);
    }
    if file.broken_text {
        add(30, 1, "the file is not valid UTF-8".to_owned());
    }
    found
}

fn marks(index: usize, file: &File) -> impl Iterator<Item = Finding> {
    file.marks.iter().map(move |mark| {
        let score = match mark.word {
            Word::Fixme => 40,
            Word::Xxx => 30,
            Word::Hack => 20,
            Word::Todo => 10,
        };
        let what = format!("{}: {}", mark.word.as_str(), quoted(&mark.text));
        Finding {
            score: weigh(score, file.test),
            file: index,
            line: mark.line,
            what,
            sort: Sort::Mark,
            files: vec![index],
        }
    })
}

/// A finding at its first place. It is one of tests only if all its places are in tests.
fn duplicate(files: &[File], block: &Block) -> Finding {
    let test = block.places.iter().all(|place| files[place.file].stands_in_test(place.first));
    let first = &block.places[0];
    let second = &block.places[1];
    let rest = block.places.len() - 2;
    let other = code(&format!("{}:{}", files[second.file].path, second.first));
    let and_more = match rest {
        0 => String::new(),
        rest => format!(" and {}", count(rest as u64, "more place", "more places")),
    };
    let what = format!("{} lines stand again at {other}{and_more}", number(block.lines));
    let score = weigh(block.saving() as u64 * 10 / 4, test);
    let all = block.places.iter().map(|place| place.file).collect();
    Finding { score, file: first.file, line: first.first, what, sort: Sort::Duplicate, files: all }
}
