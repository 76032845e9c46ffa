//! Fuzzing without a compiler's help: inputs that were kept, and seeded mutations of them.
//!
//! Each target keeps a corpus, one input a file. A test tries all of it and then so many mutations; `cargo xtask fuzz`
//! goes on for as long as it is told. An input that fails is written into the corpus, where it stays when its fault is
//! mended.

// Each target uses its part of it.
#![allow(dead_code, reason = "shared by several test programs")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Mutations that are tried where nobody says for how long.
const TRIES: u64 = 3_000;
/// How long to try, in seconds, and from which seed.
const SECONDS: &str = "HYPERCODE_FUZZ_SECONDS";
const SEED: &str = "HYPERCODE_FUZZ_SEED";
/// Longest input.
const BYTES_MAX: usize = 64 * 1024;
/// What parsers stumble over.
const WORDS: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b".",
    b"\n",
    b"\r\n",
    b"\0",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\\ud800",
    b"\xff\xfe",
    "\u{202e}".as_bytes(),
    b"&a *a",
    b"<<: *a",
    b"%00",
    b"../",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// A target: what is tried, and where its corpus is.
pub(crate) struct Target {
    name: &'static str,
    corpus: PathBuf,
    inputs: Vec<Vec<u8>>,
    random: Random,
}

impl Target {
    /// The target of this name, whose corpus is in `tests/corpus/<name>` of the crate at `root`.
    pub(crate) fn new(root: &str, name: &'static str) -> Self {
        let corpus = Path::new(root).join("tests/corpus").join(name);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&corpus).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.sort();
        let inputs = files.iter().map(|file| std::fs::read(file).expect("a file of the corpus")).collect();
        let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let fresh = || match std::env::var_os(SECONDS) {
            Some(_) => std::process::id().into(),
            None => 1,
        };
        Self { name, corpus, inputs, random: Random(given.unwrap_or_else(fresh)) }
    }

    /// The same, beginning with these inputs too.
    pub(crate) fn with(mut self, inputs: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.inputs.extend(inputs);
        self
    }

    /// Tries the corpus and mutations of it. `check` panics if something does not hold.
    pub(crate) fn run(mut self, check: impl Fn(&[u8])) {
        assert!(!self.inputs.is_empty(), "{}: there is nothing to begin with", self.name);
        let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok());
        let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let seed = self.random.0;
        for input in &self.inputs {
            check(input);
        }
        let mut tries = 0;
        while until.map_or(tries < TRIES, |until| Instant::now() < until) {
            tries += 1;
            let input = self.mutated();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
                let kept = self.keep(&input);
                eprintln!("{}: seed {seed}, try {tries}; the input is kept in {}", self.name, kept.display());
                std::panic::resume_unwind(panic);
            }
        }
        eprintln!("{}: {tries} mutations of {} inputs from seed {seed}", self.name, self.inputs.len());
    }

    fn keep(&self, input: &[u8]) -> PathBuf {
        std::fs::create_dir_all(&self.corpus).expect("a directory for the corpus");
        let sum = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let file = self.corpus.join(format!("found-{sum:016x}"));
        std::fs::write(&file, input).expect("a file of the corpus");
        file
    }

    fn mutated(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut input = self.inputs[random.below(self.inputs.len())].clone();
        for _ in 0..=random.below(6) {
            let at = random.below(input.len() + 1);
            let end = at + random.below((input.len() - at).min(64) + 1);
            match random.below(7) {
                0 if at < input.len() => input[at] ^= 1 << random.below(8),
                1 => drop(input.drain(at..end)),
                2 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
                3 => drop(input.splice(at..end, WORDS[random.below(WORDS.len())].iter().copied())),
                4 => {
                    let part = input[at..end].to_vec();
                    drop(input.splice(at..at, part));
                }
                5 => {
                    let other = &self.inputs[random.below(self.inputs.len())];
                    let from = random.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                _ => input.truncate(end),
            }
        }
        input.truncate(BYTES_MAX);
        input
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("it is below a size")
    }
}
