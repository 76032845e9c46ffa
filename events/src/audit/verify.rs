//! Verification: every hash, the chain, the tree, and every checkpoint, from nothing but the evidence.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::Serialize;

use super::checkpoint::{Malformed, Note};
use super::key::PublicKey;
use super::streams::Streams;
use super::tile::{TILE_HASHES, Tile};
use super::tree::{Edge, Range};
use super::witness::WitnessKey;
use crate::api::Problem;
use crate::chain;
use crate::event::Recorded;
use crate::id::{Digest, Position};
use crate::store::Head;

/// Most faults that are reported; more say nothing new.
const FAULTS_MAX: usize = 100;

/// What comes next of the log.
#[derive(Clone, Debug)]
pub enum Next {
    /// Events in their order, at least one.
    Events(Vec<Recorded>),
    /// The event at this position cannot be read.
    Damaged {
        /// Where.
        position: Position,
        /// What is wrong.
        reason: String,
    },
    /// There are no more.
    End,
}

/// Where events and tiles come from: a store and its ledger, a platform over HTTP, or a bundle.
#[async_trait]
pub trait Evidence: Send {
    /// The next events in the order of the log.
    async fn next(&mut self) -> Result<Next, Problem>;
    /// The hashes of a stored tile; `None` if it is missing.
    async fn tile(&mut self, level: u8, number: u64) -> Result<Option<Vec<u8>>, Problem>;
    /// The size of the newest checkpoint by now, where the evidence may grow while it is verified.
    async fn signed(&mut self) -> Result<u64, Problem> {
        Ok(0)
    }
    /// A stored tile, by level and number, that the tree of the newest checkpoint does not have.
    async fn surplus(&mut self) -> Result<Option<(i64, i64)>, Problem> {
        Ok(None)
    }
}

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

/// What the evidence is held to.
#[derive(Clone, Debug, Default)]
pub struct Trust {
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
    /// What is wrong with the places where checkpoints are, as far as it is known before they are read.
    pub(super) found: Vec<Fault>,
    /// Checkpoints that a witness should have cosigned and has not, each with the place that it is in.
    pub(super) unwitnessed: Vec<(u64, String)>,
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
            if note.is_ok() && !own.contains(&size) {
                self.missing(size, format!("the checkpoint is only {place}"));
            }
            self.checkpoints.push(Kept { place: place.to_owned(), size, note });
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

    /// There is no ledger at `place`, although checkpoints were signed there.
    pub fn lost(&mut self, place: &str) {
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

    /// Checkpoints of these sizes should be there, as `place` says.
    pub(super) fn expect(&mut self, sizes: &[u64], place: &str) {
        let own = self.sizes();
        for size in sizes.iter().filter(|size| !own.contains(*size)) {
            self.missing(*size, format!("the checkpoint is only {place}"));
        }
    }
}

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
    /// A file does not have the checksum that it should.
    FileChanged,
}

