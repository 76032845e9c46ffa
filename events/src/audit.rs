//! Proof that the log is what it was: a Merkle tree over its hashes, signed checkpoints, and how all is verified.
//!
//! ```text
//!   log         e1  e2  e3  e4  e5  e6 …        each event's hash covers all before it (`chain`)
//!                |   |   |   |   |   |
//!   tree         h1  h2  h3  h4  h5  h6 …       leaf n is the hash of the event at position n + 1
//!                 \ /     \ /     \ /
//!   checkpoint         root of 4, signed    root of 6, signed …        to sinks outside the operator's hands
//! ```
//!
//! The chain finds careless changes. Whoever owns the database could rewrite all of it, but not what was signed
//! and given away: a checkpoint binds every event before it, and each is proven to continue the one before.
//!
//! Formats: trees and proofs of RFC 6962, tiles, checkpoints, proofs and witnesses of the C2SP (`tlog-tiles`,
//! `tlog-checkpoint`, `signed-note`, `tlog-proof`, `tlog-witness`, `tlog-cosignature`).

mod bundle;
mod checkpoint;
mod key;
mod ledger;
mod line;
mod local;
mod proof;
mod sink;
mod streams;
mod tailer;
#[cfg(test)]
mod tests;
mod tile;
mod tree;
mod verify;
pub mod witness;

pub use bundle::{Bundle, BundleError, Format, Manifest, Wanted, export};
pub use checkpoint::{Checkpoint, Malformed, Note, notes};
pub use key::{KEY_FILE, KeyError, PublicKey, Signer};
pub use ledger::{Entry, LEDGER_FILE, Ledger, LedgerError};
pub use line::{Line, LineError};
pub use local::{Local, consistency};
pub use proof::{Proof, ProofError, Proven};
pub use sink::{AppendFile, Directory, Program, Row, Sink, SinkError, Table};
pub use tailer::{CutError, Fork, Options, Standing, Tailer};
pub use tile::{TILE_BYTES, TILE_HASHES, Tile, Tiles};
pub use tree::{Edge, Range};
pub use verify::{Beyond, Cover, Evidence, Fault, FaultKind, Kept, Next, Report, Trust, verify};
pub use witness::WitnessKey;
