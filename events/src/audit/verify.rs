//! Verification: every hash, the chain, the tree, and every checkpoint, from nothing but the evidence.

use async_trait::async_trait;

use super::checkpoint::Note;
use super::key::PublicKey;
use super::streams::Streams;
use super::tile::{TILE_HASHES, Tile};
use super::tree::{Edge, Range};
use crate::api::Problem;
use crate::chain;
use crate::event::Recorded;
use crate::id::{Digest, Position};
use crate::store::Head;

pub use fault::{Fault, FaultKind, Report};
pub use trust::{Beyond, Cover, Kept, Trust};

mod fault;
mod trust;

/// Most faults of one rank that are reported; more say nothing new.
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
    let mut is_begun = false;
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
                // What stands before the first event has no part in the chain, which can be followed all the same.
                if is_begun || position > Position(0) {
                    return Ok(verifier.end());
                }
                is_begun = true;
            }
            Next::End => {
                if let Some((level, number)) = evidence.surplus().await? {
                    verifier.surplus(level, number);
                }
                verifier.check_head();
                verifier.check_beyond();
                verifier.check_cover();
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
            origin: trust.origin.clone(),
            trust,
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
        let alike = self.faults.iter().filter(|fault| fault.kind.rank() == kind.rank()).count();
        if alike < FAULTS_MAX {
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
        let origin = &checkpoint.origin;
        let own: Vec<&PublicKey> = self.trust.keys.iter().filter(|key| key.name() == origin).collect();
        let expected = self.trust.origin.as_deref().filter(|expected| expected != origin);
        if expected.is_some() || own.is_empty() {
            let expected = expected
                .map_or_else(|| "of which no key is known".to_owned(), |log| format!("not of `{log}`"));
            let detail = format!("it is of the log `{origin}`, {expected}, {place}");
            return self.fault(FaultKind::CheckpointForeign, size, size, detail);
        }
        if !own.iter().any(|key| key.check(&note)) {
            let detail = format!("it bears no good signature of a known key, {place}");
            return self.fault(FaultKind::CheckpointForged, size, size, detail);
        }
        self.origin.get_or_insert_with(|| origin.clone());
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
            let (named, found) = match head.position == last.position {
                true => (format!("hash {}", head.hash), format!("hash {}", last.hash)),
                false => (format!("position {}", head.position), format!("position {}", last.position)),
            };
            let detail = format!("the head names {named}, the last event has {found}");
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

    /// The events that no checkpoint covers: of a log that goes on the newest, of what was taken out of one none.
    fn check_cover(&mut self) {
        let last = self.range.size();
        let is_lacking = match self.trust.cover {
            Cover::None => false,
            Cover::Some => self.agreed == 0,
            Cover::All => self.covered < last,
        };
        if is_lacking && self.first > 0 {
            let first = self.first.max(self.covered + 1);
            let detail = "no checkpoint that agrees with the log covers them".to_owned();
            self.fault(FaultKind::LogUnsigned, first, last, detail);
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
