//! What evidence is held to.

use std::collections::BTreeSet;

use super::{Fault, FaultKind};
use crate::audit::checkpoint::{Malformed, Note};
use crate::audit::key::PublicKey;
use crate::audit::tree::Range;
use crate::audit::witness::WitnessKey;
use crate::id::Digest;
use crate::store::Head;

/// A checkpoint that the log is held to, and where it was kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where, in a few words.
    pub place: String,
    /// The size under which it was kept; 0 where that is not known.
    pub size: u64,
    /// What was kept.
    pub note: Result<Note, Malformed>,
}

/// Which of the events must be covered by a checkpoint that agrees with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cover {
    /// None: a log that has just begun is signed a moment later.
    #[default]
    None,
    /// Some: the newest of a log that goes on are signed a moment later, but not all of it.
    Some,
    /// All: what was taken out of a log was signed before.
    All,
}

/// What the evidence is held to.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The log that the evidence says it is of; of any whose key is known if absent.
    pub origin: Option<String>,
    /// What of it must be signed.
    pub cover: Cover,
    /// The tree before the first event of the evidence.
    pub before: Range,
    /// The hash before it.
    pub previous: Option<Digest>,
    /// Where the log is said to end; not held to if absent.
    pub head: Option<Head>,
    /// Every checkpoint.
    pub checkpoints: Vec<Kept>,
    /// The keys whose signatures count.
    pub keys: Vec<PublicKey>,
    /// Up to which size the evidence has tiles; 0 if it has none.
    pub tiles: u64,
    /// The proof that a checkpoint beyond the last event continues the tree.
    pub beyond: Option<Beyond>,
    /// Files that do not have their checksums.
    pub changed: Vec<String>,
    /// Checkpoints with cosignatures of witnesses that the evidence brings.
    pub(in crate::audit) cosigned: Vec<Note>,
    /// Whether the ledger is gone, so that no checkpoint of another place can be missed in it.
    pub(in crate::audit) is_lost: bool,
    /// What is wrong with the places where checkpoints are, as far as it is known before they are read.
    pub(in crate::audit) found: Vec<Fault>,
    /// Checkpoints that a witness should have cosigned and has not, each with the place that it is in.
    pub(in crate::audit) unwitnessed: Vec<(u64, String)>,
}

/// The proof that the tree of a checkpoint begins with a smaller tree (RFC 6962 §2.1.2).
#[derive(Clone, Debug)]
pub struct Beyond {
    /// The size of the smaller tree.
    pub from: u64,
    /// The size of the checkpoint.
    pub size: u64,
    /// The proof.
    pub proof: Vec<Digest>,
}

impl Trust {
    /// Also holds the evidence to checkpoints that were kept elsewhere, in `place`. One that the evidence itself should
    /// have and has not is a fault.
    pub fn hold_to(&mut self, place: &str, notes: Vec<Result<Note, Malformed>>) {
        let sized = |note: Result<Note, Malformed>| {
            let size = note.as_ref().map_or(0, |note| note.checkpoint().size);
            (size, note)
        };
        self.hold_to_sized(place, notes.into_iter().map(sized).collect());
    }

    /// Like [`Trust::hold_to`], where the place says of which size each checkpoint is.
    pub fn hold_to_sized(&mut self, place: &str, notes: Vec<(u64, Result<Note, Malformed>)>) {
        let own = self.sizes();
        for (size, note) in notes {
            if note.is_ok() && !own.contains(&size) && !self.is_lost {
                self.missing(size, format!("the checkpoint is only {place}"));
            }
            self.checkpoints.push(Kept { place: place.to_owned(), size, note });
        }
    }

    /// Also holds the evidence to checkpoints that others have signed and `place` has, which the evidence itself need not have.
    pub fn hold_to_others(&mut self, place: &str, notes: Vec<(u64, Result<Note, Malformed>)>) {
        let kept = |(size, note)| Kept { place: place.to_owned(), size, note };
        self.checkpoints.extend(notes.into_iter().map(kept));
    }

