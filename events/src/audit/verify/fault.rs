//! What verification finds.

use serde::Serialize;

use crate::id::Digest;

/// What is wrong. The names are those that the bundle's `verify.py` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Events are missing, or stand where others should.
    EventMissing,
    /// An event does not match its hash: it, its hash or one before it was changed.
    EventChanged,
    /// An event cannot be read.
    EventDamaged,
    /// An event's version does not follow the one before it in its stream.
    EventMisplaced,
    /// The log does not end where it says.
    HeadChanged,
    /// Events that were signed are gone from the log's end.
    LogTruncated,
    /// Events are not those that were signed, although their chain fits.
    LogRewritten,
    /// A tile of the tree does not have the hashes of the log.
    TileChanged,
    /// A tile of the tree is missing.
    TileMissing,
    /// A checkpoint cannot be read.
    CheckpointMalformed,
    /// A checkpoint bears no good signature of a known key.
    CheckpointForged,
    /// A checkpoint is of another log.
    CheckpointForeign,
    /// A checkpoint that another place has is missing.
    CheckpointMissing,
    /// A checkpoint stands behind one that was signed after it.
    CheckpointMisplaced,
    /// The ledger is gone, with all of its checkpoints.
    LedgerMissing,
    /// A checkpoint does not bear the cosignature of the witness that should have seen it.
    CheckpointUnwitnessed,
    /// A checkpoint is of fewer events than come before the first of the evidence, which cannot be held to it.
    CheckpointUnchecked,
    /// No checkpoint that agrees with the log covers these events, and one should.
    LogUnsigned,
    /// A file does not have the checksum that it should.
    FileChanged,
    /// A key that must have signed is not among those that the evidence names.
    KeyMissing,
}

impl FaultKind {
    /// What is reported first: the events, then the checkpoints, then files.
    pub(super) fn rank(self) -> u8 {
        use FaultKind as K;
        match self {
            K::EventMissing | K::EventChanged | K::EventDamaged | K::EventMisplaced | K::HeadChanged => 0,
            K::LogTruncated | K::LogRewritten | K::TileChanged | K::TileMissing => 0,
            K::CheckpointMalformed | K::CheckpointForged | K::CheckpointForeign => 1,
            K::CheckpointMissing | K::CheckpointUnchecked | K::CheckpointUnwitnessed => 1,
            K::CheckpointMisplaced | K::LedgerMissing | K::LogUnsigned => 1,
            K::FileChanged | K::KeyMissing => 2,
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// What kind it is.
    pub kind: FaultKind,
    /// The first position that it is about.
    pub position: u64,
    /// The last.
    pub until: u64,
    /// What was found, for a person.
    pub detail: String,
}

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// The log that it is about.
    pub origin: Option<String>,
    /// The position of the first event that was read; 0 if there was none.
    pub first: u64,
    /// The position of the last event that was read.
    pub last: u64,
    /// Its hash.
    pub hash: Digest,
    /// Events that a checkpoint covers.
    pub covered: u64,
    /// Checkpoints that agree with the log.
    pub checkpoints: u64,
    /// Tiles that agree with the log.
    pub tiles: u64,
    /// The keys whose signatures counted.
    pub keys: Vec<String>,
    /// What is wrong, in the order in which it was found, the log's events first.
    pub faults: Vec<Fault>,
}