impl FaultKind {
    /// What is reported first: the events, then the checkpoints, then files.
    fn rank(self) -> u8 {
        use FaultKind as K;
        match self {
            K::EventMissing | K::EventChanged | K::EventDamaged | K::EventMisplaced | K::HeadChanged => 0,
            K::LogTruncated | K::LogRewritten | K::TileChanged | K::TileMissing => 0,
            K::CheckpointMalformed | K::CheckpointForged | K::CheckpointForeign => 1,
            K::CheckpointMissing | K::CheckpointUnchecked | K::CheckpointUnwitnessed => 1,
            K::CheckpointMisplaced | K::LedgerMissing => 1,
            K::FileChanged => 2,
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

/// Verifies `evidence`; `progress` hears now and then up to which position it has come.
///
/// # Errors
/// When the evidence cannot be read. What is wrong with it is in the report.
pub async fn verify(
    trust: Trust,
    evidence: &mut dyn Evidence,
    mut progress: impl FnMut(Position) + Send,
) -> Result<Report, Problem> {
    let mut verifier = Verifier::new(trust);
    loop {
        match evidence.next().await? {
            Next::Events(events) => {
                for event in &events {
                    if !verifier.event(event) {
                        return Ok(verifier.end());
                    }
                    for tile in verifier.grown() {
                        let stored = evidence.tile(tile.level, tile.number).await?;
                        // What is there beyond the log that was read is of a checkpoint that was cut meanwhile, or of nobody.
                        let size =
                            match stored.as_ref().is_some_and(|stored| stored.len() > tile.hashes.len()) {
                                true => evidence.signed().await?.max(verifier.trust.tiles),
                                false => verifier.trust.tiles,
                            };
                        verifier.compare(&tile, stored.as_deref(), size);
                    }
                }
                progress(verifier.chain.head().position);
            }
            Next::Damaged { position, reason } => {
                verifier.fault(FaultKind::EventDamaged, position.0, position.0, reason);
                return Ok(verifier.end());
            }
            Next::End => {
                if let Some((level, number)) = evidence.surplus().await? {
                    verifier.surplus(level, number);
                }
                verifier.check_head();
                verifier.check_beyond();
                return Ok(verifier.end());
            }
        }
    }
}

struct Verifier {
    trust: Trust,
    origin: Option<String>,
    chain: chain::Verifier,
    first: u64,
    streams: Streams,
    range: Range,
    edge: Edge,
    complete: Vec<Tile>,
    /// Checkpoints whose signatures are good, the largest first.
    waiting: Vec<(String, Note)>,
    agreed: u64,
    covered: u64,
    tiles: u64,
    faults: Vec<Fault>,
}

impl Verifier {
    fn new(mut trust: Trust) -> Self {
        let before = trust.before.clone();
        let head = Head { position: Position(before.size()), hash: trust.previous.unwrap_or(Digest::ZERO) };
        let checkpoints = std::mem::take(&mut trust.checkpoints);
        let mut verifier = Self {
            trust,
            origin: None,
            chain: chain::Verifier::after(head),
            first: 0,
            streams: Streams::new(before.size() == 0),
            range: before,
            edge: Edge::default(),
            complete: Vec::new(),
            waiting: Vec::new(),
            agreed: 0,
            covered: 0,
            tiles: 0,
            faults: Vec::new(),
        };
        for Fault { kind, position, until, detail } in std::mem::take(&mut verifier.trust.found) {
            verifier.fault(kind, position, until, detail);
        }
        for (size, place) in std::mem::take(&mut verifier.trust.unwitnessed) {
            let detail = format!("it bears no good cosignature of the witness, {place}");
            verifier.fault(FaultKind::CheckpointUnwitnessed, size, size, detail);
        }
        checkpoints.into_iter().for_each(|kept| verifier.admit(kept));
        verifier.waiting.sort_by_key(|(_, note)| std::cmp::Reverse(note.checkpoint().size));
        verifier.hold_to_checkpoints();
        verifier
    }

    fn fault(&mut self, kind: FaultKind, position: u64, until: u64, detail: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { kind, position, until, detail });
        }
    }

    /// Takes a checkpoint if its form, its log and its signature are good.
    fn admit(&mut self, kept: Kept) {
        let (place, size) = (kept.place, kept.size);
        let note = match kept.note {
            Ok(note) => note,
            Err(error) => {
                return self.fault(FaultKind::CheckpointMalformed, size, size, format!("{error}, {place}"));
            }
        };
        let checkpoint = note.checkpoint();
        if checkpoint.size != size {
            let detail = format!("it stands for {} events where {size} should be, {place}", checkpoint.size);
            return self.fault(FaultKind::CheckpointMalformed, size, size, detail);
        }
        let origin = self.origin.get_or_insert_with(|| checkpoint.origin.clone());
        if *origin != checkpoint.origin {
            let detail = format!("it is of the log `{}`, not of `{origin}`, {place}", checkpoint.origin);
            return self.fault(FaultKind::CheckpointForeign, size, size, detail);
        }
        if !self.trust.keys.iter().any(|key| key.check(&note)) {
            let detail = format!("it bears no good signature of a known key, {place}");
            return self.fault(FaultKind::CheckpointForged, size, size, detail);
        }
        self.waiting.push((place, note));
    }

    /// Checks the next event; false if nothing after it can be checked.
    fn event(&mut self, event: &Recorded) -> bool {
        let expected = self.chain.head().position.next();
        if self.first == 0 {
            self.first = expected.0;
        }
        match self.chain.check(event) {
            Ok(()) => {
                if let Some(version) = self.streams.follow(event) {
                    let (found, stream) = (event.version, &event.stream);
                    let detail =
                        format!("it is version {found} of `{stream}`, where {version} should follow");
                    self.fault(FaultKind::EventMisplaced, expected.0, expected.0, detail);
                }
            }
            Err(chain::Broken::Gap { found, .. }) => {
                let until = if found > expected { found.0 - 1 } else { expected.0 };
                let detail = format!("position {found} stands where {expected} should");
                self.fault(FaultKind::EventMissing, expected.0, until, detail);
                return false;
            }
            Err(_) => {
                let detail = format!("{} of `{}` does not match its hash", event.kind, event.stream);
                self.fault(FaultKind::EventChanged, expected.0, expected.0, detail);
                self.streams.pass(event);
                // What follows was chained to the hash that stands here.
                self.chain = chain::Verifier::after(Head { position: expected, hash: event.hash });
            }
        }
        self.range.push(event.hash);
        if self.range.size() <= self.trust.tiles {
            self.edge.push(event.hash, &mut self.complete);
        }
        self.hold_to_checkpoints();
        true
    }

    /// The tiles that are to be compared now: those that are complete, and at the last size those that are begun.
    fn grown(&mut self) -> Vec<Tile> {
        let mut tiles = std::mem::take(&mut self.complete);
        if self.range.size() == self.trust.tiles {
            tiles.extend(self.edge.partial());
        }
        tiles
    }

    /// Compares a stored tile of the tree of `size` leaves with what the log says of it.
    fn compare(&mut self, tile: &Tile, stored: Option<&[u8]>, size: u64) {
        let name = format!("tile {} of level {}", tile.number, tile.level);
        let hashes = |bytes: &[u8]| bytes.chunks(32).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let expected = hashes(&tile.hashes);
        let Some(stored) = stored.map(hashes) else {
            let (first, last) = (tile.positions(0).0, tile.positions(expected.len() - 1).1);
            return self.fault(FaultKind::TileMissing, first, last, format!("{name} is missing"));
        };
        let most = tile.width(size).max(expected.len());
        let torn = stored.iter().position(|hash| hash.len() != 32);
        let beyond = torn.or_else(|| (stored.len() > most).then_some(most));
        match (0..expected.len()).find(|i| stored.get(*i) != Some(&expected[*i])).or(beyond) {
            None => self.tiles += 1,
            Some(index) => {
                let (first, last) = tile.positions(index);
                let detail = format!("hash {index} of {name} is not that of the log");
                self.fault(FaultKind::TileChanged, first, last, detail);
            }
        }
    }

    /// A tile is stored that no tree has which was signed.
    fn surplus(&mut self, level: i64, number: i64) {
        let first = u32::try_from(level).ok().and_then(|level| {
            let leaves = (TILE_HASHES as u64).checked_pow(level.checked_add(1)?)?;
            u64::try_from(number).ok()?.checked_mul(leaves)?.checked_add(1)
        });
        let position = first.unwrap_or_default();
        let detail = format!("tile {number} of level {level} is none of the tree that was signed");
        self.fault(FaultKind::TileChanged, position, position, detail);
    }

    /// Holds the tree to the checkpoints of its size.
    fn hold_to_checkpoints(&mut self) {
        let size = self.range.size();
        while let Some((_, note)) = self.waiting.last()
            && note.checkpoint().size <= size
        {
            let Some((place, note)) = self.waiting.pop() else { break };
            let checkpoint = note.checkpoint();
            if checkpoint.size < size {
                let (signed, first) = (checkpoint.size, size + 1);
                let detail = format!("it is of {signed} events, the first that is here is {first}, {place}");
                self.fault(FaultKind::CheckpointUnchecked, signed, signed, detail);
                continue;
            }
            if checkpoint.root == self.range.root() {
                (self.agreed, self.covered) = (self.agreed + 1, size);
                continue;
            }
            let detail = format!("the first {size} events are not those that were signed, {place}");
            self.fault(FaultKind::LogRewritten, self.covered + 1, size, detail);
        }
    }

    fn check_head(&mut self) {
        let last = self.chain.head();
        if let Some(head) = self.trust.head
            && head != last
        {
            let (low, high) = (head.position.min(last.position).0, head.position.max(last.position).0);
            let detail =
                format!("the head names position {}, the last event has {}", head.position, last.position);
            self.fault(FaultKind::HeadChanged, low + u64::from(low < high), high, detail);
        }
    }

    /// What was signed beyond the last event: proven to continue it, or gone.
    fn check_beyond(&mut self) {
        let (size, root) = (self.range.size(), self.range.root());
        while let Some((place, note)) = self.waiting.pop() {
            let checkpoint = note.checkpoint();
            let beyond = self.trust.beyond.as_ref();
            let proof = beyond.filter(|beyond| (beyond.from, beyond.size) == (size, checkpoint.size));
            let proven = proof.is_some_and(|beyond| {
                let new = (checkpoint.size, checkpoint.root);
                super::proof::is_consistent(&beyond.proof, new, (size, root))
            });
            match (proven, proof.is_some()) {
                (true, _) => (self.agreed, self.covered) = (self.agreed + 1, size),
                (false, true) => {
                    let detail = format!("the first {size} events are not those that were signed, {place}");
                    self.fault(FaultKind::LogRewritten, self.covered + 1, size, detail);
                }
                (false, false) => {
                    let detail = format!("{} events were signed, {size} are there, {place}", checkpoint.size);
                    self.fault(FaultKind::LogTruncated, size + 1, checkpoint.size, detail);
                }
            }
        }
    }

    fn end(mut self) -> Report {
        for name in std::mem::take(&mut self.trust.changed) {
            let detail = format!("`{name}` does not have the checksum that `SHA256SUMS` names");
            self.fault(FaultKind::FileChanged, 0, 0, detail);
        }
        self.faults.sort_by_key(|fault| fault.kind.rank());
        Report {
            ok: self.faults.is_empty(),
            origin: self.origin,
            first: self.first,
            last: self.chain.head().position.0,
            hash: self.chain.head().hash,
            covered: self.covered,
            checkpoints: self.agreed,
            tiles: self.tiles,
            keys: self.trust.keys.iter().map(ToString::to_string).collect(),
            faults: self.faults,
        }
    }
}
