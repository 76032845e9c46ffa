//! Replay: what the registry was at any moment, how one entity lived, and what changed between two moments.
//!
//! All of it is folded from the log's events by the same `evolve` that the entities use, in memory: no views are made
//! and nothing is written, so that a log can be replayed wherever it can be read.

mod life;
mod registry;
#[cfg(test)]
mod tests;

pub use life::{Life, Relation, Step};
pub use registry::Registry;
