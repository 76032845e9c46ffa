//! Fingerprints of runs of lines, by which equal code is found in different files without comparing their texts.
//!
//! A line counts if it has code with a letter or digit in it and is no import or attribute; it is taken without comments and with
//! single spaces. Every [`WINDOW_LINES`] neighbouring lines that count make a window, hashed by a rolling polynomial
//! hash modulo the prime 2^61 - 1 (Karp and Rabin, "Efficient randomized pattern-matching algorithms", 1987).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// How many lines a window has: the shortest duplicate that is found.
pub(crate) const WINDOW_LINES: usize = 6;
/// A window with fewer different lines says too little: tables repeat themselves.
const DISTINCT_LINES_MIN: usize = 4;
/// The fingerprint of a window that says too little; no other has it.
pub(crate) const NOTHING: u64 = 0;

const PRIME: u64 = (1 << 61) - 1;
const BASE: u64 = 0x0123_4567_89AB_CDEF % PRIME;
const DIGITS: usize = 16;

/// Beginnings of lines that import names or set attributes; equal ones are no duplicated work.
const PREAMBLES: &[&str] =
    &["use ", "pub use ", "import ", "from ", "#include", "#[", "#![", "using ", "package ", "require"];

/// The windows of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Windows {
    /// How far each line that counts is from the one before, the first from line 0.
    steps: Vec<u32>,
    /// The windows' hashes, sixteen hexadecimal digits each, in order.
    hashes: String,
}

impl Windows {
    /// Takes the fingerprints of a text, given the stencil of its comments.
    pub(crate) fn of(text: &str, comments: &str) -> Self {
        let mut windows = Self::default();
        let mut hashes = Vec::new();
        let mut last = 0;
        for ((line, comment), number) in text.lines().zip(comments.lines()).zip(1..) {
            if let Some(normal) = normalised(line, comment) {
                windows.steps.push(number - last);
                last = number;
                hashes.push(line_hash(&normal));
            }
        }
        windows.hashes = rolling(&hashes).iter().map(|hash| format!("{hash:016x}")).collect();
        windows
    }

    /// The line of the file at which each line that counts stands.
    pub(crate) fn lines(&self) -> Vec<u32> {
        let sum = |line: &mut u32, step: &u32| {
            *line = line.saturating_add(*step);
            Some(*line)
        };
        self.steps.iter().scan(0, sum).collect()
    }

    /// The fingerprint of each window; window `i` begins at the `i`-th line that counts. A malformed one is
    /// [`NOTHING`].
    pub(crate) fn hashes(&self) -> Vec<u64> {
        let digits = self.hashes.as_bytes().chunks(DIGITS).map(std::str::from_utf8);
        let hash =
            |digits: Result<&str, _>| u64::from_str_radix(digits.unwrap_or_default(), 16).unwrap_or(NOTHING);
        digits.map(hash).collect()
    }
}

/// The code of a line with single spaces, if the line counts.
fn normalised(line: &str, comment: &str) -> Option<String> {
    // Both have the same bytes but for blanks, so a place in one is a place in the other.
    let code: Vec<u8> = line
        .bytes()
        .zip(comment.bytes())
        .map(|(byte, comment)| if comment.is_ascii_whitespace() { byte } else { b' ' })
        .collect();
    let code = String::from_utf8_lossy(&code);
    let mut normal = String::with_capacity(code.len());
    for word in code.split_whitespace() {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(word);
    }
    let counts =
        normal.contains(char::is_alphanumeric) && !PREAMBLES.iter().any(|begin| normal.starts_with(begin));
    counts.then_some(normal)
}

/// FNV-1a over the line's bytes (Fowler, Noll, Vo), brought below the prime.
fn line_hash(line: &str) -> u64 {
    let hash = line.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    hash % PRIME
}

fn rolling(lines: &[u64]) -> Vec<u64> {
    let highest = (1..WINDOW_LINES).fold(1, |power, _| times(power, BASE));
    let mut hashes = Vec::with_capacity(lines.len().saturating_sub(WINDOW_LINES - 1));
    let mut hash = 0;
    for (at, line) in lines.iter().enumerate() {
        if at >= WINDOW_LINES {
            hash = minus(hash, times(lines[at - WINDOW_LINES], highest));
        }
        hash = (times(hash, BASE) + line) % PRIME;
        if at + 1 >= WINDOW_LINES {
            let distinct: BTreeSet<u64> = lines[at + 1 - WINDOW_LINES..=at].iter().copied().collect();
            let says_enough = distinct.len() >= DISTINCT_LINES_MIN;
            hashes.push(if says_enough { hash.max(1) } else { NOTHING });
        }
    }
    hashes
}

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(PRIME);
    u64::try_from(product).expect("a remainder of a 61-bit prime fits")
}

fn minus(a: u64, b: u64) -> u64 {
    (a + PRIME - b) % PRIME
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code_health::{language::by_name, stencil};

    fn windows(text: &str) -> Windows {
        Windows::of(text, &stencil::cut(text, by_name("Rust")).comments)
    }

    const BLOCK: &str = "let a = 1;\nlet b = 2;\nlet c = \"// x\";\nlet d = 4;\nlet e = 5;\nlet f = 6;\n";

    #[test]
    fn layout_comments_and_imports_do_not_count_and_strings_do() {
        let spaced = "use x;\n\n  let a  =\t1; // one\r\n{\nlet b = 2;\n/* - */\nlet c = \"// x\";\nlet d = 4;\nlet e = 5;\nlet f = 6;\n}\n";
        assert_eq!(windows(BLOCK).hashes(), windows(spaced).hashes());
        assert_eq!(windows(spaced).lines(), [3, 5, 7, 8, 9, 10]);
        assert_ne!(windows(BLOCK).hashes(), windows(&BLOCK.replace("// x", "// y")).hashes());
    }

    #[test]
    fn a_window_has_the_same_hash_wherever_it_stands() {
        let alone = windows(BLOCK).hashes();
        let inside = windows(&format!("f(0);\ng(1);\nh(2);\n{BLOCK}i(3);\nj(4);\n")).hashes();
        assert_eq!(alone.len(), 1);
        assert_eq!(inside.len(), 6);
        assert_eq!(inside.iter().position(|hash| *hash == alone[0]), Some(3));
    }

    #[test]
    fn windows_that_repeat_one_line_say_nothing() {
        assert!(windows(&"0x00,\n".repeat(20)).hashes().iter().all(|hash| *hash == NOTHING));
        assert!(windows("let a = 1;\n").hashes().is_empty());
    }
}
