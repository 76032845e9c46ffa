//! A witness for tests, as small as the C2SP lets one be.

use base64::Engine as _;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::{BASE64, COSIGNATURE_V1, opening};
use crate::audit::checkpoint::Note;
use crate::audit::proof::is_consistent;
use crate::id::Digest;

/// A witness that remembers one log, as the C2SP wants it.
pub struct Witness {
    name: String,
    key: Ed25519KeyPair,
    seen: Option<(u64, Digest)>,
}

/// What a witness answers: a status of HTTP and a body.
pub type Answer = (u16, String);

impl Witness {
    /// A witness with a key of its own, which has seen nothing.
    pub fn new(name: &str, seed: [u8; 32]) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed");
        Self { name: name.to_owned(), key, seen: None }
    }

    /// Its public key.
    pub fn public(&self) -> String {
        let bytes = [&[COSIGNATURE_V1], self.key.public_key().as_ref()].concat();
        format!("{}+{:08x}+{}", self.name, signed_note::key_id(&self.name, &bytes), BASE64.encode(bytes))
    }

    /// How many leaves it has seen.
    pub fn size(&self) -> u64 {
        self.seen.map_or(0, |(size, _)| size)
    }

    /// The cosignature of a checkpoint, at this time in seconds since 1970.
    pub fn cosign(&self, note: &Note, at: u64) -> String {
        let text = note.as_str().split_once("\n\n").map(|(text, _)| format!("{text}\n"));
        let text = text.expect("a note has a text and signatures");
        let signature = self.key.sign(&[&opening(at), text.as_bytes()].concat());
        let bytes = [&[COSIGNATURE_V1], self.key.public_key().as_ref()].concat();
        let id = signed_note::key_id(&self.name, &bytes).to_be_bytes();
        let signature = [&id, &at.to_be_bytes()[..], signature.as_ref()].concat();
        format!("— {} {}\n", self.name, BASE64.encode(signature))
    }

    /// Answers `add-checkpoint`.
    pub fn add_checkpoint(&mut self, asked: &str, at: u64) -> Answer {
        let parsed = asked.split_once("\n\n").and_then(|(head, note)| {
            let mut lines = head.lines();
            let old: u64 = lines.next()?.strip_prefix("old ")?.parse().ok()?;
            let hash = |line: &str| Some(Digest(BASE64.decode(line).ok()?.try_into().ok()?));
            Some((old, lines.map(hash).collect::<Option<Vec<_>>>()?, Note::parse(note).ok()?))
        });
        let Some((old, proof, note)) = parsed else { return (400, "malformed\n".to_owned()) };
        let new = (note.checkpoint().size, note.checkpoint().root);
        if old > new.0 {
            return (400, "old is larger than the checkpoint\n".to_owned());
        }
        if old != self.size() {
            return (409, format!("{}\n", self.size()));
        }
        match self.seen {
            Some(seen) if seen.0 == new.0 && seen.1 != new.1 => return (409, format!("{}\n", self.size())),
            Some(seen) if seen.0 < new.0 && !is_consistent(&proof, new, seen) => {
                return (422, "inconsistent\n".to_owned());
            }
            _ => self.seen = Some(new),
        }
        (200, self.cosign(&note, at))
    }
}
