//! Reading a bundle as evidence.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::Digest as _;

use super::write::failed;
use super::{BundleError, CHECKPOINTS, COSIGNED, EVENTS, FORMAT, KEYS, MANIFEST, Manifest, SUMS};
use crate::api::Problem;
use crate::audit::checkpoint::notes;
use crate::audit::key::PublicKey;
use crate::audit::line::Line;
use crate::audit::tree::Range;
use crate::audit::verify::{Beyond, Cover, Evidence, Kept, Next, Trust};
use crate::event::Recorded;
use crate::id::{Digest, Position};
use crate::store::Head;

/// Events that are handed on at once.
const BATCH_EVENTS: usize = 1_000;
/// Longest line of events: a payload of the largest size, every byte of it escaped.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// A bundle that was opened.
pub struct Bundle {
    directory: PathBuf,
    manifest: Manifest,
    events: BufReader<File>,
    next: u64,
    damaged: Option<String>,
}

impl Bundle {
    /// Opens the bundle in `directory`.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        let foreign = |reason: String| BundleError::Foreign { path: directory.to_owned(), reason };
        let manifest = text(&directory.join(MANIFEST))?;
        let manifest: Manifest =
            serde_json::from_str(&manifest).map_err(|error| foreign(format!("`{MANIFEST}`: {error}")))?;
        if manifest.format != FORMAT {
            return Err(foreign(format!("its format {} is not this program's {FORMAT}", manifest.format)));
        }
        if manifest.from == 0 || manifest.to < manifest.from {
            let (from, to) = (manifest.from, manifest.to);
            return Err(foreign(format!("events {from} to {to}: expected positions from 1, in order")));
        }
        let path = directory.join(EVENTS);
        let events = BufReader::new(File::open(&path).map_err(failed("read", &path))?);
        Ok(Self { directory: directory.to_owned(), next: manifest.from, manifest, events, damaged: None })
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What it is to be held to: its own claims, checkpoints and keys.
    pub fn trust(&self) -> Result<Trust, BundleError> {
        let manifest = &self.manifest;
        let foreign = |reason: String| BundleError::Foreign { path: self.directory.clone(), reason };
        let keys = text(&self.directory.join(KEYS))?;
        let keys = keys.lines().filter(|line| !line.is_empty());
        let key = |line| PublicKey::parse(line).map_err(|error| foreign(format!("`{KEYS}`: {error}")));
        let begun = manifest.from - 1;
        let before = Range::of(begun, manifest.before.clone())
            .ok_or_else(|| foreign(format!("`before` does not have the subtrees of {begun} events")))?;
        let mut trust = Trust {
            origin: Some(manifest.origin.clone()),
            cover: Cover::All,
            before,
            previous: Some(manifest.previous),
            head: Some(Head { position: Position(manifest.to), hash: manifest.hash }),
            keys: keys.map(key).collect::<Result<_, _>>()?,
            ..Trust::default()
        };
        for note in notes(&text(&self.directory.join(CHECKPOINTS))?) {
            let size = note.as_ref().map_or(0, |note| note.checkpoint().size);
            trust.checkpoints.push(Kept { place: format!("in `{CHECKPOINTS}`"), size, note });
        }
        trust.expect(&manifest.checkpoints, "in the manifest");
        let cosigned = self.directory.join(COSIGNED);
        if cosigned.is_file() {
            trust.bring_cosigned(&format!("in `{COSIGNED}`"), notes(&text(&cosigned)?));
        }
        trust.beyond = manifest.checkpoints.last().filter(|size| **size > manifest.to).map(|size| Beyond {
            from: manifest.to,
            size: *size,
            proof: manifest.beyond.clone(),
        });
        trust.changed = self.changed()?;
        Ok(trust)
    }

    /// The files that do not have the checksums that `SHA256SUMS` names, or that it does not name.
    fn changed(&self) -> Result<Vec<String>, BundleError> {
        let sums = text(&self.directory.join(SUMS))?;
        let expected: Vec<(&str, &str)> = sums.lines().filter_map(|line| line.split_once("  ")).collect();
        let mut changed = Vec::new();
        for (sum, name) in &expected {
            if name.contains('/') || digest(&self.directory.join(name)).ok().as_deref() != Some(sum) {
                changed.push((*name).to_owned());
            }
        }
        for name in [CHECKPOINTS, EVENTS, KEYS, MANIFEST] {
            if !expected.iter().any(|(_, expected)| *expected == name) {
                changed.push(name.to_owned());
            }
        }
        changed.sort();
        Ok(changed)
    }

    fn line(&mut self) -> Result<Option<Result<Recorded, String>>, BundleError> {
        let path = self.directory.join(EVENTS);
        let mut line = Vec::new();
        let mut bounded = (&mut self.events).take(LINE_BYTES_MAX);
        bounded.read_until(b'\n', &mut line).map_err(failed("read", &path))?;
        if line.is_empty() {
            return Ok(None);
        }
        let read = serde_json::from_slice::<Line>(&line).map_err(|error| error.to_string());
        Ok(Some(read.and_then(|line| Recorded::try_from(&line).map_err(|error| error.to_string()))))
    }
}

#[async_trait]
impl Evidence for Bundle {
    async fn next(&mut self) -> Result<Next, Problem> {
        if let Some(reason) = self.damaged.take() {
            return Ok(Next::Damaged { position: Position(self.next), reason });
        }
        let mut events = Vec::new();
        while events.len() < BATCH_EVENTS {
            match self.line()? {
                None => break,
                Some(Ok(event)) => {
                    self.next = event.position.0.saturating_add(1);
                    events.push(event);
                }
                Some(Err(reason)) => {
                    // What stands before it is verified first.
                    self.damaged = Some(reason);
                    break;
                }
            }
        }
        match (events.is_empty(), self.damaged.is_some()) {
            (true, true) => self.next().await,
            (true, false) => Ok(Next::End),
            (false, _) => Ok(Next::Events(events)),
        }
    }

    /// A bundle has no tiles: its events hold every leaf.
    async fn tile(&mut self, _: u8, _: u64) -> Result<Option<Vec<u8>>, Problem> {
        Ok(None)
    }
}

fn text(path: &Path) -> Result<String, BundleError> {
    std::fs::read_to_string(path).map_err(failed("read", path))
}

fn digest(path: &Path) -> std::io::Result<String> {
    let (mut file, mut sum, mut bytes) = (File::open(path)?, sha2::Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(Digest(sum.finalize().into()).to_string()),
            read => sum.update(&bytes[..read]),
        }
    }
}
