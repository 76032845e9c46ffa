//! The proof that one event is in a signed log, in a text that stands for itself (C2SP `tlog-proof`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use tlog_tiles::{Hash, check_record, check_tree};

use super::checkpoint::{Malformed, Note};
use super::key::PublicKey;
use super::line::{Line, LineError};
use crate::chain;
use crate::event::Recorded;
use crate::id::Digest;

const OPENING: &str = "c2sp.org/tlog-proof@v1";

fn hashes(proof: &[Digest]) -> Vec<Hash> {
    proof.iter().map(|hash| Hash(hash.0)).collect()
}

/// Whether the tree of the first size and root begins with that of the second (RFC 6962 §2.1.4.2).
pub(super) fn is_consistent(proof: &[Digest], new: (u64, Digest), old: (u64, Digest)) -> bool {
    check_tree(&hashes(proof), new.0, Hash(new.1.0), old.0, Hash(old.1.0)).is_ok()
}

/// The proof of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The event.
    pub event: Recorded,
    /// The hash of the event before it.
    pub previous: Digest,
    /// The way from its leaf to the root.
    pub hashes: Vec<Digest>,
    /// The checkpoint that signs the root.
    pub note: Note,
}

/// Why a proof does not prove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// It does not have the form of a proof.
    #[error("read the proof: expected {expected}")]
    Form {
        /// What should stand there.
        expected: &'static str,
    },
    /// Its checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] Malformed),
    /// Its event cannot be read.
    #[error(transparent)]
    Event(#[from] LineError),
    /// The event is not the one that was hashed.
    #[error("check the proof: the event at position {position} does not match its hash")]
    Changed {
        /// The event's position.
        position: u64,
    },
    /// The hashes do not lead to the root.
    #[error(
        "check the proof: its hashes do not lead from the event at position {position} to the signed root"
    )]
    NotIncluded {
        /// The event's position.
        position: u64,
    },
    /// None of the keys has signed.
    #[error("check the proof: its checkpoint of {size} events is signed by none of the keys")]
    Unsigned {
        /// The checkpoint's size.
        size: u64,
    },
}

/// What a proof has proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The key that signed.
    pub key: PublicKey,
    /// The size of the tree in which the event is.
    pub size: u64,
}

/// What the `extra` line of the text holds: the entry, and what its hash was chained to.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extra {
    previous: Digest,
    event: Line,
}

impl Proof {
    /// The text; its `extra` line holds the event, so that nothing else is needed.
    pub fn text(&self) -> String {
        let extra = Extra { previous: self.previous, event: Line::from(&self.event) };
        let extra = serde_json::to_string(&extra).expect("an event is plain data");
        let index = self.event.position.0.saturating_sub(1);
        let mut text = format!("{OPENING}\nextra {}\nindex {index}\n", BASE64.encode(extra));
        for hash in hashes(&self.hashes) {
            text += &format!("{hash}\n");
        }
        format!("{text}\n{}", self.note)
    }

    /// Reads a proof from its text.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let form = |expected| ProofError::Form { expected };
        let (proof, note) =
            text.split_once("\n\n").ok_or_else(|| form("an empty line before the checkpoint"))?;
        let mut lines = proof.lines();
        if lines.next() != Some(OPENING) {
            return Err(form("`c2sp.org/tlog-proof@v1` on the first line"));
        }
        let extra = lines.next().and_then(|line| BASE64.decode(line.strip_prefix("extra ")?).ok());
        let extra: Option<Extra> = extra.and_then(|extra| serde_json::from_slice(&extra).ok());
        let Extra { previous, event } = extra.ok_or_else(|| form("`extra` and the event in base64"))?;
        let event = Recorded::try_from(&event)?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")?.parse::<u64>().ok());
        if index.and_then(|index| index.checked_add(1)) != Some(event.position.0) {
            return Err(form("`index` and the event's position less one"));
        }
        let hash = |line: &str| Hash::parse_hash(line).map(|hash| Digest(hash.0));
        let hashes =
            lines.map(hash).collect::<Result<_, _>>().map_err(|_| form("a hash in base64 on every line"))?;
        Ok(Self { event, previous, hashes, note: Note::parse(note)? })
    }

    /// Checks that the checkpoint has the event: its hash, and its way to the root. Who signed is not asked.
    pub(super) fn check_content(&self) -> Result<(), ProofError> {
        let position = self.event.position.0;
        if chain::hash(self.previous, &self.event) != self.event.hash {
            return Err(ProofError::Changed { position });
        }
        let checkpoint = self.note.checkpoint();
        let (size, root) = (checkpoint.size, Hash(checkpoint.root.0));
        let (proof, leaf) = (hashes(&self.hashes), Hash(self.event.hash.0));
        let index = position.checked_sub(1).filter(|index| *index < size);
        let included = index.is_some_and(|index| check_record(&proof, size, root, index, leaf).is_ok());
        match included {
            true => Ok(()),
            false => Err(ProofError::NotIncluded { position }),
        }
    }

    /// Checks everything: the event's hash, its way to the root, and the signature by one of `keys`.
    pub fn check(&self, keys: &[PublicKey]) -> Result<Proven, ProofError> {
        self.check_content()?;
        let size = self.note.checkpoint().size;
        let key = keys.iter().find(|key| key.check(&self.note)).ok_or(ProofError::Unsigned { size })?;
        Ok(Proven { key: key.clone(), size })
    }
}