    /// Only signatures of `keys` count, which are known from elsewhere, and something must bear one. Evidence that says of
    /// which log it is must name those of them that are of this log.
    pub fn pin(&mut self, keys: Vec<PublicKey>) {
        let own = std::mem::replace(&mut self.keys, keys);
        let unnamed = |key: &&PublicKey| self.origin.as_deref() == Some(key.name()) && !own.contains(key);
        let unnamed: Vec<PublicKey> = self.keys.iter().filter(unnamed).cloned().collect();
        for key in unnamed {
            self.found(FaultKind::KeyMissing, 0, format!("the evidence does not name the key `{key}`"));
        }
        if self.cover == Cover::None {
            self.cover = Cover::Some;
        }
    }

    /// Every checkpoint of the evidence up to `given` was given to `place`, which has those of `sizes`, in this order: one
    /// that is gone there, or stands where it cannot have been put, is a fault.
    pub fn must_have(&mut self, place: &str, given: u64, sizes: &[u64]) {
        let there: BTreeSet<u64> = sizes.iter().copied().collect();
        // What cannot be read has no size of its own.
        for size in self.sizes().iter().filter(|size| (1..=given).contains(*size) && !there.contains(*size)) {
            self.missing(*size, format!("the checkpoint is gone {place}"));
        }
        for pair in sizes.windows(2).filter(|pair| pair[1] <= pair[0]) {
            let detail = format!("it stands behind the checkpoint of {} events, {place}", pair[0]);
            self.found(FaultKind::CheckpointMisplaced, pair[1], detail);
        }
    }

    /// The checkpoint of `given` events, or one after it, was the newest that was given to `place`, which has those of `sizes`
    /// and was not given all.
    pub fn must_have_newest(&mut self, place: &str, given: u64, sizes: &[u64]) {
        if sizes.iter().all(|size| *size < given) && given > 0 {
            self.missing(given, format!("the checkpoint is gone {place}"));
        }
    }

    /// There is no ledger at `place`, although checkpoints were signed there.
    pub fn lost(&mut self, place: &str) {
        self.is_lost = true;
        self.found(
            FaultKind::LedgerMissing,
            0,
            format!("checkpoints were signed here, but `{place}` is gone"),
        );
    }

    fn sizes(&self) -> BTreeSet<u64> {
        self.checkpoints.iter().map(|kept| kept.size).collect()
    }

    fn missing(&mut self, size: u64, detail: String) {
        self.found(FaultKind::CheckpointMissing, size, detail);
    }

    fn found(&mut self, kind: FaultKind, size: u64, detail: String) {
        self.found.push(Fault { kind, position: size, until: size, detail });
    }

    /// Like [`Trust::hold_to`], with checkpoints that this witness must have cosigned.
    pub fn hold_to_witnessed(
        &mut self,
        place: &str,
        notes: Vec<Result<Note, Malformed>>,
        witness: &WitnessKey,
    ) {
        let without = notes.iter().flatten().filter(|note| !witness.check(note));
        self.unwitnessed.extend(without.map(|note| (note.checkpoint().size, place.to_owned())));
        self.hold_to(place, notes);
    }

    /// Brings checkpoints with cosignatures along, to which the evidence is held as well.
    pub(in crate::audit) fn bring_cosigned(&mut self, place: &str, notes: Vec<Result<Note, Malformed>>) {
        self.cosigned.extend(notes.iter().flatten().cloned());
        let kept = |note: Result<Note, Malformed>| {
            let size = note.as_ref().map_or(0, |note| note.checkpoint().size);
            Kept { place: place.to_owned(), size, note }
        };
        self.checkpoints.extend(notes.into_iter().map(kept));
    }

    /// This witness must have cosigned one of the checkpoints that the evidence brings with cosignatures.
    pub fn must_be_witnessed(&mut self, witness: &WitnessKey) {
        if !self.cosigned.iter().any(|note| witness.check(note)) {
            let last = self.head.map_or(0, |head| head.position.0);
            self.unwitnessed.push((last, "among what it brings".to_owned()));
        }
    }

    /// Whether it brings any with cosignatures.
    pub fn has_cosigned(&self) -> bool {
        !self.cosigned.is_empty()
    }

    /// Checkpoints of these sizes should be there, as `place` says.
    pub(in crate::audit) fn expect(&mut self, sizes: &[u64], place: &str) {
        let own = self.sizes();
        for size in sizes.iter().filter(|size| !own.contains(*size)) {
            self.missing(*size, format!("the checkpoint is only {place}"));
        }
    }
}
